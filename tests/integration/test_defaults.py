"""What a role or a database sets for its sessions changes nothing of ours."""

from collections.abc import Callable
from typing import Any

import pytest
from support.commands import pgclip
from support.databases import assert_ledger_is_true
from support.processes import WorkerFactory, eventually

from pgclip import Client, ConnectionFailed
from pgclip.local import LocalServices
from pgclip.migrate import migrate, plan, tried

Sql = Callable[..., list[Any]]
DEFAULTS = {
    "serializable, read-only": {
        "default_transaction_isolation": "serializable",
        "default_transaction_read_only": "on",
        "default_transaction_deferrable": "on",
    },
    "impatient": {
        "statement_timeout": "300ms",
        "lock_timeout": "50ms",
        "idle_in_transaction_session_timeout": "150ms",
    },
    "spelled otherwise": {
        "search_path": "nowhere",
        "quote_all_identifiers": "on",
        "DateStyle": "German",
        "IntervalStyle": "iso_8601",
        "TimeZone": "Asia/Kathmandu",
        "bytea_output": "escape",
        "extra_float_digits": "-3",
        "standard_conforming_strings": "off",
        "escape_string_warning": "off",
        "backslash_quote": "on",
        "transform_null_equals": "on",
        "lc_messages": "C",
    },
    "planned otherwise": {
        "enable_indexscan": "off",
        "enable_bitmapscan": "off",
        "plan_cache_mode": "force_generic_plan",
        "work_mem": "64kB",
        "jit": "on",
        "jit_above_cost": "0",
        "synchronous_commit": "off",
        "check_function_bodies": "off",
        "row_security": "off",
    },
}


@pytest.mark.parametrize("defaults", DEFAULTS.values(), ids=DEFAULTS)
def test_the_whole_story(
    defaults: dict[str, str], database_url: str, services: LocalServices, sql: Sql,
    start_worker: WorkerFactory,
) -> None:  # fmt: skip
    (name,) = sql("SELECT quote_ident(current_database())")[0]
    for setting, value in defaults.items():
        sql(f"ALTER DATABASE {name} SET {setting} = '{value}'")
    assert plan(database_url) == migrate(database_url) == []
    start_worker(database_url, PGCLIP_SEGMENT_ROWS="20", PGCLIP_STEWARD_INTERVAL="0.2")
    with Client(database_url=database_url, redis_url=services.redis_url) as client:
        client.submit_text("one", key="a").wait(30)
        client.submit_many(
            {"text": f"text {n}", "key": f"k{n}", "metadata": {"n": n}} for n in range(100)
        ).wait(60)
        client.submit_text("another", key="k1").wait(30)
        assert client.search("text 7", k=1)[0].key == "k7"
        assert client.search("text 7", k=1, filter={"n": {"gt": 5}})[0].key == "k7"
        assert client.hybrid("text 8", k=1)[0].key == "k8"
        client.submit_text("fail", key="failed")
        eventually(lambda: client.count()["failed"] == 1)
        assert client.retry() == 1
        client.delete("k2")
        client.define_label_set("weather", ["sunny", "rainy"], relabel=False)
        assert client.heal().relabeled > 0
        eventually(
            lambda: client.missing() == [] or {m.key for m in client.missing()} == {"failed"}
        )
        eventually(lambda: "sealed" in {each.state for each in client.segments()})
        eventually(lambda: client.count() == {"queued": 0, "leased": 0, "done": 100, "failed": 1})
    if "statement_timeout" in defaults:  # shorter than all that is tried takes
        sql(f"ALTER DATABASE {name} SET statement_timeout = '10ms'")
    assert tried(database_url) == []
    told = pgclip("doctor", PGCLIP_DATABASE_URL=database_url, PGCLIP_REDIS_URL=services.redis_url,
                  PGCLIP_MODEL="planted")  # fmt: skip
    assert told.returncode == 0, told.stdout
    sql("DROP VIEW pgclip.queue")  # in a session from before these defaults
    assert migrate(database_url)
    sql(f"ALTER DATABASE {name} RESET ALL")  # what follows is a look of the tests' own
    assert_ledger_is_true(database_url)


def test_a_limit_of_the_clients_own_is_named(database_url: str, services: LocalServices) -> None:
    urls = {"database_url": database_url, "redis_url": services.redis_url}
    many = [{"text": f"text {n}"} for n in range(5000)]
    with (
        Client(**urls, statement_timeout=0.001) as client,
        pytest.raises(ConnectionFailed, match="PGCLIP_STATEMENT_TIMEOUT"),
    ):
        client.submit_many(many)
