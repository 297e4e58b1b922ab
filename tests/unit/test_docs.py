"""Docs that fail when they are stale."""

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest
import typer
from support.databases import run_sql
from support.places import ROOT
from support.processes import Live

import pgclip
from pgclip.cli import main
from pgclip.cli.app import app
from pgclip.settings import Settings

README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_every_setting_is_documented_with_its_default() -> None:
    documented = dict(re.findall(r"^\| `(PGCLIP_\w+)` \| (.*?) \|", REFERENCE, re.MULTILINE))
    assert set(documented) == {f"PGCLIP_{field.name.upper()}" for field in fields(Settings)}
    for field in fields(Settings):
        default = str(field.default) if field.default not in ("", ()) else ""
        if isinstance(field.default, bool):
            default = "on" if field.default else "off"
        assert documented[f"PGCLIP_{field.name.upper()}"] == default


def test_every_public_function_is_documented(sql: Callable[..., list[Any]]) -> None:
    internal = {  # called by workers and views
        "sign_on", "heartbeat", "sign_off", "claim", "release", "sweep", "store", "open_results",
        "known_embeddings", "register_model", "collect_contents", "backlog", "take_queries",
        "answer_query", "refuse_query", "expire_queries", "ticket_queues", "labels_of",
        "vectors_of", "notify_settled", "close_segment", "next_build", "build_segment",
        "announce_segments", "exchange_segments", "drop_retired", "unindexed", "keep_label_vector",
        "next_relabeling", "store_labels", "serves",
    }  # fmt: skip
    rows = sql("SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pgclip'::regnamespace")
    names = {name for (name,) in rows if not name.startswith("_")}
    documented = set(re.findall(r"pgclip\.(\w+)\(", REFERENCE)) - {"Client", "AsyncClient"}
    assert documented == names - internal
    views = sql("SELECT viewname FROM pg_views WHERE schemaname = 'pgclip'")
    assert all(f"`pgclip.{name}`" in REFERENCE for (name,) in views)


def test_every_method_and_reason_is_documented() -> None:
    for name in dir(pgclip.Client):
        if not name.startswith("_") and name != "close":
            assert f"`{name}(" in REFERENCE, name
    workers = "".join(file.read_text() for file in (ROOT / "workers").rglob("*.py"))
    reasons = set(re.findall(r'(?:Refused|Failure)\(\s*"(\w+)"', workers)) | {"worker_died"}
    assert len(reasons) > 12
    documented = set(re.findall(r"`(\w+)`", REFERENCE.split("## Reasons for failure")[1]))
    assert reasons <= documented


