"""Segments are exchanged while others store, delete, search and hold old snapshots."""

import threading
from collections.abc import Callable

import psycopg2
import pytest
from support.databases import assert_ledger_is_true
from support.processes import eventually
from support.shelf import Shelf, texts, vector_of

from pgclip.database import Database
from pgclip.searching import segments
from pgclip.searching.segments import Maintenance
from pgclip.settings import Settings
from pgclip_workers.upkeep.sealer import Sealer


@pytest.mark.parametrize(
    "statement",
    ["pgclip.build_segment(1::smallint, '{1}', '64MB', 0)", "pgclip.announce_segments(1::smallint)",
     "pgclip.exchange_segments(1::smallint)", "pgclip.drop_retired(1::smallint, '0')",
     "pgclip.close_segment(1::smallint, 100)"],
)  # fmt: skip
def test_a_step_that_is_cut_off_leaves_nothing_and_is_done_again(
    shelf: Shelf, maintenance: Maintenance, database_url: str, statement: str
) -> None:
    shelf.put(texts(0, 120))
    if "close" not in statement:
        shelf.sql("SELECT pgclip.close_segment(1::smallint, 100)")
    if any(name in statement for name in ("announce", "exchange", "drop")):
        shelf.sql("SELECT pgclip.build_segment(1::smallint, '{1}', '64MB', 0)")
    if "exchange" in statement or "drop" in statement:
        shelf.sql("SELECT pgclip.announce_segments(1::smallint)")
    if "drop" in statement:
        shelf.sql("SELECT pgclip.exchange_segments(1::smallint)")
    before = shelf.states()
    cut = psycopg2.connect(database_url)
    cut.cursor().execute(f"SELECT {statement}")
    shelf.sql("SELECT pg_terminate_backend(%s)", cut.info.backend_pid)
    eventually(lambda: shelf.sql("SELECT count(*) FROM pg_stat_activity WHERE pid = %s",
                                 cut.info.backend_pid) == [(0,)])  # fmt: skip
    assert shelf.states() == before
    tables = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'embedding\\_1\\_%'"
    assert shelf.sql(tables) == [(len(before),)]
    maintenance.run()
    assert shelf.states()[3] == "sealed"
    assert shelf.nearest("text 7") == "k7"
    assert_ledger_is_true(database_url)


def slow_down(shelf: Shelf, seconds: float) -> None:
    """Building takes as long as that of millions."""
    shelf.sql("ALTER FUNCTION pgclip._find_clusters RENAME TO _find_clusters_at_once")
    shelf.sql(
        f"""CREATE FUNCTION pgclip._find_clusters(p_table text, p_sources text) RETURNS void
            LANGUAGE plpgsql AS 'BEGIN
                PERFORM pg_sleep({seconds});
                PERFORM pgclip._find_clusters_at_once(p_table, p_sources);
            END'"""
    )


