"""What is deleted is gone: after the commit no SQL shows it."""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support.processes import eventually
from support.shelf import Shelf, texts, vector_of

from pgclip import Client, InvalidItem, NotFound
from pgclip.local import LocalServices
from pgclip.searching.segments import Maintenance

Sql = Callable[..., list[Any]]
MARK = "janedoe"
ABOUT = {"key": f"key {MARK}", "collection": f"{MARK}@example.org", "metadata": {"who": MARK}}


def showing(sql: Sql, *marks: str) -> list[str]:
    """Tables with a row whose text has one of the marks."""
    tables = sql("SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'v')"
                 " AND relnamespace = 'pgclip'::regnamespace ORDER BY 1")  # fmt: skip
    shows = "SELECT 1 FROM {} t WHERE t::text ~ ANY(%s) LIMIT 1"
    return [table for (table,) in tables if sql(shows.format(table), list(marks))]


def traces(sql: Sql, text: str) -> list[str]:
    """How a text shows: its mark, its bytes and its hash, in hex."""
    ((data, digest),) = sql(
        "SELECT encode(d, 'hex'), encode(sha256(d), 'hex') FROM convert_to(%s, 'UTF8') d", text
    )
    return [MARK, data, digest]


def test_nothing_of_an_item_is_left(shelf: Shelf, maintenance: Maintenance, client: Client) -> None:
    text = f"a letter of {MARK}"
    shelf.sql("SELECT pgclip.configure_text_search('english', ARRAY['who'])")
    shelf.put(texts(0, 150))
    client.submit_text(text, **ABOUT)
    client.submit_image(Path(f"/{MARK}/a.jpg"), collection=str(ABOUT["collection"]))
    marks = traces(shelf.sql, text)
    assert {"pgclip.item", "pgclip.content", "pgclip.collection"} <= set(showing(shelf.sql, *marks))
    assert client.delete_items(collection=str(ABOUT["collection"])) == 2
    client.drop_collection(str(ABOUT["collection"]))
    assert showing(shelf.sql, *marks) == []


def test_vectors_go_from_segments_that_were_replaced_too(
    shelf: Shelf, maintenance: Maintenance
) -> None:
    shelf.put(texts(0, 150))
    maintenance.run()
    assert shelf.states() == {1: "retired", 2: "hot", 3: "sealed"}
    ((ids,),) = shelf.sql("SELECT vector_ids FROM pgclip.embedding_set s JOIN pgclip.item i"
                          " ON i.id = s.item_id WHERE i.key = 'k7'")  # fmt: skip
    count = "SELECT count(*) FROM pgclip.embedding_1_{} WHERE id = ANY(%s)"
    assert [shelf.sql(count.format(n), ids) for n in (1, 3)] == [[(1,)], [(1,)]]
    shelf.delete("k7")
    assert [shelf.sql(count.format(n), ids) for n in (1, 3)] == [[(0,)], [(0,)]]


def test_bytes_that_another_item_has_stay(shelf: Shelf, client: Client) -> None:
    for key in ("one", "two"):
        client.submit_text("the same", key=key)
    client.delete("one")
    assert client.content("two") == b"the same"
    client.delete("two")
    assert shelf.sql("SELECT count(*) FROM pgclip.content") == [(0,)]
    assert shelf.sql("SELECT count(*) FROM pgclip.content_release") == [(0,)]


def test_under_an_old_snapshot_bytes_are_left_to_the_steward(
    shelf: Shelf, client: Client, database_url: str
) -> None:
    client.submit_text("a text", key="k")
    connection = psycopg2.connect(database_url)
    connection.set_session(isolation_level="REPEATABLE READ")
    client.delete("k", connection=connection)
    connection.commit()
    connection.close()
    assert shelf.sql("SELECT count(*) FROM pgclip.content") == [(1,)]
    shelf.sql("SELECT pgclip.collect_contents(10)")
    assert shelf.sql("SELECT count(*) FROM pgclip.content") == [(0,)]


