"""`pgclip doctor`: looks at everything that has to be there, and says what to do."""

from collections.abc import Iterator
from dataclasses import asdict

import typer

from pgclip.cli.checks.finding import Finding
from pgclip.cli.checks.machine import places, worker_parts
from pgclip.cli.checks.services import postgres, redis_server
from pgclip.cli.checks.work import model, work
from pgclip.cli.options import AsJson, DatabaseUrl, RedisUrl, settings_for
from pgclip.cli.output import out, print_json
from pgclip.errors import PgclipError

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "trouble": ("✗", "red")}


def doctor(
    database_url: DatabaseUrl = None, redis_url: RedisUrl = None, as_json: AsJson = False
) -> None:
    """Check services, versions, schema, model, folders and workers, and say what to do.

    Exit status 1 if something is in the way.
    """
    found: list[Finding] = []
    for finding in findings(database_url, redis_url):
        found.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        print_json([asdict(finding) for finding in found])
    if any(finding.state == "trouble" for finding in found):
        raise typer.Exit(1)


def findings(database_url: str | None, redis_url: str | None) -> Iterator[Finding]:
    """Every check in turn; those that need what is not there are left out."""
    try:
        settings = settings_for(database_url, redis_url)
    except PgclipError as error:
        yield Finding("settings", "trouble", str(error))
        return
    yield Finding("settings", "ok", "read")
    status = yield from postgres(settings)
    yield redis_server(settings)
    yield from worker_parts(settings)
    yield from places(settings)
    if status is not None:
        yield from model(settings, status)
        yield from work(status)


def _print(finding: Finding) -> None:
    mark, style = _MARKS[finding.state]
    out.print(f"[{style}]{mark}[/] ", end="")
    out.print(f"{finding.what}: {finding.detail}", markup=False)
    if finding.advice:
        out.print(f"  → {finding.advice}", markup=False)
