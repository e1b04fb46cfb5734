"""A real browser (headless Chromium with Debian's driver) and a real server process, for tests of the page as a person uses it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1100,1000",
)  # fmt: skip


def programs() -> tuple[str, str]:
    """Returns the browser and its driver; skips the test where one is missing."""
    pytest.importorskip("gradio")
    pytest.importorskip("selenium")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("Chromium and its driver are not on this machine (apt install chromium-driver)")
    return browser, driver


@contextlib.contextmanager
def served(log: Path, *options: str, **environment: str) -> Iterator[str]:
    """Runs `glmkit serve`; yields its address."""
    command = [sys.executable, "-m", "glmkit", "serve", "--port", "0", *options]
    with log.open("w") as written:
        process = subprocess.Popen(command, stderr=written, env={**os.environ, **environment})
        try:
            for _ in range(1200):
                if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
                    yield found[0]
                    return
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            raise AssertionError(f"the server did not start: {log.read_text()}")
        finally:
            process.terminate()
            # uvicorn ends by the signal that it was sent, when all is finished.
            assert process.wait(40) in (0, -signal.SIGTERM), log.read_text()


class Person:
    """Somebody at the browser.

    Attributes:
        driver: Selenium's.
    """

    def __init__(self, folder: Path, language: str):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        browser, driver = programs()
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in (*FLAGS, f"--user-data-dir={folder}"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        """Waits for an element that can be seen."""
        return self.wait(lambda: next((e for e in self.all(selector) if e.is_displayed()), None), selector)  # fmt: skip

    def wait(self, true: Callable[[], Any], what: str = "", seconds: float = 60.0) -> Any:
        """Waits until something is so; returns it."""
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(WebDriverException):
                if found := true():
                    return found
            time.sleep(0.03)
        raise AssertionError(f"did not come: {what}\n{self.driver.find_element('css selector', 'body').text[:2000]}")  # fmt: skip

    def tab(self, *names: str) -> None:
        """Opens a tab, and one in it."""
        for name in names:
            self.one(f"#tab-{name}-button").click()
            self.one(f"#tab-{name}")

    def type(self, place: str, text: str) -> Any:
        """Types into a field that is emptied first; returns it."""
        from selenium.webdriver.common.keys import Keys

        box = self.one(f"#{place} textarea, #{place} input")
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(Keys.DELETE)
        if text:
            box.send_keys(text)
        return box

    def shown(self, place: str) -> str:
        """Waits for a result (a new one after `forget`); returns its text."""
        return self.one(f"#{place}-result .card").text

    def forget(self, place: str) -> None:
        """Takes a result away, so that the next one is new."""
        self.driver.execute_script(f"document.querySelector('#{place}-result .card')?.remove()")

    def run(self, place: str) -> str:
        """Presses a tab's button; returns what is shown."""
        self.forget(place)
        self.one(f"#{place}-run").click()
        return self.shown(place)

    def hosts(self) -> set[str]:
        """Returns the hosts that were asked for anything since the last time, data in the page itself aside."""
        found = set()
        for line in self.driver.get_log("performance"):
            message = json.loads(line["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = urlsplit(message["params"]["request"]["url"])
                if url.scheme in ("http", "https", "ws", "wss"):
                    found.add(url.netloc)
        return found
