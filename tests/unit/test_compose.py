"""The Compose file: settings, restarts, order, volumes."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from support.deployment import (
    COMPOSE,
    COMPOSE_TEXT,
    ENV_EXAMPLE,
    KUBERNETES,
    SERVICES,
    WORKERS,
    dockerfile,
    documents,
    interpolated,
    pods,
)
from support.places import ROOT

from pgclip.settings import Settings

LONG_RUNNING = ("postgres", "redis", *WORKERS)
DEPLOY_FILES = [
    ROOT / "docker-compose.yml", ROOT / ".env.example", ROOT / "deploy" / "README.md",
    *KUBERNETES.glob("*.yaml"), *(ROOT / "docker").iterdir(),
]  # fmt: skip


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
