"""The network between a worker and its services, and those who submit."""

import signal
from collections.abc import Callable
from random import Random
from typing import Any

from faults import Fault, Missed, fault, pause, send
from stage import LEASE, Stage, Worker
from worker_faults import some_worker


def _network(cut: Callable[[Worker], None], heal: Callable[[Worker], None], most: float) -> Fault:
    def bring_about(stage: Stage, random: Random) -> None:
        worker = some_worker(stage, random)
        cut(worker)
        pause(random, most)
        heal(worker)

    return bring_about


def _both(worker: Worker) -> tuple[Any, Any]:
    return worker.postgres, worker.redis


fault("network: worker cut off from Postgres", 5)(
    _network(lambda w: w.postgres.cut(), lambda w: w.postgres.heal(), 2 * LEASE)
)
fault("network: worker cut off from Redis", 4)(
    _network(lambda w: w.redis.cut(), lambda w: w.redis.heal(), 2 * LEASE)
)
fault("network: worker cut off from both", 3)(
    _network(
        lambda w: [end.cut() for end in _both(w)] and None,
        lambda w: [end.heal() for end in _both(w)] and None,
        2 * LEASE,
    )
)
fault("network: nothing passes between worker and Postgres", 4)(
    _network(lambda w: w.postgres.hold(), lambda w: w.postgres.heal(), 2 * LEASE)
)
fault("network: nothing passes between worker and Redis", 2)(
    _network(lambda w: w.redis.hold(), lambda w: w.redis.heal(), 2 * LEASE)
)
fault("network: connections to Postgres dropped", 6)(
    _network(lambda w: w.postgres.drop(), lambda w: None, 0.1)
)


@fault("submitter: SIGKILL at any instant", 10)
def kill_submitter(stage: Stage, random: Random) -> None:
    pause(random, 0.3)
    submitters = list(stage.submitters.values())
    if not submitters:
        raise Missed
    send(random.choice(submitters).pid, signal.SIGKILL)
