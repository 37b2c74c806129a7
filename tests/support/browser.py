"""A real headless browser for pages; a test module takes the fixture by `browser = support.browser`."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

DESKTOP, PHONE = (1280, 900), (390, 844)
"""Window sizes in CSS pixels, width by height."""

Opener = Callable[..., AbstractContextManager[webdriver.Chrome]]


def _programs() -> tuple[str, str]:
    """Paths of the browser and its driver; skips the test where either is missing."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip(f"a real browser: no {'chromium' if browser is None else 'chromedriver'} on the PATH")
    return browser, driver


@contextmanager
def open_browser(
    size: tuple[int, int] = DESKTOP, *, dark: bool = False, scripts: bool = True
) -> Iterator[webdriver.Chrome]:
    """Start a browser and end it again.

    Args:
        size: Of the page in CSS pixels; below 500 wide, which no window can be, by the metrics of a phone.
        dark: Whether it asks pages for dark colours.
        scripts: Whether it runs scripts.
    """
    browser, driver = _programs()
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    started = webdriver.Chrome(options, Service(driver))
    try:
        started.set_page_load_timeout(60)
        resize(started, size)
        if dark:
            feature = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
            started.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
        yield started
    finally:
        started.quit()


@pytest.fixture
def browser(request: pytest.FixtureRequest) -> Iterator[webdriver.Chrome]:
    """A started browser; `@pytest.mark.parametrize("browser", [PHONE], indirect=True)` gives another size."""
    with open_browser(getattr(request, "param", DESKTOP)) as started:
        yield started


def resize(driver: webdriver.Chrome, size: tuple[int, int]) -> None:
    """Give the page another size in CSS pixels, width by height."""
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def console_errors(driver: webdriver.Chrome) -> list[str]:
    """Errors and warnings on the browser's console since the last call: scripts, policies, files not found."""
    return [row["message"] for row in driver.get_log("browser") if row["level"] in ("SEVERE", "WARNING")]


def requested(driver: webdriver.Chrome) -> list[str]:
    """Addresses asked for since the last call, the page itself among them; data: addresses are none."""
    events: list[dict[str, Any]] = [json.loads(row["message"])["message"] for row in driver.get_log("performance")]
    found = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [address for address in found if not address.startswith("data:")]


def overflow(driver: webdriver.Chrome) -> int:
    """CSS pixels by which the page is wider than its window."""
    width = "document.documentElement"
    return int(driver.execute_script(f"return {width}.scrollWidth - {width}.clientWidth"))


def screenshot(driver: webdriver.Chrome, path: Path) -> Path:
    """Save the whole page, below the window's edge too, as a PNG file."""
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
    path.write_bytes(base64.b64decode(taken["data"]))
    return path
