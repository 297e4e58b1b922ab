"""An indexed table whose rows come by logical replication."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clusters import Cluster, place
from support.databases import run_sql
from support.processes import WorkerFactory, eventually

from pgclip import Client
from pgclip.local import LocalServices
from pgclip.migrate import migrate

SUBSCRIBE = """CREATE SUBSCRIPTION reviews CONNECTION '{url}' PUBLICATION reviews
    WITH (create_slot = false, slot_name = 'reviews')"""


@pytest.fixture
def subscriber(tmp_path: Path) -> Iterator[Cluster]:
    """Its database "shop" publishes, "postgres" subscribes and has pgclip."""
    server = Cluster(place(tmp_path / "clusters") / "both").create().start("wal_level=logical")
    run_sql(server.url(), "CREATE DATABASE shop")
    migrate(server.url())
    for database in ("shop", "postgres"):
        run_sql(server.url(database), "CREATE TABLE review (id int PRIMARY KEY, body text)")
    yield server
    server.stop()


def test_what_replication_applies_is_followed(
    subscriber: Cluster, services: LocalServices, start_worker: WorkerFactory
) -> None:
    shop = subscriber.url("shop")
    run_sql(shop, "INSERT INTO review VALUES (1, 'text before'), (2, 'text two')")
    run_sql(shop, "CREATE PUBLICATION reviews FOR TABLE review")
    # In one cluster a subscription can't make its slot: it would wait for itself.
    run_sql(shop, "SELECT pg_create_logical_replication_slot('reviews', 'pgoutput')")
    start_worker(subscriber.url())
    with Client(database_url=subscriber.url(), redis_url=services.redis_url) as client:
        client.index_table("review", text="body", replicated=True)
        run_sql(subscriber.url(), SUBSCRIBE.format(url=shop))

        def found() -> dict[str, str]:
            hits = client.search_rows("review", "text", k=10)
            return {hit.key: hit.row["body"] for hit in hits}

        eventually(lambda: found() == {"1": "text before", "2": "text two"})
        run_sql(shop, "INSERT INTO review SELECT n, 'text ' || n FROM generate_series(3, 5) n")
        run_sql(shop, "UPDATE review SET body = 'text changed' WHERE id = 2")
        run_sql(shop, "DELETE FROM review WHERE id = 1")
        eventually(
            lambda: found() == {"2": "text changed", "3": "text 3", "4": "text 4", "5": "text 5"}
        )
        run_sql(shop, "TRUNCATE review")
        eventually(lambda: found() == {})
        eventually(lambda: client.tables()[0].items == 0)
    run_sql(subscriber.url(), "DROP SUBSCRIPTION reviews")
