"""The client for asyncio: the same calls, awaited. Each runs in a thread, so the loop goes on."""

import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from pgclip.client import Client
from pgclip.errors import QueueFull
from pgclip.items import Classified, Decision, ItemInfo, Kind, State
from pgclip.labelling.promising import Decided

P = ParamSpec("P")
R = TypeVar("R")

_PAGE = 1000
_PAUSE_SECONDS = 0.2


def _awaited(
    call: Callable[Concatenate[Client, P], R],
) -> Callable[Concatenate["AsyncClient", P], Awaitable[R]]:
    async def run(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> R:
        within = kwargs.get("connection")
        if hasattr(within, "run_sync"):  # SQLAlchemy's AsyncSession or AsyncConnection
            rest = {name: value for name, value in kwargs.items() if name != "connection"}

            def inside(connection: Any) -> R:
                return call(self.client, *args, **rest, connection=connection)  # type: ignore[arg-type]

            return await self._run_within(within, inside)
        return await self._run(functools.partial(call, self.client, *args, **kwargs))

    functools.update_wrapper(run, call)
    return run


class AsyncClient:
    """A Client whose calls are awaited. Takes the same settings.

    connection= takes a SQLAlchemy AsyncSession or AsyncConnection, or what Client takes. Jobs and
    batches have wait_async beside wait. `client` is the Client behind it.
    """

    def __init__(self, **settings: Any) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self.client = Client(**settings)
        self._threads = ThreadPoolExecutor(self.client.settings.pool_size, "pgclip")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._run(self.client.close)
        self._threads.shutdown(wait=False)

    submit_image = _awaited(Client.submit_image)
    submit_text = _awaited(Client.submit_text)
    submit_many = _awaited(Client.submit_many)
    search = _awaited(Client.search)
    search_vector = _awaited(Client.search_vector)
    hybrid = _awaited(Client.hybrid)
    embed = _awaited(Client.embed)
    forget_queries = _awaited(Client.forget_queries)
    duplicates_of = _awaited(Client.duplicates_of)
    duplicate_groups = _awaited(Client.duplicate_groups)
    similarity = _awaited(Client.similarity)
    classify = _awaited(Client.classify)
    answer = _awaited(Client.answer)
    captions = _awaited(Client.captions)
    calibrate = _awaited(Client.calibrate)
    set_calibration = _awaited(Client.set_calibration)
    calibrations = _awaited(Client.calibrations)
    models = _awaited(Client.models)
    plan_model = _awaited(Client.plan_model)
    add_model = _awaited(Client.add_model)
    pause_model = _awaited(Client.pause_model)
    resume_model = _awaited(Client.resume_model)
    pace_model = _awaited(Client.pace_model)
    model_maps = _awaited(Client.model_maps)
    model_readiness = _awaited(Client.model_readiness)
    promote_model = _awaited(Client.promote_model)
    rollback_model = _awaited(Client.rollback_model)
    retire_model = _awaited(Client.retire_model)
    drop_model = _awaited(Client.drop_model)
    cancel_model = _awaited(Client.cancel_model)
    compare_models = _awaited(Client.compare_models)
    index_metadata = _awaited(Client.index_metadata)
    drop_metadata_index = _awaited(Client.drop_metadata_index)
    configure_text_search = _awaited(Client.configure_text_search)
    segments = _awaited(Client.segments)
    index_table = _awaited(Client.index_table)
    unindex_table = _awaited(Client.unindex_table)
    tables = _awaited(Client.tables)
    missing_rows = _awaited(Client.missing_rows)
    search_rows = _awaited(Client.search_rows)
    get = _awaited(Client.get)
    update_metadata = _awaited(Client.update_metadata)
    drop_collection = _awaited(Client.drop_collection)
    rename = _awaited(Client.rename)
    content = _awaited(Client.content)
    thumbnail = _awaited(Client.thumbnail)
    content_sizes = _awaited(Client.content_sizes)
    thumbnails = _awaited(Client.thumbnails)
    count = _awaited(Client.count)
    failures = _awaited(Client.failures)
    collections = _awaited(Client.collections)
    retry = _awaited(Client.retry)
    cancel = _awaited(Client.cancel)
    delete = _awaited(Client.delete)
    delete_duplicates = _awaited(Client.delete_duplicates)
    delete_items = _awaited(Client.delete_items)
    missing = _awaited(Client.missing)
    heal = _awaited(Client.heal)
    label_sets = _awaited(Client.label_sets)
    define_label_set = _awaited(Client.define_label_set)
    drop_label_set = _awaited(Client.drop_label_set)
    relabel = _awaited(Client.relabel)
    judge = _awaited(Client.judge)
    judge_many = _awaited(Client.judge_many)
    judgements_of = _awaited(Client.judgements_of)
    judgements = _awaited(Client.judgements)
    teach = _awaited(Client.teach)
    evaluate = _awaited(Client.evaluate)
    promise = _awaited(Client.promise)
    promises = _awaited(Client.promises)
    withdraw_promise = _awaited(Client.withdraw_promise)
    review = _awaited(Client.review)
    leave_unsure = _awaited(Client.leave_unsure)
    decisions_of = _awaited(Client.decisions_of)
    decision_changes = _awaited(Client.decision_changes)

    async def items(
        self,
        *,
        collection: str | None = None,
        kind: Kind | None = None,
        state: State | None = None,
        reason: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        keys: Sequence[str] | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[ItemInfo]:
        """All items that match, for `async for`. See Client.items."""
        found = self.client.items(
            collection=collection,
            kind=kind,
            state=state,
            reason=reason,
            metadata=metadata,
            keys=keys,
            filter=filter,
        )
        async for item in self._paged(found):
            yield item

    async def classify_items(
        self, labels: Sequence[str], **options: Any
    ) -> AsyncIterator[Classified]:
        """Each item with its probabilities, for `async for`. See Client.classify_items."""
        call = functools.partial(self.client.classify_items, labels, **options)
        async for item in self._paged(await self._run(call)):
            yield item

    async def decisions(
        self,
        label_set: str,
        *,
        label: str | None = None,
        decision: Decision | None = None,
        collection: str | None = None,
    ) -> AsyncIterator[Decided]:
        """Each item with each label that is decided, for `async for`. See Client.decisions."""
        found = self.client.decisions(
            label_set, label=label, decision=decision, collection=collection
        )
        async for one in self._paged(found):
            yield one

    async def _paged(self, found: Iterator[R]) -> AsyncIterator[R]:
        while page := await self._run(lambda: list(islice(found, _PAGE))):
            for item in page:
                yield item

    async def _run_within(self, within: Any, call: Callable[[Any], R]) -> R:
        """Runs a call on SQLAlchemy's greenlet, again while the queue is full and one may wait."""
        import asyncio

        deadline = time.monotonic() + self.client.settings.queue_wait
        while True:
            try:
                outcome: R = await within.run_sync(call)
                return outcome
            except QueueFull:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _run(self, call: Callable[[], R]) -> R:
        import asyncio

        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
