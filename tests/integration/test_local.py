"""The embedded servers, real ones: sharing, sudden deaths, stale files, secrets."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis

from pgclip.local import LocalServices, LocalServicesError
from pgclip.local.postgres import Postgres

WAIT_SECONDS = 60

# A user of the folder in another process: says the process ids, leaves when its stdin closes.
USER = """
import sys
import time
from pgclip.local import LocalServices
with LocalServices(sys.argv[1]) as services:
    print(services.postgres_pid, services.redis_pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that was used once; copied by the tests, since initdb takes a second."""
    folder = tmp_path_factory.mktemp("stopped") / "data"
    with LocalServices(folder):
        pass
    return folder


@pytest.fixture
def folder(stopped: Path, tmp_path: Path) -> Iterator[Path]:
    """A used data folder; its servers, should the test leave any, are stopped."""
    folder = tmp_path / "data"
    subprocess.run(["cp", "-a", stopped, folder], check=True)
    yield folder
    if pids(LocalServices(folder)):
        with LocalServices(folder):
            pass


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    """Servers for the tests that change nothing about them."""
    with LocalServices(tmp_path_factory.mktemp("shared") / "data") as services:
        yield services


def sql(services: LocalServices, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(services.database_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def ping(services: LocalServices) -> bool:
    with closing(redis.Redis.from_url(services.redis_url)) as client:
        return bool(client.ping())


def pids(services: LocalServices) -> list[int]:
    found = [services.postgres_pid, services.redis_pid]
    return [pid for pid in found if pid is not None]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], WAIT_SECONDS)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def user_process(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", USER, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def pids_seen_by(user: subprocess.Popen[str]) -> list[int]:
    assert user.stdout is not None
    return [int(word) for word in user.stdout.readline().split()]


@contextmanager
def other_user(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    with user_process(folder) as user:
        yield user, pids_seen_by(user)
        user.communicate(timeout=WAIT_SECONDS)


def test_the_vector_extension_is_there(services: LocalServices) -> None:
    sql(services, "CREATE EXTENSION IF NOT EXISTS vector")
    assert sql(services, "SELECT current_database(), '[1,2]'::halfvec(2)::text") == [
        ("pgclip", "[1,2]")
    ]


def test_postgres_is_durable_and_roomy(services: LocalServices) -> None:
    settings = {
        name: sql(services, f"SHOW {name}")[0][0]
        for name in ("fsync", "synchronous_commit", "full_page_writes", "max_connections")
    }
    assert settings == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "max_connections": "200",
    }


def test_redis_answers_and_never_evicts(services: LocalServices) -> None:
    with closing(redis.Redis.from_url(services.redis_url, decode_responses=True)) as client:
        assert client.ping()
        assert client.config_get("maxmemory-policy", "save", "appendonly") == {
            "maxmemory-policy": "noeviction",
            "save": "",
            "appendonly": "no",
        }


def test_both_ask_for_the_password_and_listen_on_loopback_only(services: LocalServices) -> None:
    for pid in pids(services):
        listening = [
            connection.laddr.ip
            for connection in psutil.Process(pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening == ["127.0.0.1"]
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(services.database_url, password="wrong")
    with (
        closing(redis.Redis.from_url(services.redis_url.replace("redis://:", "redis://:x"))) as bad,
        pytest.raises(redis.AuthenticationError),
    ):
        bad.ping()


def test_secrets_are_private_and_not_in_the_process_list(services: LocalServices) -> None:
    assert stat.S_IMODE(services.data_dir.stat().st_mode) == 0o700
    for file in services.data_dir.glob("*.*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    password = services.redis_url.split(":")[2].split("@")[0]
    database_password = services.database_url.split(":")[2].split("@")[0]
    for pid in pids(services):
        shown = " ".join(psutil.Process(pid).cmdline())
        assert password not in shown
        assert database_password not in shown


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as somebody else")
def test_servers_of_root_run_unprivileged_in_a_folder_closed_to_others(
    services: LocalServices,
) -> None:
    for pid in pids(services):
        process = psutil.Process(pid)
        assert process.uids().effective != 0
        assert process.gids().effective != 0
        groups = Path(f"/proc/{pid}/status").read_text().split("Groups:")[1].splitlines()[0]
        assert groups.strip() == ""


def test_a_second_start_finds_the_data(folder: Path) -> None:
    with LocalServices(folder) as services:
        sql(services, "CREATE TABLE kept AS SELECT 7 AS n")
        urls = services.database_url, services.redis_url
        assert ping(services)
    assert pids(services) == []
    with LocalServices(folder) as services:
        assert sql(services, "SELECT n FROM kept") == [(7,)]
        assert (services.database_url, services.redis_url) == urls


def test_who_leaves_first_stops_nothing(folder: Path) -> None:
    with LocalServices(folder) as services:
        with other_user(folder) as (_, seen):
            assert seen == pids(services)
        assert pids(services) == seen
        assert sql(services, "SELECT 1") == [(1,)]
        assert ping(services)
    with other_user(folder) as (user, seen):
        with LocalServices(folder) as services:
            assert pids(services) == seen
        assert pids(services) == seen
        user.communicate(timeout=WAIT_SECONDS)
        assert pids(services) == []


def test_two_in_one_process_share_as_well(folder: Path) -> None:
    with LocalServices(folder) as first:
        with LocalServices(folder) as second:
            assert second.database_url == first.database_url
        assert sql(first, "SELECT 1") == [(1,)]


def test_many_beginning_an_empty_folder_at_once_agree_on_one_server(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with ExitStack() as stack:
        users = [stack.enter_context(user_process(folder)) for _ in range(4)]
        assert len({tuple(pids_seen_by(user)) for user in users}) == 1
        for user in users:
            user.communicate(timeout=WAIT_SECONDS)
    assert pids(LocalServices(folder)) == []


def test_servers_of_a_killed_user_are_adopted_and_then_stopped(folder: Path) -> None:
    with other_user(folder) as (user, seen):
        user.kill()
        user.wait()
    with LocalServices(folder) as services:
        assert pids(services) == seen
        assert sql(services, "SELECT 1") == [(1,)]
        assert ping(services)
    assert pids(services) == []


def test_killed_servers_come_back_at_the_same_urls_with_the_data(folder: Path) -> None:
    with LocalServices(folder) as services:
        sql(services, "CREATE TABLE kept AS SELECT 7 AS n")
        urls = services.database_url, services.redis_url
        for pid in pids(services):
            kill(pid)
        with LocalServices(folder) as other:
            assert (other.database_url, other.redis_url) == urls
            assert sql(services, "SELECT n FROM kept") == [(7,)]
            assert ping(services)


def test_start_called_again_brings_a_killed_server_back(folder: Path) -> None:
    with LocalServices(folder) as services:
        kill(pids(services)[1])
        services.start()
        assert ping(services)


def test_a_child_that_outlives_postgres_does_not_block_the_next_start(folder: Path) -> None:
    with (
        LocalServices(folder) as services,
        closing(psycopg2.connect(services.database_url)) as connection,
    ):
        child = psutil.Process(connection.get_backend_pid())
        child.suspend()  # so that it cannot notice the death of its postmaster
        kill(pids(services)[0])
        with LocalServices(folder) as other:
            assert sql(other, "SELECT 1") == [(1,)]
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_shutdown_that_hangs_is_ended_by_the_next_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = ((signal.SIGINT, 0.5), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
    monkeypatch.setattr(Postgres, "stop_signals", patience)
    with other_user(folder) as (user, (postmaster, _)):
        user.kill()
        user.wait()
    children = psutil.Process(postmaster).children()
    [checkpointer] = [child for child in children if "checkpointer" in child.cmdline()[0]]
    checkpointer.suspend()
    os.kill(postmaster, signal.SIGINT)
    wait_until(lambda: "received fast shutdown" in (folder / "postgres.log").read_text())
    with LocalServices(folder) as services:
        assert sql(services, "SELECT 1") == [(1,)]
        assert services.postgres_pid != postmaster


def test_a_pid_file_that_names_a_stranger_is_no_obstacle(folder: Path) -> None:
    with LocalServices(folder):
        pass
    owner = (folder / "postgres").stat()
    as_owner = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    with subprocess.Popen(["sleep", "600"], **as_owner) as stranger:
        try:
            lines = [stranger.pid, folder / "postgres", 1, 5432, "", "127.0.0.1", "", "ready"]
            pid_file = folder / "postgres" / "postmaster.pid"
            pid_file.write_text("".join(f"{line}\n" for line in lines))
            with LocalServices(folder) as services:
                assert sql(services, "SELECT 1") == [(1,)]
                assert services.postgres_pid != stranger.pid
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_first_start_that_was_killed_half_way_is_begun_again(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with user_process(folder) as user:
        wait_until((folder / "postgres.new").exists)
        user.kill()
    assert not (folder / "postgres").exists()
    with LocalServices(folder) as services:
        assert sql(services, "SELECT 1") == [(1,)]
        assert not (folder / "postgres.new").exists()


def test_a_forked_child_that_stops_stops_nothing(folder: Path) -> None:
    with LocalServices(folder, database_url="postgresql://elsewhere/x") as services:
        child = os.fork()
        if child == 0:
            services.stop()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert ping(services)


def test_given_urls_are_used_as_they_are(tmp_path: Path) -> None:
    urls = {"database_url": "postgresql://elsewhere/app", "redis_url": "redis://elsewhere/3"}
    with LocalServices(tmp_path / "unused", **urls) as services:
        assert services.database_url == urls["database_url"]
        assert services.redis_url == urls["redis_url"]
    assert not (tmp_path / "unused").exists()


def test_a_server_that_does_not_start_shows_its_log_and_leaves_nothing(folder: Path) -> None:
    bad = LocalServices(folder, postgres_settings={"shared_buffers": "plenty"})
    with pytest.raises(LocalServicesError, match='invalid value for parameter "shared_buffers"'):
        bad.start()
    assert pids(bad) == []


def test_a_lost_password_file_is_an_error_that_says_so(folder: Path) -> None:
    with LocalServices(folder):
        pass
    secret = (folder / "postgres.json").read_text()
    (folder / "postgres.json").unlink()
    with pytest.raises(LocalServicesError, match=r"postgres\.json .* is missing"):
        LocalServices(folder).start()
    (folder / "postgres.json").write_text(secret)


def test_a_folder_removed_under_its_servers_is_an_error_that_says_so(folder: Path) -> None:
    services = LocalServices(folder, database_url="postgresql://elsewhere/x").start()
    [pid] = pids(services)
    shutil.rmtree(folder)
    with pytest.raises(LocalServicesError, match="was removed while its servers ran"):
        services.stop()
    kill(pid)


def test_a_missing_extra_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(LocalServicesError, match=r"pip install 'pgclip\[local\]'"):
        LocalServices(tmp_path / "data").start()


def test_urls_before_the_start_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(LocalServicesError, match="Not started"):
        _ = LocalServices(tmp_path / "data").database_url


def test_the_import_is_cheap() -> None:
    check = "import sys, pgclip.local; print(*{'psutil', 'torch', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
