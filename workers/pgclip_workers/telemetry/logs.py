"""The worker's log: how it looks, where it goes, and the lines about items.

With log_format json, every line on stderr is one object: what libraries write there by themselves
is logged, and nothing is said on stdout, since containers put both into one stream.
"""

import logging
import logging.handlers
import os
import sys
import threading
import time
import warnings

from pgclip.errors import ConfigurationError
from pgclip.settings import Settings, masked
from pgclip_workers.pipeline.batch import Batch

log = logging.getLogger(__name__)

# Other libraries are heard from warnings on: below, HTTP clients log the URLs that they ask, with
# their signatures.
_BY_LEVEL = ("pgclip", "pgclip_workers", "celery", "kombu")
_TEXT = "%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"
# Beside a log in a file, for people: when, how bad, what.
_SHORT = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
_FILE_BYTES = 10 * 2**20  # and as much again of what was before


def configure(settings: Settings) -> None:
    """Sends what this process logs to stderr, in the format that the settings say.

    If they name a file, there; and warnings to stderr too. Raises ConfigurationError.
    """
    handler = logging.StreamHandler(sys.stderr)
    as_json = settings.log_format == "json"
    formatter = _json_formatter() if as_json else logging.Formatter(_TEXT)
    handler.setFormatter(formatter)
    handlers: list[logging.Handler] = [handler]
    if settings.log_file:
        handlers.append(_file_handler(settings.log_file, formatter))
        handler.setLevel(logging.WARNING)
        if not as_json:
            handler.setFormatter(_SHORT)
    level = logging.getLevelNamesMapping()[settings.log_level]
    logging.basicConfig(level=max(level, logging.WARNING), handlers=handlers)
    for name in _BY_LEVEL:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    # Celery's: tickets are JSON, so root runs nothing that somebody sent.
    warnings.filterwarnings("ignore", "You're running the worker with superuser privileges")
    # Celery's signal handlers write there past every logger; without it they keep quiet.
    sys.__stdout__ = None  # type: ignore[misc]
    if as_json:
        _adopt_other_output()


def _file_handler(file: str, formatter: logging.Formatter) -> logging.Handler:
    try:
        handler = logging.handlers.RotatingFileHandler(
            file, maxBytes=_FILE_BYTES, backupCount=1, encoding="utf-8"
        )
    except OSError as error:
        raise ConfigurationError(f"PGCLIP_LOG_FILE: {file!r}: {error.strerror}") from error
    handler.setFormatter(formatter)
    return handler


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
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    log.critical(
        "thread %s ends by an error",
        ended.thread.name if ended.thread else "?",
        exc_info=(ended.exc_type, ended.exc_value or ended.exc_type(), ended.exc_traceback),
    )
