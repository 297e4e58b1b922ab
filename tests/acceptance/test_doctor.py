"""`pgclip doctor`: what it finds, and what it advises."""

import json
from collections.abc import Callable
from pathlib import Path

from support.clusters import Cluster, place
from support.commands import PICTURES, pgclip, urls
from support.databases import run_sql, with_database
from support.pictures import jpeg
from support.places import DEMO_MODEL
from support.processes import Live, WorkerFactory, eventually

from pgclip import Client
from pgclip.local import LocalServices
from pgclip.migrate import migrate


class TestDoctor:
    def findings(self, *arguments: str, **environ: str) -> dict[str, dict[str, str]]:
        told = pgclip("doctor", "--json", *arguments, **environ)
        found = json.loads(told.stdout)
        in_the_way = any(finding["state"] == "trouble" for finding in found)
        assert told.returncode == int(in_the_way), told.stderr
        return {finding["what"]: finding for finding in found}

    def test_a_healthy_set_up(self, live: Live) -> None:
        found = self.findings(
            **urls(live.client), PGCLIP_MODEL=str(DEMO_MODEL), PGCLIP_ROOTS=str(PICTURES)
        )
        assert {name for name, finding in found.items() if finding["state"] == "ok"} >= {
            *("settings", "Postgres", "pgvector", "schema", "Redis", "worker", "root"),
            *("model", "workers"),
        }
        told = pgclip("doctor", **urls(live.client), PGCLIP_MODEL=str(DEMO_MODEL))
        assert told.returncode == 0
        assert "✓ schema: pgclip is up to date" in told.stdout

    def test_nothing_is_set(self) -> None:
        (finding,) = self.findings().values()
        assert "pgclip up" in finding["detail"]

    def test_services_are_down(self) -> None:
        found = self.findings(
            PGCLIP_DATABASE_URL="postgresql://u:secret@127.0.0.1:9/db",
            PGCLIP_REDIS_URL="redis://127.0.0.1:9/0",
            PGCLIP_ROOTS="/nonexistent",
            PGCLIP_URLS="gs://bucket/",
        )
        assert {name for name, finding in found.items() if finding["state"] == "trouble"} == {
            *("Postgres", "Redis", "root", "URLs"),
        }
        assert "refused" in found["Postgres"]["detail"]
        assert "Start it" in found["Postgres"]["advice"]
        assert "secret" not in json.dumps(found)
        assert "gcsfs" in found["URLs"]["advice"]

    def test_no_schema_no_pgvector_an_old_schema(
        self, services: LocalServices, new_database: Callable[[], str]
    ) -> None:
        run_sql(services.database_url, "CREATE DATABASE doctor_empty")
        url = with_database(services.database_url, "doctor_empty")
        given = {"PGCLIP_DATABASE_URL": url, "PGCLIP_REDIS_URL": services.redis_url}
        found = self.findings(**given)
        assert found["pgvector"]["state"] == "ok"
        assert found["schema"]["advice"] == "pgclip migrate"
        # This server's extensions are looked for elsewhere: to this database it has none.
        run_sql(url, "ALTER DATABASE doctor_empty SET extension_control_path = '/nonexistent'")
        found = self.findings(**given)
        assert found["pgvector"]["state"] == "trouble"
        assert "pgvector/pgvector" in found["pgvector"]["advice"]

        old = new_database()
        run_sql(old, "UPDATE pgclip.schema_version SET version_num = '0001'")
        found = self.findings(**{**given, "PGCLIP_DATABASE_URL": old})
        assert "at version 0001, this package needs" in found["schema"]["detail"]
        run_sql(old, "UPDATE pgclip.schema_version SET version_num = '9999'")
        found = self.findings(**{**given, "PGCLIP_DATABASE_URL": old})
        assert found["schema"]["state"] == "ok"  # it says that it answers this version, too
        run_sql(old, "CREATE OR REPLACE FUNCTION pgclip.serves() RETURNS text LANGUAGE sql"
                     " IMMUTABLE AS $$ SELECT '9999' $$")  # fmt: skip
        found = self.findings(**{**given, "PGCLIP_DATABASE_URL": old})
        assert "pip install --upgrade pgclip" in found["schema"]["detail"]

        broken = new_database()
        run_sql(broken, "DROP FUNCTION pgclip.store; DROP VIEW pgclip.queue")
        found = self.findings(**{**given, "PGCLIP_DATABASE_URL": broken})
        assert found["schema"]["state"] == "trouble"
        assert "lay view queue: it is missing" in found["schema"]["detail"]
        assert found["schema"]["advice"] == "pgclip migrate"

    def test_another_model(self, client: Client, database_url: str) -> None:
        run_sql(database_url, "SELECT pgclip.register_model('first', 4, 10, '{\"fatal\": {}}')")
        found = self.findings(**urls(client), PGCLIP_MODEL="second")
        assert "holds vectors of first" in found["model"]["detail"]
        assert "pgclip models add 'second'" in found["model"]["advice"]
        assert found["workers"]["state"] == "warning"

    def test_what_failed_and_what_waits(
        self, client: Client, database_url: str, start_worker: WorkerFactory
    ) -> None:
        start_worker(database_url)
        client.submit_text("fail")
        client.submit_image(jpeg(1))
        eventually(lambda: client.count()["failed"] == 1)
        found = self.findings(**urls(client), PGCLIP_MODEL="planted")
        assert "encoding_failed 1" in found["items"]["detail"]

    def test_searches_read_more_than_postgres_keeps_in_memory(
        self, services: LocalServices, start_worker: WorkerFactory, tmp_path: Path
    ) -> None:
        server = Cluster(place(tmp_path / "small") / "data").create().start("shared_buffers=128kB")
        try:
            migrate(server.url())
            start_worker(server.url())
            given = {"database_url": server.url(), "redis_url": services.redis_url}
            with Client(**given) as client:
                client.submit_text("one").wait(60)
                assert "memory" not in self.findings(**urls(client))
                client.submit_many({"text": f"text {n}"} for n in range(3000)).wait(60)
                found = self.findings(**urls(client), PGCLIP_MODEL="planted")["memory"]
            assert found["state"] == "warning"
            assert "shared_buffers are 128.0 KiB" in found["detail"]
        finally:
            server.stop()
