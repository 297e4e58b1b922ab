"""The files of the schema: each object defined once; numbered migrations do their job alone."""

import re
from collections import Counter
from typing import Any

import pytest
from support.places import ROOT

from pgclip.schema.definitions import FILES, definitions, parse, statements

MIGRATIONS = ROOT / "migrations"
NUMBERED = sorted((MIGRATIONS / "sql").glob("*.sql"))


def test_every_object_is_defined_once() -> None:
    names = Counter(definition.name for definition in definitions("public"))
    assert len(names) > 150
    assert [name for name, count in names.items() if count > 1] == []


def test_every_file_is_read_and_none_besides() -> None:
    assert sorted(FILES) == sorted(file.stem for file in (MIGRATIONS / "schema").iterdir())
    assert [file.stem for file in NUMBERED] == sorted(
        file.name[:4] for file in (MIGRATIONS / "versions").glob("*.py")
    )


@pytest.mark.parametrize("file", NUMBERED, ids=lambda file: file.stem)
def test_numbered_migrations_define_nothing_that_can_be_replaced_and_call_none_of_it(
    file: Any,
) -> None:
    text = re.sub(r"--[^\n]*", "", file.read_text())
    assert not re.search(r"CREATE (OR REPLACE )?(FUNCTION|PROCEDURE|VIEW|TRIGGER)", text)
    for definition in definitions("public"):
        kind, name = definition.name.split(" ")
        assert kind != "function" or not re.search(rf"pgclip\.{name}\(", text), name


FILES_OF_SQL = pytest.mark.parametrize(
    "file", [*NUMBERED, *(MIGRATIONS / "schema").iterdir()], ids=lambda file: file.stem
)


@FILES_OF_SQL
def test_lines_are_as_wide_as_in_python(file: Any) -> None:
    assert [line for line in file.read_text().splitlines() if len(line) > 100] == []


@FILES_OF_SQL
def test_a_backslash_means_the_same_whatever_is_the_databases_default(file: Any) -> None:
    """standard_conforming_strings may be off where a function is run."""
    plain = re.sub(r"E'(?:[^'\\]|\\.|'')*'", "", file.read_text())
    assert "\\" not in plain


def test_statements_end_where_they_end() -> None:
    text = """-- A comment; with a semicolon.
    CREATE FUNCTION pgclip.a() RETURNS text LANGUAGE sql AS $$ SELECT ';'; -- ;
    $$;

    -- Another; one.
    CREATE VIEW pgclip.b AS SELECT 'it''s; one' AS "a;b";  -- and one behind
    """
    first, second = statements(text)
    assert first.startswith("CREATE FUNCTION pgclip.a()")
    assert first.endswith("$$")
    assert second == """CREATE VIEW pgclip.b AS SELECT 'it''s; one' AS "a;b\""""
    assert [each.name for each in parse(text, "public")] == ["function a", "view b"]


@pytest.mark.parametrize("text", ["SELECT 1;", "CREATE TABLE pgclip.a (b int);", "CREATE VIEW a"])
def test_what_is_no_definition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a definition|does not end"):
        parse(text, "public")
