"""The files that deploy pgclip, read."""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from support.places import ROOT

COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
WORKERS = ("worker", "worker-cpu")
KUBERNETES = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
ONE_GPU = ROOT / "docker" / "one_gpu.py"


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


ENV_EXAMPLE = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))


def interpolated(value: str) -> str:
    """A value of the Compose file with .env.example filled in."""

    def fill(match: "re.Match[str]") -> str:
        default = match[2].removeprefix(":-") if (match[2] or "").startswith(":-") else "secret"
        return ENV_EXAMPLE[match[1]] or default

    return re.sub(r"\$\{(\w+)(:[-?][^}]*)?\}", fill, value)
