"""The model, the workers, and what waits or has failed."""

from collections.abc import Iterator
from pathlib import Path

from pgclip.cli.checks.finding import Finding
from pgclip.cli.status import Status
from pgclip.settings import LIVE, Settings


def model(settings: Settings, status: Status) -> Iterator[Finding]:
    """Whether a worker from here would bring the model that is live."""
    folder = Path(settings.model).expanduser()
    name = settings.model_name or (folder.name if folder.is_dir() else settings.model)
    models = {model["name"]: model for model in status.models}
    live = next((model["name"] for model in status.models if model["state"] == "live"), None)
    if live is None and settings.model == LIVE:
        advice = "Set PGCLIP_MODEL to a model's name for the first worker"
        yield Finding("model", "trouble", "PGCLIP_MODEL is live, and no model is live yet", advice)
    elif settings.model == LIVE:
        yield Finding("model", "ok", f"{live} is live, and a worker from here would bring it")
    elif live is None:
        yield Finding("model", "ok", f"{name} will be this database's with the first worker")
    elif name not in models:
        yield Finding(
            "model",
            "trouble",
            f"this database holds vectors of {live}; a worker from here would bring {name}",
            f"Set PGCLIP_MODEL (or PGCLIP_MODEL_NAME) to {live}, or add the other beside it: "
            f"pgclip models add '{name}'",
        )
    elif models[name]["state"] == "retired":
        advice = f"Set PGCLIP_MODEL to {live}"
        yield Finding("model", "trouble", f"{name} is retired; {live} is live", advice)
    else:
        yield Finding("model", "ok", f"{name} is {models[name]['state']}")


def work(status: Status) -> Iterator[Finding]:
    """Who is alive, what waits, what has failed."""
    alive = [worker for worker in status.workers if worker["alive"]]
    if not alive:
        advice = "Start one: pgclip worker"
        yield Finding("workers", "warning", "none is alive, so nothing is encoded", advice)
    else:
        yield Finding("workers", "ok", f"{len(alive)} alive")
    for worker in alive:
        if worker["trouble"]:
            detail = f"worker {worker['id']} on {worker['host']}: {worker['trouble']}"
            yield Finding("workers", "trouble", detail, "Its log says more")
    waiting = status.oldest_waiting or 0.0
    if alive and waiting > 600:
        advice = "More workers, or a look at their logs; pgclip status --watch"
        detail = f"the oldest job has waited for {waiting / 60:.0f} minutes"
        yield Finding("queue", "warning", detail, advice)
    if status.failed:
        reasons = ", ".join(f"{reason} {count}" for reason, count in status.failed.items())
        advice = "pgclip list --state failed shows why; pgclip retry tries again"
        yield Finding("items", "warning", f"failed: {reasons}", advice)
