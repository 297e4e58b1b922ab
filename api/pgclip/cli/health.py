"""`pgclip health`: is the worker of this host at work? For containers and their orchestrators."""

import os
import socket
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from pgclip import statements
from pgclip.cli.options import DatabaseUrl, settings_for
from pgclip.database import Database
from pgclip.errors import ConnectionFailed, PgclipError

# Within what an orchestrator waits for a probe.
_CONNECT_SECONDS = 3.0
_ANSWER = "3s"


class Worker(NamedTuple):
    """A row of pgclip.workers; ages are seconds."""

    id: int
    pid: int
    alive: bool
    age: float
    heartbeat_age: float
    jobs: int
    trouble: str | None


def health(
    heartbeat: Annotated[
        bool, typer.Option("--heartbeat", help="Ask for its heartbeat alone, not for trouble.")
    ] = False,
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
    and it has no trouble to tell of. One that is frozen or cut off has no heartbeat, and one that
    is stuck, or of whose threads one died, ends by itself.

    Exit status: 0 healthy, 1 not healthy, 2 can't tell, since Postgres does not answer. With
    --restart, 1 only if the worker has no heartbeat though Postgres answers.
    """
    where = host or socket.gethostname()
    try:
        workers = _workers(database_url, where, pid)
    except PgclipError as error:
        typer.echo(f"can't tell: {error}", err=True)
        code = 2 if isinstance(error, ConnectionFailed) else 1
        raise typer.Exit(0 if restart else code) from error
    if host is None:
        workers = [worker for worker in workers if _runs(worker)]
    is_healthy, told = _verdict(workers, where, heartbeat or restart)
    typer.echo(told, err=not is_healthy)
    if not is_healthy:
        raise typer.Exit(1)


def _workers(database_url: str | None, host: str, pid: int | None) -> list[Worker]:
    """Those of a host, or one process there; whose heartbeat is the youngest comes first."""
    settings = settings_for(database_url, None, needs_redis=False)
    database = Database(
        settings.database_url,
        pool_size=1,
        connect_timeout=min(_CONNECT_SECONDS, settings.connect_timeout),
        local={"statement_timeout": _ANSWER},
        application_name="pgclip health",
        # A worker goes on under a newer schema; so does whoever asks about it.
        check=False,
    )
    try:
        with database.transaction("health") as cursor:
            cursor.execute(statements.WORKERS_OF, (host, pid, pid))
            return [Worker(*row) for row in cursor.fetchall()]
    finally:
        database.close()


def _verdict(workers: list[Worker], where: str, trouble_is_fine: bool) -> tuple[bool, str]:
    if not workers:
        return False, f"no worker runs on {where}"
    worker = workers[0]
    told = (
        f"worker {worker.id} (process {worker.pid}) on {where}: "
        f"heartbeat {worker.heartbeat_age:.0f} s ago, {worker.jobs} jobs"
    )
    if not worker.alive:
        return False, f"{told}; its lease has run out"
    if worker.trouble:
        return trouble_is_fine, f"{told}; {worker.trouble}"
    return True, told


def _runs(worker: Worker) -> bool:
    """Whether it is a process here. Of one that has just ended the heartbeat is fresh, and in a
    container that started again another has its number.
    """
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    age = _age_of(worker.pid)
    return age is None or worker.age < age + 1


def _age_of(pid: int) -> float | None:
    """Seconds since a process started, on Linux (proc_pid_stat(5), field 22)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return None
    return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")
