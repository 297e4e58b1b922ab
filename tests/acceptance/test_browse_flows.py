"""Pages in a real browser: from an empty database to a label that is taught, by several people."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from support.browsers import by_name, chrome, click, seen, served
from support.pictures import jpeg
from support.places import DEMO_MODEL
from support.processes import REAL, WorkerFactory, eventually

from pgclip import Client
from pgclip.local import LocalServices
from pgclip.migrate import migrate
from pgclip_web import review


@pytest.fixture
def address(client: Client) -> Iterator[str]:
    """The pages of a database in which nothing is yet."""
    with served(client) as address:
        yield address


@pytest.fixture
def browser(address: str) -> Iterator[Chrome]:
    with chrome(address) as browser:
        yield browser


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures, a text, and what is neither."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(24):
        (folder / f"{n}.jpg").write_bytes(jpeg(8000 + n, 160, 120))
    (folder / "notes.txt").write_text("a note")
    (folder / "broken.txt").write_bytes(b"\xff\xfe")
    return folder


def press(browser: Chrome, keys: str) -> None:
    ActionChains(browser).send_keys(keys).perform()


def told(browser: Chrome) -> str:
    return seen(browser, "#told")[0].text


def begin(browser: Chrome, address: str, name: str, by: str) -> None:
    browser.get(f"{address}/review?set={name}")
    by_name(browser, "by").clear()
    by_name(browser, "by").send_keys(by)
    click(browser, "#begin button")
    eventually(lambda: bool(seen(browser, ".draw")))


def test_from_nothing_to_a_taught_label(
    browser: Chrome, address: str, client: Client, folder: Path, database_url: str,
    start_worker: WorkerFactory,
) -> None:  # fmt: skip
    start_worker(database_url, REAL, PGCLIP_MODEL=str(DEMO_MODEL))
    browser.get(f"{address}/")
    click(browser, "main a[href=add]")
    by_name(browser, "collection").clear()
    by_name(browser, "collection").send_keys("mine")
    files = "\n".join(str(file) for file in sorted(folder.iterdir()))
    seen(browser, "#add [name=file]")[0].send_keys(files)
    click(browser, "#add button")
    eventually(lambda: "25 of 26 added, 1 refused" in told(browser))
    assert "broken.txt" in seen(browser, "#refused li")[0].text
    eventually(lambda: "workers are done" in told(browser))
    assert client.count(collection="mine")["done"] == 25

    click(browser, "nav a[href=labels]")
    by_name(browser, "set").send_keys("kinds")
    by_name(browser, "words").send_keys("dark")
    click(browser, "form[action=labels] button")
    eventually(lambda: "set=kinds" in browser.current_url)
    eventually(lambda: bool(client.review("kinds", 1, by="nobody")))
    begin(browser, address, "kinds", "ana")
    while "All judged" not in told(browser):
        press(browser, "yn"[len(client.judgements("kinds")) % 2])
        count = len(client.judgements("kinds"))
        eventually(lambda before=count: len(client.judgements("kinds")) >= before)
    judged = len(client.judgements("kinds"))
    assert judged >= 5
    press(browser, "b")
    eventually(lambda: len(client.judgements("kinds")) == judged - 1)
    press(browser, "u")
    eventually(lambda: "All judged" in told(browser))
    assert {one.judge for one in client.judgements("kinds")} == {"ana"}
    click(browser, "form[action=teach] button")
    eventually(lambda: "is taught" in browser.title, 120)
    (found,) = [each for each in client.label_sets() if each.name == "kinds"]
    assert found.taught == 1


def test_two_browsers_judge_at_once(
    browser: Chrome, address: str, client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    client.submit_many({"text": f"text {n}", "key": f"k{n}"} for n in range(60)).wait(60)
    client.define_label_set("both", ["odd"], exclusive=False, background="common")
    eventually(lambda: bool(client.review("both", 1, by="nobody")))
    with chrome(address) as other:
        for each, by in ((browser, "ana"), (other, "ben")):
            begin(each, address, "both", by)
        count = {by: len(seen(each, ".draw")) for each, by in ((browser, "ana"), (other, "ben"))}
        pressing = [
            threading.Thread(target=press, args=(each, "yn" * 20)) for each in (browser, other)
        ]
        for thread in pressing:
            thread.start()
        for thread in pressing:
            thread.join()
        for each in (browser, other):
            eventually(lambda each=each: "All judged" in told(each))
        eventually(lambda: len(client.judgements("both")) == sum(count.values()))
    judged = [one.key for one in client.judgements("both")]
    assert len(set(judged)) == len(judged)


def test_what_could_not_be_noted_is_said(
    browser: Chrome, address: str, client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    client.submit_many({"text": f"text {n}", "key": f"k{n}"} for n in range(30)).wait(60)
    client.define_label_set("gone", ["odd"], exclusive=False, background="common")
    eventually(lambda: bool(client.review("gone", 1, by="nobody")))
    begin(browser, address, "gone", "ana")
    key = seen(browser, ".draw.now [name=key]")[0].get_attribute("value") or ""
    client.delete(key)
    press(browser, "y")
    eventually(lambda: "there is no item" in seen(browser, "#refused")[0].text)
    press(browser, "y")
    eventually(lambda: len(client.judgements("gone")) == 1)


@pytest.mark.parametrize("leaves_by", ["#begin button", "#teach button", "nav a[href=state]"])
def test_who_leaves_at_once_loses_no_answer(
    browser: Chrome, address: str, client: Client, database_url: str, start_worker: WorkerFactory,
    monkeypatch: pytest.MonkeyPatch, leaves_by: str,
) -> None:  # fmt: skip
    def slow(*arguments: Any) -> None:
        time.sleep(0.3)
        say(*arguments)

    say = review._say
    monkeypatch.setattr(review, "_say", slow)
    start_worker(database_url)
    client.submit_many({"text": f"text {n}", "key": f"k{n}"} for n in range(60)).wait(60)
    client.define_label_set("slow", ["odd"], exclusive=False, background="common")
    eventually(lambda: bool(client.review("slow", 1, by="nobody")))
    begin(browser, address, "slow", "ana")
    press(browser, "ynynyn")
    assert told(browser).startswith("6 of")
    click(browser, leaves_by)
    eventually(lambda: len(client.judgements("slow")) == 6)
    assert sorted(one.value for one in client.judgements("slow")) == [False] * 3 + [True] * 3


def test_back_and_again(
    browser: Chrome, address: str, client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    client.submit_many({"text": f"text {n}", "key": f"k{n}"} for n in range(30)).wait(60)
    client.define_label_set("again", ["odd"], exclusive=False, background="common")
    eventually(lambda: bool(client.review("again", 1, by="nobody")))
    begin(browser, address, "again", "ana")
    keys = [each.get_attribute("value") for each in seen(browser, ".draw [name=key]")]

    def words() -> dict[str, bool]:
        return {one.key: one.value for one in client.judgements("again")}

    press(browser, "yy")
    press(browser, Keys.ARROW_LEFT * 2)
    press(browser, "n")  # another word on the first
    eventually(lambda: words() == {keys[0]: False, keys[1]: True})
    press(browser, "b")  # takes back the latest, that one
    eventually(lambda: words() == {keys[1]: True})
    while "All judged" not in told(browser):
        press(browser, "y")
    eventually(lambda: len(words()) == len(keys))
    press(browser, "n")  # nobody came back to the last one on purpose
    press(browser, "b")
    eventually(lambda: len(words()) == len(keys) - 1)
    assert set(words().values()) == {True}


def test_without_a_worker_and_without_postgres(tmp_path: Path) -> None:
    with LocalServices(tmp_path / "own") as own:
        migrate(own.database_url)
        factory = WorkerFactory(tmp_path, own.redis_url)
        settings = {"database_url": own.database_url, "redis_url": own.redis_url}
        try:
            with (
                Client(**settings) as client,
                served(client) as address,
                chrome(address) as browser,
            ):
                worker = factory(own.database_url)
                client.submit_text("a text", key="a text").wait(60)
                worker.kill()
                worker.wait()
                browser.get(f"{address}/?q=never+asked+before")
                assert "worker" in seen(browser, "[role=alert]")[0].text
                browser.get(f"{address}/state")
                assert own.postgres_pid is not None
                os.kill(own.postgres_pid, signal.SIGKILL)
                time.sleep(3)  # the page asks meanwhile
                own.start()
                factory(own.database_url)
                client.submit_text("another", key="another").wait(60)
                eventually(lambda: "<dd>2</dd>" in browser.page_source)
                browser.get(f"{address}/?q=a+text")
                eventually(lambda: len(seen(browser, ".hit")) == 2)
        finally:
            factory.stop()
