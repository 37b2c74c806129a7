"""The page in a real browser: a video goes in, probabilities, reasons and frames come out."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from tests.support.browser import DESKTOP, PHONE, console_errors, open_browser, overflow, requested
from tests.support.runs import CLASSES
from tests.support.server import Server
from tests.support.videos import write_video

pytest_plugins = ["tests.support.run_fixtures"]
pytestmark = [pytest.mark.browser, pytest.mark.slow]

# choosing a file sends it at once; here it is to be chosen only
UNHEARD = "document.getElementById('video').addEventListener('change', e => e.stopImmediatePropagation(), true)"
DROP = """
const [zone, input] = arguments, moved = new DataTransfer();
for (const file of input.files) moved.items.add(file);
zone.dispatchEvent(new DragEvent("drop", {dataTransfer: moved, bubbles: true, cancelable: true}));
"""


def find(driver: webdriver.Chrome, selector: str):
    return driver.find_element(By.CSS_SELECTOR, selector)


def texts(driver: webdriver.Chrome, selector: str) -> list[str]:
    return [element.text for element in driver.find_elements(By.CSS_SELECTOR, selector)]


def settle(driver: webdriver.Chrome) -> None:
    """Until an answer or a problem is shown."""
    shown = "return !document.getElementById('result').hidden || !document.getElementById('problem').hidden"
    WebDriverWait(driver, 120).until(lambda driver: driver.execute_script(shown))


@pytest.fixture
def clip(clips: Path) -> Path:
    return next((clips / "test").rglob("*.mp4"))


@pytest.mark.parametrize("browser", [DESKTOP, PHONE], indirect=True, ids=["desktop", "phone"])
def test_a_video_is_answered(browser: webdriver.Chrome, server: Server, clip: Path) -> None:
    browser.get(server.url)
    assert overflow(browser) <= 0
    find(browser, "#video").send_keys(str(clip))  # choosing sends
    settle(browser)
    told = server.predict(clip.read_bytes(), rationale="1").json()
    assert find(browser, "#answer").text == f"{told['predicted']}, {told['probability']:.1%}"
    assert texts(browser, ".chance span") == [entry["label"] for entry in told["probabilities"]]
    assert texts(browser, ".chance b") == [f"{entry['probability']:.1%}" for entry in told["probabilities"]]
    meters = browser.find_elements(By.CSS_SELECTOR, "meter")
    assert [float(meter.get_attribute("value")) for meter in meters] == pytest.approx(
        [entry["probability"] for entry in told["probabilities"]]
    )
    assert find(browser, "blockquote").get_attribute("textContent") == told["rationale"]
    images = browser.find_elements(By.CSS_SELECTOR, "#frames img")
    assert len(images) == 4
    assert all(browser.execute_script("return arguments[0].naturalWidth > 0", image) for image in images)
    assert browser.switch_to.active_element.get_attribute("id") == "answer", "a screen reader hears the answer"
    assert overflow(browser) <= 0
    assert console_errors(browser) == []
    assert {urlsplit(address).netloc for address in requested(browser)} == {urlsplit(server.url).netloc}
    assert server.left() == []


def test_what_goes_wrong_is_said_and_the_page_lives_on(
    browser: webdriver.Chrome, server: Server, clip: Path, tmp_path: Path
) -> None:
    hostile = tmp_path / "<img src=x onerror=document.title='owned'>.mp4"
    hostile.write_text("no video")
    large = tmp_path / "large.mp4"
    large.write_bytes(b"0" * 1_000_001)
    browser.get(server.url)
    title = browser.title
    for file, message in ((hostile, "is text, not a video"), (large, "takes at most 1 MB")):
        find(browser, "#video").send_keys(str(file))
        settle(browser)
        assert message in find(browser, "#problem").text and file.name in find(browser, "#problem").text
        assert not find(browser, "#result").is_displayed()
        browser.refresh()
    assert browser.title == title
    find(browser, "#why").click()
    find(browser, "#video").send_keys(str(clip))
    settle(browser)
    assert not find(browser, "#problem").is_displayed()
    assert find(browser, "#result").is_displayed() and not find(browser, "#reason").is_displayed()


def test_dropping_and_the_keyboard(browser: webdriver.Chrome, server: Server, clip: Path) -> None:
    browser.get(server.url)
    browser.execute_script(UNHEARD)
    find(browser, "#video").send_keys(str(clip))
    assert not find(browser, "#result").is_displayed()
    browser.execute_script(DROP, find(browser, "#drop"), find(browser, "#video"))
    settle(browser)
    first = find(browser, "#answer").text
    assert first.split(",")[0] in CLASSES
    browser.execute_script("document.getElementById('result').hidden = true; document.body.focus()")
    reached = []
    for _ in range(12):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.append(browser.switch_to.active_element.get_attribute("id"))
    assert {"video", "why", "go"} <= set(reached)
    find(browser, "#go").send_keys(Keys.ENTER)
    settle(browser)
    assert find(browser, "#answer").text == first


def test_it_is_dark_where_that_is_asked_for_and_works_without_scripts(server: Server) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    with open_browser(dark=True) as dark, open_browser(scripts=False) as bare:
        dark.get(server.url)
        assert max(int(part) for part in dark.execute_script(colour)[4:-1].split(",")) < 80
        bare.get(server.url)
        assert find(bare, "#form").get_attribute("action") == f"{server.url}/api/predict"
        assert console_errors(bare) == []


def test_a_long_film_is_sent_with_progress_and_can_be_cancelled(
    browser: webdriver.Chrome, server: Server, tmp_path: Path
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    film = write_video(tmp_path / "film.mp4", frames, fps=4)
    browser.get(server.url)
    # the browser's own brake: 2 kB a second
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 2_000}
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    find(browser, "#video").send_keys(str(film))
    WebDriverWait(browser, 20).until(lambda driver: find(driver, "#stop").is_displayed())
    assert not find(browser, "#go").is_enabled()
    find(browser, "#stop").click()
    assert find(browser, "#status").text == "cancelled" and find(browser, "#go").is_enabled()
    WebDriverWait(browser, 60).until(lambda _: server.client.get("/api/health").json()["in_work_or_waiting"] == 0)
    assert server.left() == []
