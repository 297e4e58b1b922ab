"""`pgclip worker`: starts the decoding processes, then torch and the model, then the worker."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pgclip.settings import Settings
from pgclip.submitting.place import refuse_cluster
from pgclip_workers import termination
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

        encoder = make_encoder(settings)
        termination.check()
        return Worker(settings, encoder, pools).run()
    finally:
        pools.stop()
