"""`pgclip up`, `migrate` and `worker`."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from pgclip import statements
from pgclip.cli.options import DatabaseUrl, RedisUrl, settings_for, urls_file
from pgclip.database import SCHEMA_VERSION, Database
from pgclip.errors import PgclipError
from pgclip.settings import Settings

# Of a worker that ended itself because its device was stuck or lost: another one may do better.
_STUCK = 70
_STOP_SECONDS = 60
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_READY = """
Ready; Ctrl-C stops everything. In another terminal:
  pgclip index ~/Pictures
  pgclip search "a cat on a sofa" --open
The URLs of the services, passwords included, are in {file},
the worker's log is in {log}; warnings are shown here.
"""


def migrate(
    database_url: DatabaseUrl = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be done.")] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the schema with all its data instead.")
    ] = False,
    new_installation: Annotated[
        bool,
        typer.Option(
            "--new-installation",
            help="This database is a copy of one that is in use: give it queues of its own.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Create schema pgclip in the database, bring it up to date, or repair it.

    Functions, views and grants that are missing or differ are laid anew, also after a restore that
    left some out or the move of an extension. Where all is as it should be nothing is changed.
    What was changed is tried; exit status 1 if something can't be done, as for lack of a right.
    """
    from pgclip.migrate import migrate as run
    from pgclip.migrate import plan as make_plan
    from pgclip.migrate import remove as run_removal
    from pgclip.migrate import renew_installation

    settings = Settings.load(database_url=database_url)
    url = settings.database_url or settings_for(None, None).database_url
    if remove:
        if not yes:
            typer.confirm(
                "Remove schema pgclip with every item, vector and label in it?", abort=True
            )
        run_removal(url)
        typer.echo("schema pgclip is gone")
        return
    steps = make_plan(url) if plan else run(url, on_wait=lambda why: typer.echo(why, err=True))
    for step in steps:
        typer.echo(step)
    if plan:
        typer.echo("" if steps else "nothing to do", nl=not steps)
    else:
        typer.echo(f"schema pgclip is at version {SCHEMA_VERSION}")
        if new_installation:
            typer.echo(f"installation {renew_installation(url)}; start its workers anew")
        if steps:
            _try_out(url)


def _try_out(url: str) -> None:
    """Exit status 1 if something can't be done, which is named."""
    from pgclip.migrate import tried

    if refused := tried(url):
        for each in refused:
            typer.echo(f"pgclip: {each}", err=True)
        raise typer.Exit(1)


def worker(database_url: DatabaseUrl = None, redis_url: RedisUrl = None) -> None:
    """Encode and store what was submitted, until stopped. One model, one device."""
    settings = settings_for(database_url, redis_url)
    try:
        # The worker is another package, behind an extra; the client works without it.
        from importlib import import_module

        run = import_module("pgclip_workers.main").run
    except ModuleNotFoundError as error:
        raise PgclipError(
            f"the worker needs {error.name}; install it with: pip install 'pgclip[worker]'"
        ) from error
    raise typer.Exit(int(run(settings)))


def up(
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    data: Annotated[
        Path | None, typer.Option(help="Where the embedded services keep their data.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Hub id or folder of the model.")] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(help="A folder whose files may be indexed by reference; repeatable."),
    ] = None,
    browse: Annotated[
        bool, typer.Option("--browse", help="Pages, too, and open them in the browser.")
    ] = False,
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="With --browse: open the browser.")
    ] = True,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="With --browse: nothing can be changed.")
    ] = False,
) -> None:
    """Run everything on this machine until Ctrl-C: Postgres, Redis, migrations, one worker.

    Services whose URL is given (or set as PGCLIP_DATABASE_URL, PGCLIP_REDIS_URL) are used as they
    are; the others are embedded ones, which need pip install 'pgclip\\[local]'.
    """
    from pgclip.local import LocalServices
    from pgclip.migrate import migrate as run_migrations

    settings = Settings.load(
        database_url=database_url,
        redis_url=redis_url,
        data_dir=data and str(data.absolute()),
        model=model,
        roots=tuple(folder.absolute() for folder in root) if root else None,
    )
    folder = Path(settings.data_dir).expanduser()
    settings = replace(settings, log_file=settings.log_file or str(folder / "worker.log"))
    typer.echo("Starting Postgres and Redis …")
    with LocalServices(
        folder,
        database_url=settings.database_url or None,
        redis_url=settings.redis_url or None,
    ) as services:
        settings = replace(
            settings, database_url=services.database_url, redis_url=services.redis_url
        )
        run_migrations(settings.database_url)
        with _written_down(settings):
            typer.echo(f"Starting a worker with {settings.model} …")
            with _pages(settings, open_, read_only) if browse else nullcontext():
                status = _keep_working(settings)
    typer.echo("Stopped; the data stay.")
    raise typer.Exit(status)


