"""Segments: closed, built, exchanged and dropped while others store, delete and search."""

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg2
import pytest
from conftest import WorkerFactory, assert_ledger_is_true, eventually

from pgclip import Client, segments
from pgclip.database import Database
from pgclip.segments import Maintenance, maintenance_connections
from pgclip.settings import Settings

Sql = Callable[..., list[Any]]
DIMENSION = 8


def vector_of(text: str) -> str:
    """A unit vector made of a text, as Postgres reads it."""
    values = np.random.default_rng(list(text.encode())).standard_normal(DIMENSION)
    return str((values / np.linalg.norm(values)).tolist())


class Shelf:
    """Submits texts and stores their vectors, as a client and a worker would."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg2.connect(url)
        self.connection.autocommit = True
        self.sql("SET lock_timeout = '20s'")
        (self.worker,) = self.sql(
            "SELECT pgclip.sign_on(1::smallint, 'h', 1, 'cpu', 'f', 64, 600)"
        )[0]

    def sql(self, statement: str, *arguments: Any) -> list[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def put(self, texts: dict[str, str]) -> None:
        """Texts by key; a key that is there is replaced."""
        for key, text in texts.items():
            self.sql("SELECT pgclip.submit_text(%s, key => %s)", text, key)
        lease = str(uuid4())
        jobs = self.sql("SELECT * FROM pgclip.claim(%s, %s, 5000, 1000000000)", self.worker, lease)
        ids, hashes = [job[0] for job in jobs], [bytes(job[5]) for job in jobs]
        vectors = [vector_of(texts[job[3]]) for job in jobs]
        self.sql("SELECT pgclip.open_results()")
        self.sql(
            "BEGIN; INSERT INTO pg_temp.staged_vector SELECT unnest(%s), unnest(%s)::halfvec;"
            "SELECT pgclip.store(%s, (SELECT epoch FROM pgclip.label_epoch), %s, %s, '[]'); COMMIT",
            *(ids, vectors, lease, ids, hashes),
        )

    def delete(self, *keys: str) -> None:
        for key in keys:
            self.sql("SELECT pgclip.delete(%s)", key)

    def nearest(self, text: str, **options: Any) -> str:
        """The key nearest to a text's vector."""
        extra = "".join(f", {name} => {value}" for name, value in options.items())
        (row,) = self.sql(
            f"SELECT key FROM pgclip.search_vector(%s::halfvec, k => 1{extra})", vector_of(text)
        )
        return str(row[0])

    def states(self) -> dict[int, str]:
        return dict(self.sql("SELECT number, state FROM pgclip.segment ORDER BY number"))


def texts(first: int, last: int) -> dict[str, str]:
    return {f"k{n}": f"text {n}" for n in range(first, last)}


@pytest.fixture
def new_shelf(database_url: str, sql: Sql) -> Iterator[Callable[[], Shelf]]:
    sql("SELECT pgclip.register_model('m', 8, 10, '{\"fatal\": {}}')")
    made: list[Shelf] = []

    def make() -> Shelf:
        made.append(Shelf(database_url))
        return made[-1]

    yield make
    for shelf in made:
        shelf.connection.close()


@pytest.fixture
def shelf(new_shelf: Callable[[], Shelf]) -> Shelf:
    return new_shelf()


@pytest.fixture
def connections(database_url: str) -> Iterator[Database]:
    database = maintenance_connections(Settings.load(database_url=database_url))
    yield database
    database.close()


@pytest.fixture
def maintenance(database_url: str, connections: Database) -> Maintenance:
    """Of the model; a segment is full with 100 vectors."""
    settings = Settings.load(database_url=database_url, segment_rows=100, max_segments=4)
    return Maintenance(settings, connections, 1)


def test_full_segments_get_an_index_and_small_ones_stay_exact(
    shelf: Shelf, maintenance: Maintenance, connections: Database
) -> None:
    shelf.put(texts(0, 50))
    maintenance.run()
    assert shelf.states() == {1: "hot"}
    shelf.put(texts(50, 150))
    maintenance.run()
    assert shelf.states() == {1: "retired", 2: "hot", 3: "sealed"}
    shelf.put(texts(150, 160))
    for n in (3, 120, 155):
        assert shelf.nearest(f"text {n}") == f"k{n}"
    shown = {each.number: each for each in segments.segments(connections)}
    assert shown[3].vectors == 150
    assert shown[3].index_bytes > shown[2].index_bytes
    assert shown[1].retired_at is not None


def test_replacing_and_deleting_is_the_same_wherever_a_vector_lives(
    shelf: Shelf, maintenance: Maintenance, database_url: str
) -> None:
    shelf.put(texts(0, 120))
    maintenance.run()
    shelf.put(texts(120, 130))
    shelf.put({"k5": "another text", "k125": "one more"})
    shelf.delete("k6", "k126")
    assert shelf.nearest("another text") == "k5"
    assert shelf.nearest("one more") == "k125"
    keys = {row[0] for row in shelf.sql(
        "SELECT key FROM pgclip.search_vector(%s::halfvec, k => 1000)", vector_of("text 6"))
    }  # fmt: skip
    assert keys == {f"k{n}" for n in range(130)} - {"k6", "k126"}
    assert_ledger_is_true(database_url)


