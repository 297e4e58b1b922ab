"""`pgclip health`: is the worker of this host at work? For containers and their orchestrators."""

import os
import socket
from typing import Annotated, Any

import typer

from pgclip import statements
from pgclip.cli.options import DatabaseUrl, settings_for
from pgclip.database import Database
from pgclip.errors import ConnectionFailed


def health(
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            help="Ask whether a restart would help: it does not while a service is away.",
        ),
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="Of which host, as status shows it. Default: this one.")
    ] = None,
    pid: Annotated[int | None, typer.Option(help="Of which process, if several run.")] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Say whether the worker of this host is at work.

    Postgres is asked, which decides who does the work: a worker is healthy if its heartbeat arrives
    and it has no trouble to tell of. One that is frozen, stuck or cut off has no heartbeat, and one
    of whose threads died ends by itself.

    Exit status: 0 healthy, 1 not healthy, 2 can't tell, since Postgres can't be reached. With
    --restart, 1 only if the worker has no heartbeat though Postgres can be reached.
    """
    settings = settings_for(database_url, None, needs_redis=False)
    where = host or socket.gethostname()
    database = Database(
        settings.database_url, pool_size=1, connect_timeout=settings.connect_timeout
    )
    try:
        with database.transaction("health") as cursor:
            cursor.execute(statements.WORKERS_OF, (where, pid, pid))
            workers = cursor.fetchall()
    except ConnectionFailed as error:
        typer.echo(f"can't tell: {error}", err=True)
        raise typer.Exit(0 if restart else 2) from error
    finally:
        database.close()
    if host is None:
        workers = [worker for worker in workers if _runs(worker[1])]
    is_healthy, told = _verdict(workers, where, restart)
    typer.echo(told, err=not is_healthy)
    if not is_healthy:
        raise typer.Exit(1)


def _runs(pid: int) -> bool:
    """Whether there is such a process here; of one that has just ended the heartbeat is fresh."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def _verdict(workers: list[tuple[Any, ...]], where: str, restart: bool) -> tuple[bool, str]:
    """Of rows of id, pid, alive, age of the heartbeat, jobs, trouble; the youngest first."""
    if not workers:
        return False, f"no worker runs on {where}"
    number, pid, alive, age, jobs, trouble = workers[0]
    told = f"worker {number} (process {pid}) on {where}: heartbeat {age:.0f} s ago, {jobs} jobs"
    if not alive:
        return False, f"{told}; its lease has run out"
    if trouble:
        return restart, f"{told}; {trouble}"
    return True, told