def test_every_command_and_option_is_documented() -> None:
    rows = dict(
        re.findall(r"^\| `pgclip ([a-z ]+)(?: [A-Z].*?)?` \| (.*?) \|", REFERENCE, re.MULTILINE)
    )
    found = dict(commands(typer.main.get_command(app)))
    assert rows.keys() == found.keys()
    common = {"--database-url", "--redis-url", "--json", "--help"}
    for name, options in found.items():
        documented = set(re.findall(r"`(-.*?)`", rows[name]))
        assert documented == {max(names, key=len) for names in options} - common, name


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, list[list[str]]]]:
    """Every command's name, with the spellings of each of its options."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            options = [p for p in command.params if p.param_type_name == "option"]
            spellings = [p.opts for p in options] + [p.secondary_opts for p in options]
            yield prefix + name, [names for names in spellings if names]


def test_every_metric_is_documented() -> None:
    code = (ROOT / "workers" / "pgclip_workers" / "telemetry" / "metrics.py").read_text()
    names = set(re.findall(r'"(pgclip_\w+)"', code))
    documented = set(re.findall(r"`(pgclip_\w+)`", REFERENCE.split("## Metrics")[1]))
    assert {re.sub("_(total|info)$", "", name) for name in documented} == names


SHELL = [
    line.strip()
    for name in ("README.md", "docs/quickstart.md", "docs/how-to.md", "docs/search.md")
    for line in (ROOT / name).read_text().splitlines()
]


@pytest.mark.parametrize("line", [line for line in SHELL if re.match(r"(\w+=\S+ )*pgclip ", line)])
def test_the_commands_in_the_docs_are_ones(line: str) -> None:
    words = shlex.split(line, comments=True)
    words = words[words.index("pgclip") + 1 :]
    found = dict(commands(typer.main.get_command(app)))
    name = " ".join(words[:2]) if words[0] == "labels" else words[0]
    options = [option for names in found[name] for option in names]
    assert {word for word in words if word.startswith("-")} <= set(options)


@pytest.mark.parametrize(("name", "count"), [("quickstart", 1), ("how-to", 7)])
def test_the_python_in_the_docs_runs(
    live: Live, monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    found = blocks((ROOT / "docs" / f"{name}.md").read_text(), "python")
    assert len(found) == count
    picture = next((ROOT / "demo" / "pictures").glob("cat.*")).read_bytes()
    (live.folder / "cat.jpg").write_bytes(picture)
    for variable in ("database_url", "redis_url"):
        monkeypatch.setenv(f"PGCLIP_{variable.upper()}", getattr(live.client.settings, variable))
    for code in found:
        code = code.replace("/srv/pictures", str(live.folder))
        exec(compile(code, f"{name}.md", "exec"), {"client": live.client, "__name__": name})


def test_the_sql_and_python_of_the_guide_to_searching_run(live: Live) -> None:
    """In their order: they build on each other, and what they set up is taken back."""
    (live.folder / "cat.jpg").write_bytes(
        next((ROOT / "demo" / "pictures").glob("cat.*")).read_bytes()
    )
    text = (ROOT / "docs" / "search.md").read_text().replace("/srv/pictures", str(live.folder))
    found = re.findall(r"```(sql|python)\n(.*?)```", text, re.DOTALL)
    assert len(found) == 23
    names = {"client": live.client}
    try:
        for language, code in found:
            if language == "python":
                exec(compile(code, "search.md", "exec"), names)
            else:
                for statement in code.split(";")[:-1]:
                    run_sql(live.database_url, statement)
    finally:
        run_sql(live.database_url, "DELETE FROM pgclip.calibration")
        run_sql(live.database_url, "SELECT pgclip.configure_text_search()")


def test_the_sql_in_the_quickstart_runs(live: Live) -> None:
    (code,) = blocks((ROOT / "docs" / "quickstart.md").read_text(), "sql")
    for statement in code.split(";")[:-1]:
        run_sql(live.database_url, statement)


def test_links_lead_somewhere() -> None:
    for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#]+)", file.read_text()):
            if "://" not in target:
                assert (file.parent / target).exists(), (file, target)


def test_the_readmes_python_runs(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks(README, "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    (live.folder / "cat.jpg").write_bytes(
        next((ROOT / "demo" / "pictures").glob("banana.*")).read_bytes()
    )
    code = code.replace("/srv/pictures", str(live.folder))
    monkeypatch.setenv("PGCLIP_DATABASE_URL", live.client.settings.database_url)
    monkeypatch.setenv("PGCLIP_REDIS_URL", live.client.settings.redis_url)
    exec(compile(code, "README.md", "exec"), {})
    assert live.client.get("cat-1", collection="shop")


def test_the_readmes_sql_runs(live: Live) -> None:
    (code,) = blocks(README, "sql")
    statements = [part.strip() for part in re.sub(r"--.*", "", code).split(";") if part.strip()]
    assert len(statements) == 6
    run_sql(live.database_url, statements[0])
    live.client.submit_text("two dogs in the snow", key="note-8").wait(60)
    for statement in statements[1:]:
        run_sql(live.database_url, statement)


def test_the_commands_that_the_readme_names_exist() -> None:
    for command in re.findall(r"^ +.*?pgclip (\w+)", README, re.MULTILINE):
        assert main([command, "--help"]) == 0
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"make (\w+)", README)
    assert {"demo", "test", "bench"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
