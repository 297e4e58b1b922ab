"""The Python and SQL of the README and the docs run."""

import re

import pytest
from support.databases import run_sql
from support.documents import README
from support.places import ROOT
from support.processes import Live, eventually


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize(("name", "count"), [("quickstart", 1), ("how-to", 8)])
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
    assert len(found) == 29
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


def test_the_sql_and_python_of_the_guide_to_tables_run(
    live: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "tables.md").read_text().replace("/srv/pictures", str(live.folder))
    found = re.findall(r"```(sql|python)\n(.*?)```", text, re.DOTALL)
    assert [language for language, _ in found] == ["sql", "sql", "python", "python", "sql"]
    try:
        for language, code in found:
            if language == "python":
                exec(compile(code, "tables.md", "exec"), {"client": live.client})
            else:
                for statement in code.split(";")[:-1]:
                    run_sql(live.database_url, statement)
    finally:
        run_sql(live.database_url, "DROP SCHEMA shop CASCADE")
    told = capsys.readouterr().out
    assert "shop.product" in told
    assert "SELECT pgclip.unindex_table('shop.product', 'titles')" in told
    eventually(lambda: live.client.tables() == [])


def test_the_sql_and_python_of_the_guide_to_labels_run(
    live: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    client = live.client
    submitted = [client.submit_text(f"a scratch, {n}", key=f"p/{n}") for n in (17, 18, 19)]
    for job in submitted:
        job.wait(60)
    found = re.findall(
        r"```(sql|python)\n(.*?)```", (ROOT / "docs" / "labels.md").read_text(), re.DOTALL
    )
    assert len(found) == 13
    names = {"client": client}
    try:
        for language, code in found:
            if language == "python":
                exec(compile(code, "labels.md", "exec"), names)
                continue
            for statement in code.split(";")[:-1]:
                if "search(" in statement:
                    client.embed("something soft")
                run_sql(live.database_url, statement)
    finally:
        for name in ("pets", "defects"):
            client.drop_label_set(name)
    told = capsys.readouterr().out
    assert "p/17 scratch True ana" in told
    assert "right by prompts" in told
    assert "judging" in told or "waiting" in told


def test_the_sql_in_the_quickstart_runs(live: Live) -> None:
    (code,) = blocks((ROOT / "docs" / "quickstart.md").read_text(), "sql")
    for statement in code.split(";")[:-1]:
        run_sql(live.database_url, statement)


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
    of_tables, code = blocks(README, "sql")
    run_sql(live.database_url, """CREATE TABLE product (
        id int PRIMARY KEY, photo_url text, title text, price numeric)""")  # fmt: skip
    index, insert, search = re.sub(r"--.*", "", of_tables).split(";")[:-1]
    run_sql(live.database_url, f"{index}; {insert}")
    live.client.embed("something for the beach")
    rows: list[object] = []
    eventually(lambda: rows.extend(run_sql(live.database_url, search)) or rows)
    assert rows[0][:3] == (7, "/srv/pictures/dress.jpg", "A red summer dress")  # type: ignore[index]
    run_sql(live.database_url, "DROP TABLE product")
    eventually(lambda: live.client.tables() == [])
    statements = [part.strip() for part in re.sub(r"--.*", "", code).split(";") if part.strip()]
    assert len(statements) == 6
    run_sql(live.database_url, statements[0])
    live.client.submit_text("two dogs in the snow", key="note-8").wait(60)
    for statement in statements[1:]:
        run_sql(live.database_url, statement)
