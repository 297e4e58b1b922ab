"""The package's face, and who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from support.places import ROOT

import pgclip

FORBIDDEN = {
    # The client runs in web backends: nothing heavy, no worker code, no web framework.
    "api/pgclip": {"torch", "PIL", "transformers", "pgclip_workers", "flask", "fastapi", "django"},
    "workers/pgclip_workers": {"flask", "fastapi", "django", "sqlalchemy"},
    "web/pgclip_web": {
        "torch",
        "PIL",
        "transformers",
        "pgclip_workers",
        "psycopg2",
        "fastapi",
        "django",
    },
    # Live code would change what an old migration means.
    "migrations": {"pgclip", "pgclip_workers", "torch", "PIL", "transformers"},
}


# The worker's rooms, and those that each may import from. What stands in none is for all
# (GROUND), or above all.
ROOMS: dict[str, set[str]] = {
    "pictures": set(),
    "models": {"pictures"},
    "labelling": {"models"},
    "mapping": {"models"},
    "upkeep": {"models"},
    "pipeline": {"pictures", "models", "labelling", "upkeep"},
    "telemetry": {"models", "pipeline"},
}


GROUND = {"statements", "machine", "termination"}
# Pictures know nothing of weights, models nothing of queues and of Postgres.
FOREIGN = {
    "pictures": {"torch", "transformers", "open_clip", "pgclip.database", "pgclip.submitting"},
    "models": {"psycopg2", "celery", "redis", "pgclip.database", "pgclip.submitting"},
}


# Decoding processes start quickly and stay small.
NO_TORCH = [
    *(f"pictures.{name}" for name in ("decode", "sources", "preprocessing", "decoders")),
    *("main", "models.encoder", "worker"),
]


def imported(file: Path, with_members: bool = False) -> set[str]:
    """Modules that a file imports, wherever; `with_members`: and what it takes from them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if with_members:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names - {"pgclip_workers"}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_part_imports_what_it_must_not(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for file in files:
        roots = {name.split(".")[0] for name in imported(file)}
        # One command reads headers of pictures, if it is asked to and Pillow is there.
        allowed = {"PIL"} if file.match("cli/indexing/fields.py") else set()
        assert not roots & FORBIDDEN[folder] - allowed, file


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_one_way(room: str) -> None:
    files = list((ROOT / "workers" / "pgclip_workers" / room).rglob("*.py"))
    assert len(files) > 2
    for file in files:
        for name in imported(file, with_members=True):
            assert not any(name == other or name.startswith(f"{other}.")
                           for other in FOREIGN.get(room, ())), (file, name)  # fmt: skip
            parts = name.split(".")
            if parts[0] == "pgclip_workers" and len(parts) > 1:
                assert parts[1] in ROOMS[room] | GROUND | {room}, (file, name)


def test_the_ground_imports_no_room() -> None:
    for name in GROUND:
        file = ROOT / "workers" / "pgclip_workers" / f"{name}.py"
        assert not any(other.startswith("pgclip_workers") for other in imported(file)), file


def test_every_module_of_the_worker_has_its_place() -> None:
    folder = ROOT / "workers" / "pgclip_workers"
    assert {each.name for each in folder.iterdir() if each.is_dir()} - {"__pycache__"} == set(ROOMS)
    top = {file.stem for file in folder.glob("*.py")} - {"__init__"}
    assert top == GROUND | {"main", "worker", "consumer", "queries"}


def test_benchmarks_demo_and_examples_use_public_names_only() -> None:
    folders = [ROOT / "benchmarks", ROOT / "examples"]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    for file in [*files, ROOT / "demo" / "demo.py"]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pgclip"):
                assert not any(alias.name.startswith("_") for alias in node.names), file


def test_importing_the_client_loads_nothing_heavy() -> None:
    code = "import sys, pgclip; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    roots = {name.split(".")[0] for name in loaded.stdout.decode().split()}
    heavy = {"torch", "PIL", "transformers", "sqlalchemy", "celery", "kombu", "redis", "numpy"}
    assert not roots & heavy


@pytest.mark.parametrize("module", NO_TORCH)
def test_torch_is_loaded_by_the_model_alone(module: str) -> None:
    code = f"import sys, pgclip_workers.{module}; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert run.stdout.split() == [b"False"]


def test_public_names() -> None:
    assert sorted(pgclip.__all__) == pgclip.__all__
    assert set(pgclip.__all__) == {
        "AsyncClient",
        "Batch",
        "Calibration",
        "Choice",
        "Classified",
        "Client",
        "Collection",
        "ConfigurationError",
        "RolledBack",
        "Readiness",
        "Comparison",
        "ComparedQuery",
        "ConnectionFailed",
        "Decided",
        "DecisionChange",
        "Draw",
        "Duplicate",
        "FailureCount",
        "Healed",
        "Hit",
        "IndexedTable",
        "InvalidItem",
        "Item",
        "ItemFailed",
        "ItemFailure",
        "ItemInfo",
        "Job",
        "Judgement",
        "Label",
        "LabelSet",
        "Like",
        "Missing",
        "MissingRow",
        "ModelMismatch",
        "ModelPlan",
        "ModelMap",
        "Model",
        "ModelAnswer",
        "NotCommitted",
        "NotFound",
        "PgclipError",
        "Promise",
        "QueryFailed",
        "QueueFull",
        "RowHit",
        "SchemaError",
        "Segment",
        "Similarity",
        "TableSQL",
        "WaitTimeout",
        "index_table_sql",
    }
    assert all(hasattr(pgclip, name) for name in pgclip.__all__)