def test_what_is_deleted_while_the_copy_is_built_does_not_come_back(
    shelf: Shelf, maintenance: Maintenance, database_url: str
) -> None:
    shelf.put(texts(0, 120))
    shelf.sql("SELECT pgclip.close_segment(1::smallint, 100)")
    assert shelf.sql("SELECT pgclip.build_segment(1::smallint, '{1}', '64MB', 0)") == [([3],)]
    shelf.delete("k7")
    shelf.put({"k8": "a replacement"})
    assert shelf.sql("SELECT pgclip.announce_segments(1::smallint)") == [(True,)]
    shelf.delete("k9")
    assert shelf.sql("SELECT pgclip.exchange_segments(1::smallint)") == [([3],)]
    assert shelf.nearest("text 7") != "k7"
    assert shelf.nearest("a replacement") == "k8"
    assert_ledger_is_true(database_url)


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


@pytest.mark.parametrize(
    ("sealed", "closed", "quiet", "expected"),
    [
        ([], [1], False, [1]),
        ([20, 20, 20], [], False, None),
        ([20, 20, 20, 20], [], False, [10, 11, 12, 13]),
        ([20, 20, 20, 80], [], False, [10, 11, 12, 13]),
        ([20, 20, 20, 200], [], False, None),
        ([20, 20, 20, 200], [1], False, [1]),
        ([20, 20, 20, 200], [], True, [10, 11, 12, 13]),
        ([20, 20, 200], [], True, [10, 11]),
        ([20, 200], [], True, None),
        ([60, 200], [], True, [10, 11]),
        ([60, 205], [], True, None),  # more than fits into memory
        ([60, 60, 60, 60, 60], [], False, [10, 11, 12, 13]),
        ([1, 10, 100, 1000, 10000, 100000], [1], False, [10, 11]),  # six are allowed
        ([20, 20, 20, 20, 20, 20], [1], False, [10, 11, 12, 13, 14, 15]),
    ],
)
def test_what_is_built_next(
    shelf: Shelf, sealed: list[int], closed: list[int], quiet: bool, expected: list[int] | None
) -> None:
    if closed:
        shelf.sql("UPDATE pgclip.segment SET state = 'closed'")
        shelf.sql("INSERT INTO pgclip.segment (model_id, number, state) VALUES (1, 2, 'hot')")
    if quiet:
        shelf.sql("UPDATE pgclip.segment SET created_at = now() - interval '2 min'")
    for number, rows in enumerate(sealed, 10):
        shelf.sql(
            "INSERT INTO pgclip.segment (model_id, number, state, kind, rows) "
            "VALUES (1, %s, 'sealed', 'text', %s)", number, rows,
        )  # fmt: skip
    fits = 261 * (2 * DIMENSION + 720)  # rows
    assert shelf.sql("SELECT pgclip.next_build(1::smallint, 6, 0.2, 0, %s)", fits) == [(expected,)]


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


def test_each_kind_has_indexes_of_its_own(shelf: Shelf, maintenance: Maintenance) -> None:
    shelf.put(texts(0, 120))
    shelf.sql("UPDATE pgclip.embedding_1_1 SET kind = 'image' WHERE id % 3 = 0")
    maintenance.run()
    kinds = "SELECT kind, rows FROM pgclip.segment WHERE state = 'sealed' ORDER BY kind"
    assert shelf.sql(kinds) == [("image", 40), ("text", 80)]
    shelf.put(texts(120, 240))
    maintenance.run()
    assert shelf.sql(kinds) == [("image", 40), ("text", 80), ("text", 120)]


def test_a_table_of_dead_rows_is_closed_too(shelf: Shelf, maintenance: Maintenance) -> None:
    """One that a foreign snapshot let grow; a vacuum would not make it shorter."""
    for n in range(5):
        shelf.put({f"k{key}": f"text {n} {key}" for key in range(60)})
    maintenance.run()
    assert sorted(shelf.states().values()) == ["hot", "retired", "sealed"]


