"""A command begins at once: it imports what it uses, and nothing that only others use."""

import json
import subprocess
import sys

import pytest
from support.processes import Live

# Each takes a tenth of a second or more.
HEAVY = {"numpy", "sqlalchemy", "celery", "kombu", "PIL", "torch", "transformers", "alembic"}
MAIN = """
import json, sys
from pgclip.cli import main
status = main(sys.argv[1:])
print(json.dumps([status, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def imported(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *arguments], capture_output=True, text=True, check=True
    )
    status, modules = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
    return set(modules)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["search", "--help"]])
def test_what_asks_nothing_imports_nothing(arguments: list[str]) -> None:
    assert not imported(*arguments) & HEAVY


def test_a_search_imports_what_it_needs(live: Live) -> None:
    urls = ("--database-url", live.database_url, "--redis-url", live.client.settings.redis_url)
    live.client.submit_text("a cat on a sofa", key="start").wait(60)
    modules = imported("search", "a", "cat", *urls)
    assert "psycopg2" in modules
    assert not modules & HEAVY
    assert not imported("list", *urls) & HEAVY


def test_names_of_the_package_are_imported_when_they_are_used() -> None:
    code = (
        "import sys, pgclip; assert 'pgclip.client' not in sys.modules; pgclip.Client; "
        "assert set(pgclip.__all__) <= set(dir(pgclip)); from pgclip import *; print(Hit, Job);"
        "import pgclip; pgclip.errors.NotFound, pgclip.submitting, pgclip.settings"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Hit" in done.stdout


def test_a_name_that_is_not_there_is_none() -> None:
    import pgclip

    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        pgclip.Klient  # noqa: B018