def _pages(settings: Settings, open_: bool, read_only: bool) -> AbstractContextManager[None]:
    from pgclip.cli.browse import browsing

    urls = (settings.database_url, settings.redis_url)
    return browsing(*urls, is_opened=open_, read_only=read_only)


@contextmanager
def _written_down(settings: Settings) -> Iterator[None]:
    """The URLs, which hold a password, in a file of the user's own while the services run."""
    from pgclip.local.locks import FileLock

    file = urls_file(settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name("up.lock")) as lock:
        if not lock.exclusive(0):
            raise PgclipError(
                f"pgclip up runs already with {file.parent}. Another worker for it: pgclip worker"
            )
        file.unlink(missing_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as opened:
            names = ("database_url", "redis_url", "model", "model_name")
            json.dump({name: getattr(settings, name) for name in names}, opened)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _keep_working(settings: Settings) -> int:
    """Runs a worker, and another if its device fails it; returns the exit status."""
    environment = {
        **os.environ,
        "PGCLIP_DATABASE_URL": settings.database_url,
        "PGCLIP_REDIS_URL": settings.redis_url,
        "PGCLIP_DATA_DIR": settings.data_dir,
        "PGCLIP_MODEL": settings.model,
        "PGCLIP_ROOTS": os.pathsep.join(map(str, settings.roots)),
        "PGCLIP_LOG_FILE": settings.log_file,
    }
    running: list[subprocess.Popen[bytes]] = []
    with _stopping(running) as asked:
        while not asked:
            # In a session of its own: Ctrl-C is for us, who stop it and then the services.
            process = subprocess.Popen(
                [sys.executable, "-m", "pgclip", "worker"],
                env=environment,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
            running[:] = [process]
            if asked:  # between the start and the line above
                process.terminate()
            threading.Thread(target=_announce, args=(process, settings), daemon=True).start()
            process.wait()
            if not asked and process.returncode != _STUCK:
                raise PgclipError(f"the worker ended with status {process.returncode}; see above")
            if not asked:
                typer.echo("The worker could not go on, see above; starting another …", err=True)
    return 0


def _end_with_parent() -> None:
    """In the worker: a SIGTERM should `up` be killed (Linux: PR_SET_PDEATHSIG)."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGTERM)


def _announce(process: "subprocess.Popen[bytes]", settings: Settings) -> None:
    """Says how to go on as soon as the worker works."""
    database = Database(settings.database_url, pool_size=1)
    while process.poll() is None:
        try:
            with database.transaction("worker") as cursor:
                cursor.execute(statements.WORKER_ALIVE, (process.pid,))
                if cursor.fetchone() == (True,):
                    typer.echo(_READY.format(file=urls_file(settings), log=settings.log_file))
                    break
        except PgclipError:
            pass
        time.sleep(0.2)
    database.close()


@contextmanager
def _stopping(running: "list[subprocess.Popen[bytes]]") -> Iterator[list[int]]:
    """Passes SIGINT and SIGTERM on as SIGTERM, once; the list says whether one came."""
    asked: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        if not asked:
            typer.echo("\nStopping: what is being encoded is stored …", err=True)
            for process in running:
                process.terminate()
            signal.alarm(_STOP_SECONDS)
        asked.append(number)

    def kill(*_: object) -> None:
        for process in running:
            process.kill()

    before = {
        number: signal.signal(number, handler)
        for number, handler in (
            (signal.SIGINT, stop),
            (signal.SIGTERM, stop),
            (signal.SIGALRM, kill),
        )
    }
    try:
        yield asked
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
