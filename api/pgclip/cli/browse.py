"""`pgclip browse`, and the pages beside `pgclip up`."""

import html
import secrets
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgclip.cli.options import DatabaseUrl, RedisUrl, client_for
from pgclip.client import Client
from pgclip.errors import ConfigurationError

if TYPE_CHECKING:
    import uvicorn

_POOL = 8  # pages, and pictures on them, that are asked for at once
_PORT = 8400


def browse(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0: any that is free.")] = _PORT,
    read_only: Annotated[
        bool,
        typer.Option(
            "--read-only", help="Nothing can be changed.", envvar="PGCLIP_BROWSE_READ_ONLY"
        ),
    ] = False,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Pages to search and look at what is there, on this machine.

    The address has a token, without which nobody is let in. Needs pip install 'pgclip\\[web]'.
    """
    with client_for(database_url, redis_url, pool_size=_POOL) as client:
        server, listening, address = _server(client, host, port, read_only)
        typer.echo(f"{address}\nCtrl-C ends it.")
        with _opened(address) if open_ else nullcontext():
            server.run(sockets=[listening])


@contextmanager
def browsing(
    database_url: str, redis_url: str, *, is_opened: bool, read_only: bool
) -> Iterator[None]:
    """Serves the pages on a thread, while something else is done; opens them in the browser."""
    with client_for(database_url, redis_url, pool_size=_POOL) as client:
        server, listening, address = _server(client, "127.0.0.1", 0, read_only)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="pages")
        thread.start()
        typer.echo(f"Pages: {address}")
        try:
            with _opened(address) if is_opened else nullcontext():
                yield
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def _opened(address: str) -> Iterator[None]:
    """Opens the browser with a file that leads to the address: who looks at the processes of this
    machine sees a browser's arguments, and must not see the token."""
    with tempfile.TemporaryDirectory(prefix="pgclip-") as folder:  # of the user's own
        file = Path(folder) / "browse.html"
        file.write_text(f'<meta http-equiv="refresh" content="0; url={html.escape(address)}">')
        # Some browsers stay in the foreground until they are closed.
        threading.Thread(target=webbrowser.open, args=(file.as_uri(),), daemon=True).start()
        yield


def _server(
    client: Client, host: str, port: int, read_only: bool
) -> "tuple[uvicorn.Server, socket.socket, str]":
    """A server that listens already, and the address by which somebody is let in."""
    try:
        import uvicorn

        from pgclip_web import Access, create_app
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed. For pages: pip install 'pgclip[web]'"
        ) from error
    token = secrets.token_urlsafe(24)
    app = create_app(client, access=Access(token=token, read_only=read_only))
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False)
    listening = config.bind_socket()
    listening.listen()  # who opens the address at once waits until it is served
    at = f"[{host}]" if ":" in host else host
    address = f"http://{at}:{listening.getsockname()[1]}/?token={token}"
    return uvicorn.Server(config), listening, address
