"""What was laid is valid, safe to run with the owner's rights, and what access names is there."""

from collections.abc import Callable
from typing import Any

Sql = Callable[..., list[Any]]


def test_the_body_of_every_function_is_valid(sql: Sql) -> None:
    """They are laid unchecked, since they may call what comes later."""
    functions = sql(
        "SELECT p.oid, l.lanvalidator::regproc::text FROM pg_proc p"
        " JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = 'pgclip'::regnamespace"
    )
    assert len(functions) > 140
    for oid, validator in functions:
        sql(f"SELECT {validator}({oid})")


def test_functions_with_the_owners_rights_have_a_fixed_search_path(sql: Sql) -> None:
    loose = "SELECT proname FROM pg_proc WHERE pronamespace = 'pgclip'::regnamespace AND prosecdef"
    assert len(sql(loose)) > 50
    assert sql(f"{loose} AND NOT 'search_path=pg_catalog, pg_temp' = ANY(proconfig)") == []


def test_what_clients_and_workers_may_call_and_read_exists(sql: Sql) -> None:
    for access in ("client", "worker"):
        (functions,) = sql("SELECT pgclip._functions_of(%s)", access)[0]
        found = sql("SELECT DISTINCT proname FROM pg_proc WHERE proname = ANY(%s)"
                    " AND pronamespace = 'pgclip'::regnamespace", functions)  # fmt: skip
        assert {name for (name,) in found} == set(functions)
        (tables,) = sql("SELECT pgclip._readable_by(%s)", access)[0]
        for table in tables:
            assert sql("SELECT to_regclass(%s)", f"pgclip.{table.split(' ')[0]}") != [(None,)]
