"""The package's face, and who may import whom."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

import pgclip

FORBIDDEN = {
    # The client runs in web backends: nothing heavy, no worker code, no web framework.
    "api/pgclip": {"torch", "PIL", "transformers", "pgclip_workers", "flask", "fastapi", "django"},
    "workers/pgclip_workers": {"flask", "fastapi", "django", "sqlalchemy"},
    # Live code would change what an old migration means.
    "migrations": {"pgclip", "pgclip_workers", "torch", "PIL", "transformers"},
}
# Decoding processes start quickly and stay small.
NO_TORCH = ["decode", "sources", "preprocessing", "decoders", "main", "encoder", "worker"]


def imported(file: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(file.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_part_imports_what_it_must_not(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for file in files:
        roots = {name.split(".")[0] for name in imported(file)}
        assert not roots & FORBIDDEN[folder], file


def test_benchmarks_and_demo_use_public_names_only() -> None:
    for file in [*(ROOT / "benchmarks").rglob("*.py"), ROOT / "demo" / "demo.py"]:
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
        "Batch", "Client", "ConfigurationError", "ConnectionFailed", "Hit", "InvalidItem", "Item",
        "ItemFailed", "ItemFailure", "Job", "Label", "ModelMismatch", "NotFound", "PgclipError",
        "QueryFailed", "SchemaError", "WaitTimeout",
    }  # fmt: skip
    assert all(hasattr(pgclip, name) for name in pgclip.__all__)


def test_the_wheel_holds_both_packages_and_the_migrations(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("pgclip-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"pgclip/py.typed", "pgclip_workers/main.py", "pgclip/migrations/env.py"} <= names
    for file in (ROOT / "migrations").rglob("*.sql"):
        assert f"pgclip/migrations/{file.relative_to(ROOT / 'migrations')}" in names
