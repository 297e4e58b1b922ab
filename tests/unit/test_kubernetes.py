"""The Kubernetes manifests: valid, complete, with no more rights than are needed."""

import json
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml
from support.deployment import (
    KUBERNETES,
    KUSTOMIZATION,
    ONE_GPU,
    SERVICES,
    WORKERS,
    dockerfile,
    documents,
    pods,
    the,
)

from pgclip.settings import Settings

HEALTH = ["pgclip", "health"]


def test_manifests_are_valid() -> None:
    kinds = set()
    for document in documents():
        assert "namespace" not in document["metadata"]
        kinds.add(document["kind"])
        if not document["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(document, "1.30", strict=True)
    assert kinds == {
        "Deployment", "Job", "PersistentVolumeClaim", "PodDisruptionBudget", "ScaledObject",
        "Secret", "TriggerAuthentication",
    }  # fmt: skip
    assert "secret.example.yaml" not in KUSTOMIZATION["resources"]
    assert {file.name for file in KUBERNETES.iterdir()} == {
        *KUSTOMIZATION["resources"], "kustomization.yaml", "secret.example.yaml",
    }  # fmt: skip


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kustomize_puts_them_together() -> None:
    command = ["kubectl", "kustomize", str(KUBERNETES)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    made = {document["kind"]: document for document in yaml.safe_load_all(built.stdout)}
    (container,) = pods(made["Deployment"])
    assert container["image"] == "pgclip-worker:0.1.0"
    assert {"configMapRef": {"name": made["ConfigMap"]["metadata"]["name"]}} in container["envFrom"]


def test_workers_of_kubernetes_can_read_their_settings() -> None:
    (container,) = pods(the("Deployment"))
    (config,) = KUSTOMIZATION["configMapGenerator"]
    secret = the("Secret")
    assert {"configMapRef": {"name": config["name"]}} in container["envFrom"]
    assert {"secretRef": {"name": secret["metadata"]["name"]}} in container["envFrom"]
    environment = dict(literal.split("=", 1) for literal in config["literals"])
    environment |= {variable["name"]: variable["value"] for variable in container["env"]}
    settings = Settings.load({**environment, **secret["stringData"]})
    assert settings.required("database_url")
    assert settings.required("redis_url")
    assert settings.metrics_port == container["ports"][0]["containerPort"]
    annotations = the("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(settings.metrics_port)
    assert settings.metrics_host == "0.0.0.0"


def test_images_of_kubernetes_are_those_that_are_built() -> None:
    built = {service.get("image") for service in SERVICES.values() if "build" in service}
    named = {image["name"] for image in KUSTOMIZATION["images"]}
    used = {c["image"] for document in documents() for c in pods(document)}
    assert used == named
    assert named <= built


@pytest.mark.parametrize("kind", ["Job", "Deployment"])
def test_pods_have_no_more_than_they_need(kind: str) -> None:
    pod = the(kind)["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    user = pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]
    assert "{}:{}".format(*user) == dockerfile()["worker"].last("USER")
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]


def test_workers_of_kubernetes_have_what_they_write_to() -> None:
    pod = the("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert "emptyDir" in mounts["/tmp"]
    claim = mounts[dockerfile()["worker"].last("VOLUME")]["persistentVolumeClaim"]["claimName"]
    assert claim == the("PersistentVolumeClaim")["metadata"]["name"]
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_workers_are_replaced_without_a_spare_gpu() -> None:
    spec = the("Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= 60
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    disruption = the("PodDisruptionBudget")["spec"]
    assert disruption["selector"] == spec["selector"]
    assert disruption["maxUnavailable"] == 1
    # Else every kubectl apply would undo the autoscaler's work.
    assert "replicas" not in spec


def test_all_probes_run_the_health_check() -> None:
    for name in WORKERS:
        assert SERVICES[name]["healthcheck"]["test"] == ["CMD", *HEALTH]
    (container,) = pods(the("Deployment"))
    assert container["startupProbe"]["exec"]["command"] == [*HEALTH, "--heartbeat"]
    assert container["readinessProbe"]["exec"]["command"] == HEALTH
    assert container["livenessProbe"]["exec"]["command"] == [*HEALTH, "--restart"]
    *scripts, folder = dockerfile()["worker"].last("COPY").split()
    entrypoint = json.loads(dockerfile()["worker"].last("ENTRYPOINT"))
    assert f"{folder}{ONE_GPU.name}" in entrypoint
    assert f"docker/{ONE_GPU.name}" in scripts


def test_scaled_object_has_the_documented_fields() -> None:
    scaled, secret = the("ScaledObject")["spec"], the("Secret")
    assert set(scaled) <= {
        "scaleTargetRef", "pollingInterval", "cooldownPeriod", "initialCooldownPeriod",
        "idleReplicaCount", "minReplicaCount", "maxReplicaCount", "fallback", "advanced",
        "triggers",
    }  # fmt: skip
    assert scaled["scaleTargetRef"] == {"name": the("Deployment")["metadata"]["name"]}
    assert 0 < scaled["minReplicaCount"] < scaled["maxReplicaCount"]
    (trigger,) = scaled["triggers"]
    assert set(trigger) == {"type", "metadata", "authenticationRef"}
    assert trigger["type"] == "postgresql"
    # Values are strings in KEDA, numbers too.
    assert set(trigger["metadata"]) == {"query", "targetQueryValue"}
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert float(trigger["metadata"]["targetQueryValue"]) > 0
    authentication = the("TriggerAuthentication")
    assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
    (reference,) = authentication["spec"]["secretTargetRef"]
    assert reference["parameter"] == "connection"
    assert reference["name"] == secret["metadata"]["name"]
    assert reference["key"] in secret["stringData"]
    # KEDA's part of the HorizontalPodAutoscaler is checked as that.
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "keda"},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", **scaled["scaleTargetRef"]},
            "maxReplicas": scaled["maxReplicaCount"],
            "behavior": scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
        },
    }
    kubernetes_validate.validate(autoscaler, "1.30", strict=True)
