"""The awaitable client, and processes that fork after it was made."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from support.pictures import jpeg
from support.processes import Live, WorkerFactory

from pgclip import (
    AsyncClient,
    Client,
    ConfigurationError,
    ItemFailed,
    NotCommitted,
    QueueFull,
    WaitTimeout,
)

Sql = Callable[..., list[Any]]


def settings_of(client: Client) -> dict[str, str]:
    return {
        "database_url": client.settings.database_url,
        "redis_url": client.settings.redis_url,
    }


def test_every_call_has_its_awaitable_form() -> None:
    names = {name for name in dir(Client) if not name.startswith("_")} - {"settings"}
    assert {name for name in vars(AsyncClient) if not name.startswith("_")} == names


def test_the_whole_story_awaited(live: Live) -> None:
    async def story() -> None:
        async with AsyncClient(**settings_of(live.client)) as client:
            job = await client.submit_text("a violin", key="violin", collection="async")
            batch = await client.submit_many([{"image": jpeg(n)} for n in range(3)])
            await asyncio.gather(job.wait_async(60), batch.wait_async(60))
            hits = await client.search("a violin", collection="async", k=1)
            assert hits[0].key == "violin"
            assert (await client.get("violin", collection="async")).state == "done"
            assert (await client.count(collection="async"))["done"] == 1
            assert [item.key async for item in client.items(collection="async")] == ["violin"]
            broken = await client.submit_image(b"no picture", collection="async")
            with pytest.raises(ItemFailed):
                await broken.wait_async(60)
            assert await client.delete_items(collection="async") == 2

    asyncio.run(story())


def test_the_loop_goes_on_while_thousands_wait(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    async def story() -> tuple[float, float]:
        async with AsyncClient(**settings_of(client)) as aio:
            batch = [await aio.submit_text(f"text {n}") for n in range(200)]
            begin = time.monotonic()
            waiting = [asyncio.create_task(job.wait_async(120)) for job in batch for _ in range(10)]
            longest, last = 0.0, time.monotonic()
            starting = asyncio.create_task(asyncio.to_thread(start_worker, database_url))
            while not all(task.done() for task in waiting):
                await asyncio.sleep(0.001)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
            await starting
            for task in waiting:
                task.result()
            return longest, time.monotonic() - begin

    # Anything that blocked the loop would do so for the seconds that a worker takes to start.
    longest, all_of_it = asyncio.run(story())
    assert longest < all_of_it / 2


def test_waiting_can_be_cancelled_and_runs_out(client: Client) -> None:
    async def story() -> None:
        async with AsyncClient(**settings_of(client)) as aio:
            job = await aio.submit_text("nobody encodes it")
            with pytest.raises(WaitTimeout):
                await job.wait_async(0.1)
            task = asyncio.create_task(job.wait_async())
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert aio.client._follower._waiting == {}

    asyncio.run(story())


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_the_callers_asynchronous_session(client: Client, driver: str) -> None:
    url = client.settings.database_url.replace("postgresql://", f"postgresql+{driver}://")

    async def story() -> None:
        engine = create_async_engine(url)
        async with AsyncClient(**settings_of(client)) as aio, AsyncSession(engine) as session:
            job = await aio.submit_image(jpeg(1), key="p", connection=session)
            batch = await aio.submit_many([{"text": "t"}], connection=session)
            with pytest.raises(NotCommitted):
                await job.wait_async(1)
            await session.commit()
            assert job.status().state == "queued"
            assert batch.accepted == 1
            async with engine.connect() as connection:
                await aio.submit_text("never", key="never", connection=connection)
                await connection.rollback()
            assert [item.key async for item in aio.items(keys=["never"])] == []
            with pytest.raises(ConfigurationError, match="AsyncClient"):
                client.submit_text("x", connection=session)
        await engine.dispose()

    asyncio.run(story())


def test_nothing_keeps_the_loop_waiting(client: Client, sql: Sql) -> None:
    """Neither a Redis that never answers nor a full queue, in a transaction of the caller's."""
    sql("SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
    url = client.settings.database_url.replace("postgresql://", "postgresql+asyncpg://")
    silent = socket.create_server(("127.0.0.1", 0))
    redis = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"

    async def longest_pause(work: Coroutine[Any, Any, None]) -> float:
        task = asyncio.create_task(work)
        longest, last = 0.0, time.monotonic()
        while not task.done():
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        await task
        return longest

    async def submit(aio: AsyncClient, session: AsyncSession) -> None:
        await aio.submit_text("text", connection=session)
        await session.commit()
        with pytest.raises(QueueFull):
            await aio.submit_text("one too many", connection=session)

    async def story() -> float:
        engine = create_async_engine(url)
        settings = {"database_url": client.settings.database_url, "redis_url": redis}
        limits = {"max_queued": 1, "queue_wait": 3}
        async with AsyncClient(**settings, **limits) as aio, AsyncSession(engine) as session:
            longest = await longest_pause(submit(aio, session))
        await engine.dispose()
        return longest

    # Each of the two would take three seconds or more.
    assert asyncio.run(story()) < 2.0
    silent.close()


def test_asyncpg_calls_the_functions(client: Client) -> None:
    async def story() -> None:
        connection = await asyncpg.connect(client.settings.database_url)
        async with connection.transaction():
            row = await connection.fetchrow(
                "SELECT * FROM pgclip.submit_text(key => $1, body => $2)", "k", "a text"
            )
        assert (row["item_key"], row["generation"]) == ("k", 1)
        await connection.close()

    asyncio.run(story())
    assert client.get("k").state == "queued"


def in_child(work: Callable[[], None]) -> None:
    """Forks and works there, as a server does; fails if the child does."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(ended) == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_server_that_forks_after_the_client_was_made(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    client.submit_text("before").wait(60)  # connections, tickets, a waiting thread: all there

    def work() -> None:
        client.submit_text(f"in {os.getpid()}").wait(60)
        assert client.count()["failed"] == 0
        client.close()

    for _ in range(2):
        in_child(work)
    client.submit_text("after").wait(60)
    assert client.count()["done"] == 4


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_while_other_threads_are_busy(client: Client) -> None:
    stop = threading.Event()

    def submit() -> None:
        while not stop.is_set():
            client.submit_text("busy")

    client.submit_text("busy")  # a module that a thread is importing can't be had in the child
    busy = [threading.Thread(target=submit) for _ in range(3)]
    for thread in busy:
        thread.start()
    try:
        for _ in range(5):
            in_child(lambda: client.submit_text(f"in {os.getpid()}") and None)
    finally:
        stop.set()
        for thread in busy:
            thread.join()
    assert sum(client.count().values()) == 6
