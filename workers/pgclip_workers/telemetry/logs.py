"""The worker's log: how it looks, and the lines about items.

With log_format json, every line on stderr is one object: what libraries write there by themselves
is logged, and nothing is said on stdout, since containers put both into one stream.
"""

import logging
import os
import sys
import threading
import time

from pgclip.settings import Settings, masked
from pgclip_workers.pipeline.batch import Batch

log = logging.getLogger(__name__)

# Other libraries are heard from warnings on: below, HTTP clients log the URLs that they ask, with
# their signatures.
_BY_LEVEL = ("pgclip", "pgclip_workers", "celery", "kombu")
_TEXT = "%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"


def configure(settings: Settings) -> None:
    """Sends what this process logs to stderr, in the format that the settings say."""
    handler = logging.StreamHandler(sys.stderr)
    as_json = settings.log_format == "json"
    handler.setFormatter(_json_formatter() if as_json else logging.Formatter(_TEXT))
    level = logging.getLevelNamesMapping()[settings.log_level]
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler])
    for name in _BY_LEVEL:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    if as_json:
        _adopt_other_output()


def settled(batch: Batch) -> None:
    """Logs the jobs of a stored batch that have ended: each that failed, and how many there are."""
    of_batch = {"batch": str(batch.lease)}
    failed = [job for job in batch.jobs if job.id in batch.settled and job.id in batch.failures]
    for job in failed:
        failure = batch.failures[job.id]
        log.warning(
            "%s failed (%s): %s",
            job,
            failure.reason,
            failure.message,
            extra={
                "item": masked(job.key),
                "collection": job.collection,
                "job": job.id,
                "reason": failure.reason,
                **of_batch,
            },
        )
    seconds = time.monotonic() - batch.claimed_at
    log.info(
        "batch %s: %d of %d settled, %d as failed, in %.3f s",
        batch.lease,
        len(batch.settled),
        len(batch.jobs),
        len(failed),
        seconds,
        extra={"size": len(batch.jobs), "seconds": round(seconds, 6), **of_batch},
    )


def _json_formatter() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        ["timestamp", "levelname", "name", "threadName", "message"],
        rename_fields={"levelname": "level", "name": "logger", "threadName": "thread"},
        timestamp=True,
        json_ensure_ascii=False,
    )


def _adopt_other_output() -> None:
    from celery.utils.log import LoggingProxy

    sys.excepthook = lambda *error: log.critical("the worker ends by an error", exc_info=error)
    threading.excepthook = _log_end_of_thread
    # Handlers that libraries make for themselves write here, and so does the command line.
    sys.stderr = LoggingProxy(logging.getLogger("stderr"), logging.WARNING)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # transformers' own bars, too
    # Celery's signal handlers write there past every logger; without it they keep quiet.
    sys.__stdout__ = None  # type: ignore[misc]


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    log.critical(
        "thread %s ends by an error",
        ended.thread.name if ended.thread else "?",
        exc_info=(ended.exc_type, ended.exc_value or ended.exc_type(), ended.exc_traceback),
    )
