"""Pages in a real browser: what a person does with words, mouse, keys and pictures."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from support.browsers import chrome, seen, served
from support.pictures import jpeg
from support.processes import Live, eventually

from pgclip import Client

HOSTILE = "\"><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
HITS = "ol.hits:not(.near) .hit"


@pytest.fixture(scope="module")
def client(live: Live) -> Client:
    live.client.submit_many([
        *({"image": jpeg(3000 + n, 320, 240), "key": f"hand/{n}.jpg", "collection": "hand",
           "metadata": {"n": n}} for n in range(100)),
        {"image": jpeg(4000), "key": HOSTILE, "collection": "hostile"},
        {"text": HOSTILE, "key": f"text {HOSTILE}", "collection": "hostile"},
    ]).wait(120)  # fmt: skip
    return live.client


@pytest.fixture(scope="module")
def address(client: Client) -> Iterator[str]:
    with served(client) as address:
        yield address


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Chrome]:
    with chrome(address) as browser:
        yield browser


@pytest.fixture(autouse=True)
def nothing_to_complain_about(browser: Chrome) -> Iterator[None]:
    """Of refused scripts, pictures that are missing and exceptions the browser's console tells."""
    yield
    told = [entry["message"] for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]
    assert not told


def active(browser: Chrome) -> WebElement:
    return browser.switch_to.active_element


def test_from_words_to_hits_to_an_item(browser: Chrome, address: str) -> None:
    browser.get(f"{address}/")
    assert "secret" not in browser.current_url
    assert active(browser).get_attribute("name") == "q"
    active(browser).send_keys("a guitar", Keys.ENTER)
    eventually(lambda: "q=a+guitar" in browser.current_url and len(seen(browser, HITS)) == 30)
    picture = seen(browser, f"{HITS} img")[0]
    eventually(lambda: browser.execute_script("return arguments[0].naturalWidth > 0", picture))
    picture.click()
    eventually(lambda: "/item?" in browser.current_url)
    assert seen(browser, "h1")


def test_further_hits_come_as_one_scrolls(browser: Chrome, address: str) -> None:
    browser.get(f"{address}/?q=a+guitar&collection=hand")

    def all_are_there() -> bool:
        browser.execute_script("scrollTo(0, document.body.scrollHeight)")
        return len(seen(browser, HITS)) == 100

    eventually(all_are_there)
    links = {each.get_attribute("href") for each in seen(browser, f"{HITS} .seen")}
    assert len(links) == 100
    assert not seen(browser, ".further")


def test_by_keys_alone(browser: Chrome, address: str) -> None:
    browser.get(f"{address}/?q=a+guitar&collection=hand")
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.ARROW_RIGHT)
    first = active(browser).get_attribute("href")
    active(browser).send_keys(Keys.ARROW_RIGHT)
    assert active(browser).get_attribute("href") != first
    active(browser).send_keys(Keys.ARROW_LEFT)
    assert active(browser).get_attribute("href") == first
    active(browser).send_keys(Keys.ARROW_DOWN)
    assert active(browser).get_attribute("href") not in (None, first)
    active(browser).send_keys("/")
    assert active(browser).get_attribute("name") == "q"
    active(browser).send_keys(Keys.TAB)
    body.send_keys(Keys.ARROW_RIGHT)
    active(browser).send_keys("+")
    eventually(lambda: "like=" in browser.current_url)
    assert len(seen(browser, ".chips li")) == 1
    weight = seen(browser, ".weight input")[0]
    weight.clear()
    weight.send_keys("-0.7", Keys.TAB)
    eventually(lambda: "-0.7" in browser.current_url)
    seen(browser, ".chips a")[0].send_keys(Keys.ENTER)
    eventually(lambda: "like=" not in browser.current_url)


def test_a_picture_that_is_chosen_is_searched_with(
    browser: Chrome, address: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.jpg").write_bytes(jpeg(3042, 320, 240))
    browser.get(f"{address}/?collection=hand")
    seen(browser, ".drop input")[0].send_keys(str(tmp_path / "mine.jpg"))
    eventually(lambda: "picture=" in browser.current_url and bool(seen(browser, HITS)))
    assert "collection=hand" in browser.current_url
    assert seen(browser, f"{HITS} .name")[0].text == "42.jpg"


def test_metadata_are_edited(browser: Chrome, address: str, client: Client) -> None:
    browser.get(f"{address}/item?collection=hand&key=hand%2F7.jpg")
    field = seen(browser, "textarea")[0]
    field.clear()
    field.send_keys('{"n": 7, "year": 2024}')
    seen(browser, "form[action^='item?'] button")[0].click()
    eventually(lambda: client.get("hand/7.jpg", collection="hand").metadata.get("year") == 2024)
    assert '"year": 2024' in (seen(browser, "textarea")[0].get_attribute("value") or "")


def test_what_an_item_says_is_never_run(browser: Chrome, address: str) -> None:
    for page in ("/?collection=hostile", "/?q=a&collection=hostile"):
        browser.get(f"{address}{page}")
        links = [each.get_attribute("href") for each in seen(browser, f"{HITS} .seen")]
        assert len(links) == 2
        for link in links:
            browser.get(link or "")
            assert browser.title != "taken"
            assert not seen(browser, "main script")


@pytest.mark.parametrize("width", [360, 768, 1280, 2560])
def test_at_every_width(browser: Chrome, address: str, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    try:
        for page in ("/?q=a+guitar", "/item?collection=hand&key=hand%2F7.jpg", "/state",
                     "/?collection=hostile"):  # fmt: skip
            browser.get(f"{address}{page}")
            across = "return document.scrollingElement.scrollWidth"
            assert browser.execute_script(across) <= width, page
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_state_changes_by_itself(browser: Chrome, address: str, client: Client) -> None:
    browser.get(f"{address}/state")
    assert not seen(browser, "th[scope=row]") or "fresh" not in browser.page_source
    client.submit_text("a text", key="a", collection="fresh").wait(60)
    eventually(lambda: ">fresh</a>" in browser.page_source)


def test_from_another_site_and_without_a_script(
    browser: Chrome, address: str, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.html"
    elsewhere.write_text(f'<a href="{address}/?q=a+guitar&collection=hand">a link</a>')
    browser.get(elsewhere.as_uri())
    seen(browser, "a")[0].click()
    eventually(lambda: len(seen(browser, HITS)) == 30)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(f"{address}/?q=a+guitar&collection=hand")
        browser.get(seen(browser, ".further a")[0].get_attribute("href") or "")
        assert seen(browser, "[name=q]")[0].get_attribute("value") == "a guitar"
        assert len(seen(browser, HITS)) == 30
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
