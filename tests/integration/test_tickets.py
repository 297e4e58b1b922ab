from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from support.processes import WorkerFactory, eventually

from pgclip import Client
from pgclip.local import LocalServices
from pgclip.settings import Settings
from pgclip.submitting.tickets import BadTicket, Ticket, TicketOffice

Sql = Callable[..., list[Any]]


@pytest.fixture
def office(services: LocalServices) -> Iterator[TicketOffice]:
    office = TicketOffice(Settings.load({}, redis_url=services.redis_url))
    yield office
    office.close()


@pytest.fixture
def server(services: LocalServices) -> "redis.Redis":
    return redis.Redis.from_url(services.redis_url)


def test_a_message_is_a_ticket_or_refused() -> None:
    assert Ticket.decode(Ticket("q").encode()) == Ticket("q")
    for message in ({}, {"queue": "q"}, {"queue": 5, "version": 1}, {"queue": "q", "version": 2},
                    {"queue": "q", "version": 1, "also": 1}):  # fmt: skip
        with pytest.raises(BadTicket):
            Ticket.decode(message)


def test_announcements_are_coalesced_until_a_worker_takes_one(
    office: TicketOffice, server: "redis.Redis"
) -> None:
    for _ in range(50):
        office.announce(["test.coalesced"])
    assert office.waiting("test.coalesced") == 1
    assert (
        0 < server.ttl("pgclip:test.coalesced.waiting") <= 10
    )  # a lost ticket does not block for ever
    office.taken("test.coalesced")
    office.announce(["test.coalesced"])
    assert office.waiting("test.coalesced") == 2
    server.delete("pgclip:test.coalesced")


def test_without_redis_publishing_gives_up_quietly_and_pauses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    office = TicketOffice(Settings.load({}, redis_url="redis://127.0.0.1:1/0"))
    office.announce(["q"])
    office.announce(["q"])
    office.taken("q")
    assert [record.levelname for record in caplog.records if "ticket could" in record.message] == [
        "WARNING"
    ]
    office.close()


def test_a_ticket_wakes_an_idle_worker(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url, PGCLIP_IDLE_POLL="3600", PGCLIP_STEWARD_INTERVAL="3600")
    for n in range(5):
        client.submit_text(f"text {n}").wait(30)


def test_without_a_ticket_an_idle_worker_finds_the_work(
    sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    sql("SELECT pgclip.submit_text('hello', key => 'k')")
    eventually(lambda: sql("SELECT state FROM pgclip.items") == [("done",)])


def test_the_steward_adds_tickets_that_are_missing(
    client: Client, sql: Sql, database_url: str, server: "redis.Redis", start_worker: WorkerFactory
) -> None:
    start_worker(database_url, PGCLIP_IDLE_POLL="3600")
    sql("SELECT pgclip.submit_text('hello', key => 'k')")
    eventually(lambda: sql("SELECT state FROM pgclip.items") == [("done",)])
