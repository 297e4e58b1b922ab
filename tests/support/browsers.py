"""A real Chromium, and pages that are served to it."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn
from selenium import webdriver
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from support.examples import required

from pgclip import Client
from pgclip_web import Access, create_app

TOKEN = "secret"


@contextlib.contextmanager
def served(client: Client) -> Iterator[str]:
    """The pages of a client; their address, without the token."""
    with contextlib.closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        app = create_app(client, access=Access(token=TOKEN))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        serving.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            serving.join()


@contextlib.contextmanager
def chrome(address: str) -> Iterator[Chrome]:
    """A browser, without a window, that has been let in."""
    options = webdriver.ChromeOptions()
    options.binary_location = required("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(required("chromedriver")))
    try:
        browser.get(f"{address}/?token={TOKEN}")
        yield browser
    finally:
        browser.quit()


def seen(browser: Chrome, selector: str) -> list[WebElement]:
    """What is on the page."""
    return browser.find_elements(By.CSS_SELECTOR, selector)


def by_name(browser: Chrome, name: str) -> WebElement:
    """A field, of those that are shown."""
    return next(each for each in seen(browser, f"[name={name}]") if each.is_displayed())


def click(browser: Chrome, selector: str) -> None:
    """The first of these, wherever the page has moved it."""
    browser.execute_script("arguments[0].click()", seen(browser, selector)[0])