def test_memory_that_is_too_little_for_an_index_is_told(
    shelf: Shelf, database_url: str, connections: Database, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings.load(database_url=database_url, segment_rows=100, build_memory=2**20)
    shelf.sql(
        """INSERT INTO pgclip.embedding_1_1 (item_id, collection_id, kind, embedding)
           SELECT n, 1, 'text', l2_normalize(ARRAY[sin(n), cos(n), 1, 0, 0, 0, 0, 0]::halfvec)
           FROM generate_series(1, 3000) n"""
    )
    Maintenance(settings, connections, 1).run()
    assert list(shelf.states().values()) == ["retired", "hot", "sealed"]
    assert "segments [3] needs more memory than PGCLIP_BUILD_MEMORY, 1 MiB" in caplog.text


def test_in_a_burst_building_waits_a_while(
    shelf: Shelf, database_url: str, connections: Database
) -> None:
    settings = Settings.load(database_url=database_url, segment_rows=100)
    patient = Maintenance(settings, connections, 1, patience=300)
    shelf.put(texts(0, 100))
    patient.run()
    assert shelf.states() == {1: "closed", 2: "hot"}  # closed a moment ago
    shelf.put(texts(100, 200))
    patient.run()
    assert shelf.states() == {1: "closed", 2: "closed", 3: "hot"}
    shelf.put(texts(200, 300))  # as many as it has patience with
    patient.run()
    assert shelf.states() == {1: "retired", 2: "retired", 3: "retired", 4: "hot", 5: "sealed"}
    shelf.put(texts(300, 400))
    patient.run()
    assert shelf.states()[4] == "closed"
    shelf.sql("UPDATE pgclip.segment SET created_at = now() - interval '11 s' WHERE state = 'hot'")
    patient.run()  # the burst is over
    assert shelf.states()[4] == "retired"


def test_a_segment_worn_by_deletions_is_built_anew(shelf: Shelf, maintenance: Maintenance) -> None:
    shelf.put(texts(0, 120))
    maintenance.run()
    shelf.delete(*(f"k{n}" for n in range(30)))
    shelf.sql("SELECT pg_stat_force_next_flush()")
    maintenance.run()
    assert shelf.states()[3] == "retired"
    assert shelf.sql("SELECT rows FROM pgclip.segment WHERE state = 'sealed'") == [(90,)]
    assert shelf.nearest("text 70") == "k70"


def test_one_process_at_a_time(
    shelf: Shelf, new_shelf: Callable[[], Shelf], maintenance: Maintenance
) -> None:
    shelf.put(texts(0, 120))
    other = new_shelf()
    other.sql("BEGIN; SELECT pg_advisory_xact_lock(731199448, 1)")
    maintenance.run()
    assert shelf.states() == {1: "hot"}
    other.sql("COMMIT")
    maintenance.run()
    assert shelf.states()[3] == "sealed"


SLEEPING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE wait_event = 'PgSleep' AND datname = current_database()
"""
WORKER = {"PGCLIP_SEGMENT_ROWS": "200", "PGCLIP_STEWARD_INTERVAL": "0.2"}


def test_workers_seal_what_they_store(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    for _ in range(2):
        start_worker(database_url, **WORKER)
    client.submit_many({"text": f"text {n}", "key": f"k{n}"} for n in range(1000)).wait(120)
    eventually(lambda: sql("SELECT count(*) FROM pgclip.segment WHERE state = 'sealed'") > [(0,)])
    assert client.search("text 77", k=1)[0].key == "k77"
    assert_ledger_is_true(database_url)


def test_a_frozen_worker_does_not_keep_others_from_building(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    frozen = start_worker(database_url, **WORKER)
    # It is frozen within a step, while its transaction holds the lock.
    sql("CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(1); END'")  # fmt: skip
    sql("CREATE EVENT TRIGGER slowly ON ddl_command_end WHEN TAG IN ('CREATE INDEX') "
        "EXECUTE FUNCTION slowly()")  # fmt: skip
    batch = client.submit_many({"text": f"text {n}"} for n in range(300))
    eventually(lambda: sql(SLEEPING) == [(1,)])
    frozen.kill(signal.SIGSTOP)
    try:
        sql("DROP EVENT TRIGGER slowly")
        start_worker(database_url, **WORKER)
        sealed = "SELECT count(*) FROM pgclip.segment WHERE state = 'sealed'"
        eventually(lambda: sql(sealed) > [(0,)])
        batch.wait(60)
    finally:
        frozen.kill(signal.SIGCONT)
    assert_ledger_is_true(database_url)


def test_storing_waits_while_too_many_vectors_have_no_index(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    sql("SELECT pg_advisory_lock(731199448, 1)")  # nobody builds
    worker = start_worker(database_url, **WORKER, PGCLIP_MAX_UNINDEXED="400")
    batch = client.submit_many({"text": f"sleep 0.004 {n}"} for n in range(1500))
    eventually(lambda: "storing waits" in worker.log.read_text())
    client.submit_text("accepted all the same")
    assert client.count()["done"] < 1500
    sql("SELECT pg_advisory_unlock(731199448, 1)")
    batch.wait(120)
    assert_ledger_is_true(database_url)


def test_a_worker_stops_while_it_builds(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    worker = start_worker(database_url, **WORKER)
    sql("CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(600); END'")  # fmt: skip
    sql("CREATE EVENT TRIGGER slowly ON ddl_command_end WHEN TAG IN ('CREATE INDEX') "
        "EXECUTE FUNCTION slowly()")  # fmt: skip
    client.submit_many({"text": f"text {n}"} for n in range(300)).wait(60)
    eventually(lambda: sql(SLEEPING) == [(1,)])
    worker.kill(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert sql("SELECT count(*) FROM pgclip.segment WHERE state IN ('copied', 'built')") == [(0,)]