@pytest.mark.parametrize("given_up", [True, False])
def test_what_is_built_at_leisure_keeps_nobody_waiting(
    shelf: Shelf,
    database_url: str,
    connections: Database,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    given_up: bool,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(segments, "_LEISURE_SECONDS", 0.1)
    settings = Settings.load(database_url=database_url, segment_rows=100)
    asked = iter([False])  # nobody waits when it is begun
    yielding = Maintenance(settings, connections, 1, yields=lambda: next(asked, given_up))
    for first in (0, 100):
        shelf.put(texts(first, first + 100))
        yielding.run()
    sealed = [number for number, state in shelf.states().items() if state == "sealed"]
    shelf.sql("UPDATE pgclip.segment SET created_at = now() - interval '2 min'")
    slow_down(shelf, 60 if given_up else 1)
    yielding.run()
    later = f"segments {sealed} are built later: others wait for an index"
    assert (later in caplog.text) == given_up
    assert [shelf.states()[number] for number in sealed] == (
        ["sealed"] * 2 if given_up else ["retired"] * 2
    )
    if given_up:
        yielding.run()  # nor is it begun again
        assert caplog.text.count(later) == 1


def test_what_is_waited_for_is_built_to_the_end(
    shelf: Shelf,
    database_url: str,
    connections: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segments, "_LEISURE_SECONDS", 0.1)
    settings = Settings.load(database_url=database_url, segment_rows=100, max_segments=2)
    yielding = Maintenance(settings, connections, 1, yields=lambda: True)
    slow_down(shelf, 1)
    shelf.put(texts(0, 100))
    yielding.run()
    assert shelf.states() == {1: "retired", 2: "hot", 3: "sealed"}
    shelf.put(texts(100, 200))
    yielding.run()  # and as soon as there are as many as there may be, these together
    assert list(shelf.states().values()).count("sealed") == 1


def test_a_hot_segment_beyond_all_patience_stops_no_measuring(
    shelf: Shelf, maintenance: Maintenance, connections: Database, database_url: str
) -> None:
    shelf.put(texts(0, 150))
    maintenance.run()
    shelf.put(texts(150, 210))
    shelf.sql("UPDATE pgclip.segment SET created_at = now() - interval '11 s' WHERE state = 'hot'")
    settings = Settings.load(
        database_url=database_url, segment_rows=100, max_unindexed=200, steward_interval=0.1
    )
    assert shelf.sql("SELECT pgclip.unindexed(1::smallint) > 50") == [(True,)]
    sealer = Sealer(settings, connections, 1)
    try:
        eventually(lambda: shelf.sql("SELECT count(*) > 0 FROM pgclip.direction") == [(True,)])
    finally:
        sealer.stop()


def test_an_exchange_under_way_holds_up_no_search(
    shelf: Shelf, new_shelf: Callable[[], Shelf], maintenance: Maintenance
) -> None:
    shelf.put(texts(0, 120))
    shelf.sql("SELECT pgclip.close_segment(1::smallint, 100)")
    shelf.sql("SELECT pgclip.build_segment(1::smallint, '{1}', '64MB', 0)")
    shelf.sql("SELECT pgclip.announce_segments(1::smallint)")
    exchanging = new_shelf()
    exchanging.connection.autocommit = False
    exchanging.sql("SELECT pgclip.exchange_segments(1::smallint)")
    shelf.sql("SET lock_timeout = '100ms'")
    assert shelf.nearest("text 7") == "k7"
    with pytest.raises(psycopg2.errors.LockNotAvailable):  # this waits, for moments
        shelf.delete("k7")
    exchanging.connection.commit()
    shelf.delete("k7")
    assert shelf.nearest("text 8") == "k8"


def test_an_old_snapshot_goes_on_reading_what_it_saw(
    shelf: Shelf, new_shelf: Callable[[], Shelf], maintenance: Maintenance
) -> None:
    shelf.put(texts(0, 120))
    reader = new_shelf()
    reader.sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert reader.nearest("text 7") == "k7"
    maintenance.run()
    shelf.delete("k7")
    shelf.put({"k8": "something else"})
    assert reader.nearest("text 7") == "k7"
    assert reader.nearest("text 8") == "k8"
    shelf.sql("SELECT pg_sleep(0.01)")
    drop = "SET lock_timeout = '100ms'; SELECT pgclip.drop_retired(1::smallint, '0')"
    assert shelf.sql(drop) == [(None,)]  # it is reading the old segment
    reader.sql("COMMIT")
    assert shelf.sql("SELECT pgclip.drop_retired(1::smallint, '0')") == [(1,)]
    assert shelf.nearest("something else") == "k8"


def test_a_snapshot_older_than_what_was_dropped_is_told_so(
    shelf: Shelf, new_shelf: Callable[[], Shelf], maintenance: Maintenance
) -> None:
    shelf.put(texts(0, 120))
    shelf.sql("SELECT pgclip.request_embedding('text 7')")
    answer = "SELECT pgclip.answer_query(1::smallint, kind, hash, %s::halfvec::real[])"
    shelf.sql(f"{answer} FROM pgclip.query_request", vector_of("text 7"))
    reader = new_shelf()
    reader.sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
    reader.sql("SELECT count(*) FROM pgclip.item")  # a snapshot, but no lock on the segment
    maintenance.run()
    shelf.sql("SELECT pgclip.drop_retired(1::smallint, '0')")
    for search in (
        f"pgclip.search_vector('{vector_of('text 7')}'::halfvec)", "pgclip.similar('k7')",
        "pgclip.hybrid('text 7')", "pgclip.duplicates_of('k7')", "pgclip.duplicate_groups()",
        "pgclip.item_embedding('k7')", "pgclip.calibrate()",
    ):  # fmt: skip
        reader.sql("SAVEPOINT here")
        with pytest.raises(psycopg2.Error, match="segments have been exchanged") as caught:
            reader.sql(f"SELECT * FROM {search}")
        assert caught.value.pgcode == "PC008", search
        assert "in a new one" in (caught.value.diag.message_hint or "")
        reader.sql("ROLLBACK TO here")
    reader.sql("ROLLBACK")
    assert reader.nearest("text 7") == "k7"


def test_a_deletion_by_an_old_snapshot_fails_rather_than_miss(
    shelf: Shelf, new_shelf: Callable[[], Shelf], maintenance: Maintenance, database_url: str
) -> None:
    shelf.put(texts(0, 120))
    deleter = new_shelf()
    deleter.sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
    deleter.sql("SELECT count(*) FROM pgclip.item")
    maintenance.run()
    with pytest.raises(psycopg2.errors.SerializationFailure):
        deleter.delete("k7")
    deleter.sql("ROLLBACK")
    deleter.sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
    deleter.delete("k7")
    deleter.sql("COMMIT")
    assert_ledger_is_true(database_url)


def test_a_long_foreign_snapshot_stops_nothing(
    shelf: Shelf, new_shelf: Callable[[], Shelf], maintenance: Maintenance, connections: Database
) -> None:
    """As of pg_dump: a snapshot, and a lock on every table that was there when it began."""
    shelf.put(texts(0, 120))
    dump = new_shelf()
    dump.sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
    dump.sql("LOCK TABLE pgclip.embedding_1_1, pgclip.segment, pgclip.item IN ACCESS SHARE MODE")
    for first in range(120, 520, 100):
        maintenance.run()
        shelf.put(texts(first, first + 100))
    maintenance.run()
    assert [state for state in shelf.states().values() if state != "retired"].count("sealed") < 4
    assert shelf.nearest("text 7") == "k7"
    assert shelf.nearest("text 500") == "k500"
    shelf.sql("UPDATE pgclip.segment SET retired_at = retired_at - interval '1 h'")
    maintenance.run()
    assert shelf.states()[1] == "retired"  # it waits for the backup
    dump.sql("COMMIT")
    maintenance.run()
    assert "retired" not in shelf.states().values()
    assert shelf.nearest("text 7") == "k7"


def test_an_open_transaction_that_deletes_delays_the_exchange_only(
    shelf: Shelf, new_shelf: Callable[[], Shelf], maintenance: Maintenance, database_url: str
) -> None:
    shelf.put(texts(0, 120))
    shelf.sql("SELECT pgclip.close_segment(1::smallint, 100)")
    user = new_shelf()
    user.sql("BEGIN")
    user.delete("k7")
    maintenance.run()  # builds, and does not get to exchange
    assert shelf.states() == {1: "closed", 2: "hot", 3: "copied"}
    shelf.put(texts(120, 130))
    user.sql("COMMIT")
    maintenance.run()
    assert shelf.states()[3] == "sealed"
    assert shelf.nearest("text 7") != "k7"
    assert_ledger_is_true(database_url)


def test_storing_deleting_and_searching_go_on_beside_it(
    new_shelf: Callable[[], Shelf], maintenance: Maintenance, database_url: str
) -> None:
    """What is there is found at every moment, and the ledger is true at the end."""
    writer, reader = new_shelf(), new_shelf()
    writer.put(texts(0, 150))
    done = threading.Event()
    troubles: list[BaseException] = []

    def maintain() -> None:
        try:
            while not done.is_set():
                maintenance.run()
                writer_free.sql(
                    "UPDATE pgclip.segment SET retired_at = retired_at - interval '1 h'"
                )
        except BaseException as error:
            troubles.append(error)

    def search() -> None:
        try:
            while not done.is_set():
                for n in range(10):  # these stay
                    assert reader.nearest(f"text {n}") == f"k{n}"
        except BaseException as error:
            troubles.append(error)

    writer_free = new_shelf()
    threads = [threading.Thread(target=maintain), threading.Thread(target=search)]
    for thread in threads:
        thread.start()
    try:
        for first in range(150, 2150, 50):
            writer.put(texts(first, first + 50))
            writer.put({f"k{n}": f"replaced {n} {first}" for n in range(first - 130, first - 120)})
            writer.delete(*(f"k{n}" for n in range(first - 100, first - 90)))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert troubles == []
    maintenance.run()
    sealed = [state for state in writer.states().values() if state == "sealed"]
    assert 1 <= len(sealed) <= 4
    assert_ledger_is_true(database_url)


def test_a_deletion_by_a_snapshot_older_than_the_copy_fails_rather_than_miss(
    shelf: Shelf, new_shelf: Callable[[], Shelf], maintenance: Maintenance, database_url: str
) -> None:
    shelf.put(texts(0, 120))
    shelf.sql("SELECT pgclip.close_segment(1::smallint, 100)")
    deleter = new_shelf()
    deleter.sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
    deleter.sql("SELECT count(*) FROM pgclip.item")
    shelf.sql("SELECT pgclip.build_segment(1::smallint, '{1}', '64MB', 0)")
    shelf.sql("SELECT pgclip.announce_segments(1::smallint)")
    with pytest.raises(psycopg2.errors.SerializationFailure):
        deleter.delete("k7")
    deleter.sql("ROLLBACK")
    shelf.sql("SELECT pgclip.exchange_segments(1::smallint)")
    assert_ledger_is_true(database_url)


def test_a_deletion_under_way_when_segments_are_exchanged_is_made_from_the_copy_too(
    shelf: Shelf, new_shelf: Callable[[], Shelf], database_url: str
) -> None:
    shelf.put(texts(0, 120))
    shelf.sql("SELECT pgclip.close_segment(1::smallint, 100)")
    shelf.sql("SELECT pgclip.build_segment(1::smallint, '{1}', '64MB', 0)")
    shelf.sql("SELECT pgclip.announce_segments(1::smallint)")
    deleter, exchanging = new_shelf(), new_shelf()
    deleter.sql("BEGIN")
    deleter.delete("k8")
    exchange = "SELECT pgclip.exchange_segments(1::smallint)"
    thread = threading.Thread(target=exchanging.sql, args=(exchange,))
    thread.start()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"
    eventually(lambda: shelf.sql(waiting) == [(1,)])
    deleter.sql("COMMIT")
    thread.join()
    assert shelf.states()[3] == "sealed"
    assert_ledger_is_true(database_url)


def test_a_build_that_comes_too_late_copies_nothing(
    shelf: Shelf, maintenance: Maintenance, database_url: str
) -> None:
    """Of two processes that saw the same segments, one was frozen before it began."""
    shelf.put(texts(0, 120))
    shelf.sql("SELECT pgclip.close_segment(1::smallint, 100)")
    ((seen,),) = shelf.sql("SELECT pgclip.next_build(1::smallint, 8, 0.2, 0, 10000000)")
    maintenance.run()
    shelf.delete("k7")
    late = "SELECT pgclip.build_segment(1::smallint, %s, '64MB', 0)"
    assert shelf.sql(late, seen) == [(None,)]
    assert shelf.sql(late, [2]) == [(None,)]  # nor the hot one
    maintenance.run()
    assert_ledger_is_true(database_url)
    assert shelf.nearest("text 7") != "k7"


def test_nothing_is_built_at_leisure_while_a_model_is_dropped(
    shelf: Shelf, connections: Database, database_url: str
) -> None:
    """Its vectors are dropped when older transactions have ended, as which a build counts."""
    settings = Settings.load(database_url=database_url, steward_interval=60)
    sealer = Sealer(settings, connections, 1)
    try:
        assert not sealer._is_no_leisure()
        shelf.sql("SELECT pgclip.add_model('other')")
        assert not sealer._is_no_leisure()
        shelf.sql("SELECT pgclip.cancel_model('other')")
        assert sealer._is_no_leisure()
        eventually(lambda: shelf.sql("SELECT pgclip.walk_models(100, 1000)") == [(False,)])
        eventually(lambda: not sealer._is_no_leisure())
    finally:
        sealer.stop()