def test_bytes_that_are_just_being_submitted_again_stay(
    shelf: Shelf, client: Client, database_url: str
) -> None:
    client.submit_text("a text", key="old")
    connection = psycopg2.connect(database_url)
    client.submit_text("a text", key="new", connection=connection)
    client.delete("old")
    connection.commit()
    connection.close()
    assert client.content("new") == b"a text"


def test_only_an_empty_collection_is_dropped(shelf: Shelf, client: Client) -> None:
    client.submit_text("a text", key="k", collection="c")
    with pytest.raises(InvalidItem, match="collection c has items"):
        client.drop_collection("c")
    client.delete("k", collection="c")
    client.drop_collection("c")
    with pytest.raises(NotFound, match="no collection named c"):
        client.drop_collection("c")
    client.submit_text("a text", key="k", collection="c")
    assert [found.name for found in client.collections()] == ["c"]


def test_a_submission_under_way_holds_its_collection(
    shelf: Shelf, client: Client, database_url: str
) -> None:
    client.submit_text("a text", key="k", collection="c")
    client.delete("k", collection="c")
    connection = psycopg2.connect(database_url)
    client.submit_text("a text", key="k", collection="c", connection=connection)
    with pytest.raises(InvalidItem, match="submissions under way hold collection c"):
        client.drop_collection("c")
    connection.commit()
    connection.close()
    assert client.get("k", collection="c").state == "queued"


def test_dropping_while_others_submit_breaks_no_submission(shelf: Shelf, client: Client) -> None:
    ended, errors, dropped = threading.Event(), [], 0

    def submit(number: int) -> None:
        try:
            for n in range(60):
                client.submit_text(f"text {n}", key=f"{number}", collection="c")
                client.delete(f"{number}", collection="c")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=submit, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        try:
            client.drop_collection("c")
            dropped += 1
        except (InvalidItem, NotFound):
            pass
    ended.set()
    assert errors == []
    assert dropped > 0


def test_one_query_is_forgotten_or_all(shelf: Shelf, client: Client) -> None:
    for text in ("mine", "yours"):
        shelf.sql(
            "INSERT INTO pgclip.query_vector (model_id, kind, hash, embedding)"
            " VALUES (1, 'text', sha256(convert_to(%s, 'UTF8')), %s)", text, vector_of(text),
        )  # fmt: skip
    shelf.sql("SELECT pgclip.request_embedding('waits')")
    assert client.forget_queries("mine") == 1
    assert client.forget_queries("waits") == 0
    assert shelf.sql("SELECT count(*) FROM pgclip.query_request") == [(0,)]
    assert client.forget_queries(image=b"a picture") == 0
    assert client.forget_queries() == 1
    assert shelf.sql("SELECT count(*) FROM pgclip.query_vector") == [(0,)]


def test_the_embedded_postgres_logs_no_contents(tmp_path: Path) -> None:
    with LocalServices(tmp_path) as services:
        connection = psycopg2.connect(services.database_url)
        connection.autocommit = True
        cursor = connection.cursor()
        for statement in (
            f"SELECT '{MARK}'::int", f"SELECT {MARK}", f"DO $$ BEGIN RAISE '{MARK}'; END $$",
            f"DO $$ BEGIN RAISE WARNING '{MARK}'; END $$", f"SELECT '{{{MARK}'::json",
            f"CREATE TABLE t (a text PRIMARY KEY); INSERT INTO t VALUES ('{MARK}'), ('{MARK}')",
        ):  # fmt: skip
            with suppress(psycopg2.Error):
                cursor.execute(statement)
        # A process that crashes: what it was at is not said, that it did is.
        crashing = threading.Timer(1, os.kill, (connection.info.backend_pid, signal.SIGKILL))
        crashing.start()
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute(f"SELECT '{MARK}', pg_sleep(30)")
        crashing.join()

        def log() -> str:
            return (tmp_path / "postgres.log").read_text()

        eventually(lambda: "was terminated by signal 9" in log())
        assert MARK not in log()
