"""Pages for everybody: what axe-core finds on full ones, with hostile keys, light and dark."""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

import pytest
from selenium.webdriver import Chrome
from support.browsers import chrome, click, seen, served
from support.pictures import jpeg
from support.processes import Live, eventually

from pgclip import Client, ItemFailed

HOSTILE = "\"><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
LONG = "w" * 1000
EVERY = urlencode({"collection": HOSTILE})
AXE = files("axe_core_python").joinpath("axe.min.js").read_text()
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]


@pytest.fixture(scope="module")
def client(live: Live) -> Client:
    """With a set, judgements, duplicates and a failure of hostile names, and long ones."""
    client = live.client
    client.submit_many([
        *({"image": jpeg(9000 + n // 2, 160, 120), "key": f"{n} {HOSTILE}", "collection": HOSTILE,
           "metadata": {HOSTILE: HOSTILE, "n": n // 3}} for n in range(20)),
        {"image": jpeg(9100), "key": LONG, "collection": HOSTILE, "metadata": {LONG: LONG}},
        {"text": f"{HOSTILE} {LONG}", "key": f"text {HOSTILE}", "collection": HOSTILE},
    ]).wait(120)  # fmt: skip
    with pytest.raises(ItemFailed):
        client.submit_image(b"none", key=f"none {HOSTILE}", collection=HOSTILE).wait(60)
    client.define_label_set(HOSTILE, [HOSTILE, LONG[:200]], exclusive=False, background="common",
                            threshold=0.0, collections=[HOSTILE])  # fmt: skip
    eventually(lambda: bool(client.review(HOSTILE, 1, by="nobody")))
    for n in range(20):
        client.judge(HOSTILE, HOSTILE, f"{n} {HOSTILE}", n % 2 == 0, collection=HOSTILE)
    client.promise(HOSTILE, HOSTILE, precision=0.9)
    return client


@pytest.fixture(scope="module")
def address(client: Client) -> Iterator[str]:
    with served(client) as address:
        yield address


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Chrome]:
    with chrome(address) as browser:
        yield browser


def complaints(browser: Chrome) -> list[str]:
    """What axe-core finds on the page, and where."""
    browser.execute_script(AXE)
    found: dict[str, Any] = browser.execute_async_script(
        "const [values, done] = arguments;"
        "axe.run(document, {runOnly: {type: 'tag', values}}).then(done)",
        WCAG,
    )
    return [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary']}"
        for each in found["violations"]
        for node in each["nodes"][:3]
    ]


PAGES = {
    "search": f"/?q=a+guitar&{EVERY}&{urlencode({'like': json.dumps([0.5, HOSTILE, LONG])})}",
    "items": f"/?{EVERY}",
    "item": f"/item?{urlencode({'collection': HOSTILE, 'key': f'0 {HOSTILE}'})}",
    "failed": f"/item?{urlencode({'collection': HOSTILE, 'key': f'none {HOSTILE}'})}",
    "labels": "/labels",
    "set": f"/labels?{urlencode({'set': HOSTILE})}",
    "review": f"/review?{urlencode({'set': HOSTILE, 'by': HOSTILE})}",
    "duplicates": f"/duplicates?{EVERY}&min_score=0.95",
    "models": "/models",
    "add": f"/add?{EVERY}",
    "state": "/state",
    "wrong": "/labels?set=nothing",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page(browser: Chrome, address: str, page: str, scheme: str) -> None:
    wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
    browser.get(f"{address}{PAGES[page]}")
    if page == "search":
        click(browser, ".facets summary")
        eventually(lambda: bool(seen(browser, ".facet")))
    elif page == "review":
        click(browser, "#begin button")
        eventually(lambda: bool(seen(browser, ".draw")))
    elif page == "duplicates":
        click(browser, "main form button")
        eventually(lambda: bool(seen(browser, ".group, main [role=alert]")))
        assert [each.text for each in seen(browser, "main [role=alert]")] == []
    elif page == "set":
        for each in seen(browser, "details"):
            browser.execute_script("arguments[0].open = true", each)
    assert browser.title != "taken"
    assert complaints(browser) == []


@pytest.mark.parametrize("what", ["teach", "evaluate"])
def test_a_report(browser: Chrome, address: str, what: str) -> None:
    browser.get(f"{address}{PAGES['set']}")
    click(browser, f"form[action={what}] button")
    eventually(lambda: f"/{what}" in browser.current_url and bool(seen(browser, "main table")))
    assert browser.title != "taken"
    assert complaints(browser) == []


@pytest.mark.parametrize("width", [360, 2560])
@pytest.mark.parametrize("page", PAGES)
def test_at_every_width(browser: Chrome, address: str, page: str, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get(f"{address}{PAGES[page]}")
        across = "return document.scrollingElement.scrollWidth"
        assert browser.execute_script(across) <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
