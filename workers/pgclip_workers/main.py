"""`pgclip worker`: starts the decoding processes, then torch and the model, then the worker."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pgclip.database import Database
from pgclip.errors import ConfigurationError
from pgclip.settings import LIVE, Settings
from pgclip.submitting.place import refuse_cluster
from pgclip_workers import statements, termination
from pgclip_workers.pictures.pools import Pools
from pgclip_workers.telemetry.logs import configure

if TYPE_CHECKING:
    from pgclip_workers.models.encoder import Encoder


def run(settings: Settings, make_encoder: "Callable[[Settings], Encoder] | None" = None) -> int:
    """Runs a worker until SIGTERM or SIGINT; returns the exit status.

    `make_encoder` takes the place of ClipEncoder. Raises ConfigurationError, ModelMismatch,
    SchemaError and ConnectionFailed before any work is taken.
    """
    configure(settings)
    refuse_cluster(settings)
    termination.leave_at_once()
    pools = Pools.start(settings)
    try:
        if make_encoder is None:
            from pgclip_workers.models.clip import ClipEncoder

            make_encoder = ClipEncoder
        from pgclip_workers.worker import Worker

        settings = _with_model(settings)
        encoder = make_encoder(settings)
        termination.check()
        return Worker(settings, encoder, pools).run()
    finally:
        pools.stop()


def _with_model(settings: Settings) -> Settings:
    """With the name and the source of the live model, if that is what the settings ask for.

    Raises ConfigurationError if no model is live yet.
    """
    if settings.model != LIVE:
        return settings
    database = Database(
        settings.required("database_url"), pool_size=1, connect_timeout=settings.connect_timeout
    )
    try:
        with database.transaction("the live model") as cursor:
            cursor.execute(statements.LIVE_MODEL)
            row = cursor.fetchone()
    finally:
        database.close()
    if row is None:
        raise ConfigurationError(
            "PGCLIP_MODEL is live, but this database has no live model yet: start the first worker "
            "with a model's own name"
        )
    name, source = row
    return replace(settings, model=source or name, model_name=name)
