"""Options that several commands share, and what they lead to."""

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from pgclip.client import Client
from pgclip.errors import ConfigurationError, InvalidItem
from pgclip.settings import Settings

DatabaseUrl: TypeAlias = Annotated[
    str | None,
    typer.Option("--database-url", help="Default: PGCLIP_DATABASE_URL.", show_default=False),
]
RedisUrl: TypeAlias = Annotated[
    str | None,
    typer.Option("--redis-url", help="Default: PGCLIP_REDIS_URL.", show_default=False),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Collection: TypeAlias = Annotated[
    str | None, typer.Option("--collection", "-c", help="Only this collection.")
]
KindOption: TypeAlias = Annotated[
    str | None, typer.Option("--kind", help="Only images, or only texts.", metavar="image|text")
]
StateOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--state", help="Only this state.", metavar="queued|leased|done|failed"),
]
Reason: TypeAlias = Annotated[
    str | None, typer.Option("--reason", help="Only what failed for this reason.")
]
Where: TypeAlias = Annotated[
    str | None,
    typer.Option("--where", help="Only items whose metadata contain this: '{\"year\": 2024}'."),
]


def urls_file(settings: Settings) -> Path:
    """Where `pgclip up` writes down where its services are."""
    return Path(settings.data_dir).expanduser() / "urls.json"


def settings_for(
    database_url: str | None, redis_url: str | None, *, needs_redis: bool = True
) -> Settings:
    """The settings, with the URLs given, of the environment, or of a running `pgclip up`."""
    settings = Settings.load(database_url=database_url, redis_url=redis_url)
    if settings.database_url and (settings.redis_url or not needs_redis):
        return settings
    try:
        urls = json.loads(urls_file(settings).read_text())
    except (OSError, ValueError):
        settings_missing = (settings.database_url and "PGCLIP_REDIS_URL") or "PGCLIP_DATABASE_URL"
        raise ConfigurationError(
            f"{settings_missing} is not set. Set it, or start everything on this machine in "
            "another terminal: pgclip up"
        ) from None
    return replace(
        settings,
        database_url=settings.database_url or urls["database_url"],
        redis_url=settings.redis_url or urls["redis_url"],
        model=os.environ.get("PGCLIP_MODEL") or urls["model"],
        model_name=os.environ.get("PGCLIP_MODEL_NAME") or urls["model_name"],
    )


def client_for(database_url: str | None, redis_url: str | None, **changed: Any) -> Client:
    """A client with those settings, or what is changed of them; on one connection, no pool."""
    settings = replace(settings_for(database_url, redis_url), **{"pool_size": 1, **changed})
    return Client(**{field.name: getattr(settings, field.name) for field in fields(settings)})


def metadata_from(text: str | None) -> dict[str, Any] | None:
    """The JSON object of an option. Raises InvalidItem."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidItem(f"{text!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidItem(f'{text!r} is not a JSON object such as {{"year": 2024}}')
    return value


def one_of(value: str | None, option: str, *allowed: str) -> Any:
    """The value, or None. A wrong one is a usage error."""
    if value is not None and value not in allowed:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(allowed)}", param_hint=option)
    return value


def kind_of(value: str | None) -> Any:
    """A kind, or None."""
    return one_of(value, "--kind", "image", "text")


def state_of(value: str | None) -> Any:
    """A state, or None."""
    return one_of(value, "--state", "queued", "leased", "done", "failed")
