"""`pgclip browse`."""

import secrets
import webbrowser
from typing import Annotated

import typer

from pgclip.cli.options import DatabaseUrl, RedisUrl, client_for
from pgclip.errors import ConfigurationError


def browse(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0: any that is free.")] = 8400,
    read_only: Annotated[bool, typer.Option("--read-only", help="Nothing can be changed.")] = False,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Pages to search and look at what is there, on this machine.

    The address has a token, without which nobody is let in. Needs pip install 'pgclip\\[web]'.
    """
    try:
        import uvicorn

        from pgclip_web import Access, create_app
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed. For pages: pip install 'pgclip[web]'"
        ) from error
    token = secrets.token_urlsafe(24)
    with client_for(database_url, redis_url, pool_size=8) as client:
        app = create_app(client, access=Access(token=token, read_only=read_only))
        config = uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False)
        listening = config.bind_socket()
        address = f"http://{host}:{listening.getsockname()[1]}/?token={token}"
        typer.echo(f"{address}\nCtrl-C ends it.")
        if open_:
            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[listening])
