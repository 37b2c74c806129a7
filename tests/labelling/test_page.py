"""The page in a real browser, by the keyboard alone."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from tests.support.browser import DESKTOP, PHONE, console_errors, overflow, requested
from tests.support.browser import browser as browser
from tests.support.runs import Run
from tests.support.server import Server, served
from tests.support.videos import write_video

pytest_plugins = ["tests.support.run_fixtures"]
pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = "<img src=x onerror=document.title='owned'>.mp4"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "clips"
    root.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.mp4", "b.mp4", "c.avi", HOSTILE):
        coarse = rng.integers(0, 256, (8, 4, 4, 3), np.uint8)
        write_video(root / name, coarse.repeat(16, 1).repeat(16, 2), fps=4)
    (root / "d.mp4").write_text("no video")
    return root


@pytest.fixture
def page(folder: Path, browser: webdriver.Chrome) -> Iterator[Server]:
    with served("label", str(folder), "--classes", "fall,sit") as server:
        browser.get(server.url)
        WebDriverWait(browser, 20).until(lambda _: text(browser, "name"))
        yield server


def text(driver: webdriver.Chrome, name: str) -> str:
    return driver.find_element(By.ID, name).text


def press(driver: webdriver.Chrome, *keys: str) -> None:
    ActionChains(driver).send_keys(*keys).perform()


def until(driver: webdriver.Chrome, name: str, words: str) -> None:
    WebDriverWait(driver, 20).until(lambda _: words in text(driver, name), f"{name}: {text(driver, name)!r}")


def labels(folder: Path) -> dict[str, str]:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
        return {row["path"]: row["label"] for row in csv.DictReader(stream)}


@pytest.mark.parametrize("browser", [DESKTOP, PHONE], indirect=True, ids=["desktop", "phone"])
def test_clips_get_their_classes_by_the_keyboard(browser: webdriver.Chrome, page: Server, folder: Path) -> None:
    assert text(browser, "name") == HOSTILE and "owned" not in browser.title
    press(browser, "1")
    until(browser, "name", "a.mp4")
    assert labels(folder) == {HOSTILE: "fall"}
    until(browser, "status", f"{HOSTILE}: fall, saved")
    press(browser, "c")
    press(browser, "stand", Keys.ENTER)
    until(browser, "status", "stand is a new class; Enter again adds it")
    assert labels(folder) == {HOSTILE: "fall"}, "a slip of the hand adds no class"
    press(browser, Keys.ENTER)
    until(browser, "name", "b.mp4")
    assert labels(folder)["a.mp4"] == "stand"
    press(browser, "c")
    press(browser, "si", Keys.ENTER)  # the only class with these letters
    until(browser, "name", "c.avi")
    assert labels(folder)["b.mp4"] == "sit"
    press(browser, "u")
    until(browser, "name", "b.mp4")
    assert "b.mp4" not in labels(folder), "the last label is taken back"
    press(browser, Keys.ARROW_LEFT)
    until(browser, "name", "a.mp4: stand")
    press(browser, "x")
    until(browser, "status", "label taken off")
    assert labels(folder) == {HOSTILE: "fall"}
    assert "1 of 5 clips have a label" in text(browser, "progress")
    assert overflow(browser) <= 0
    assert console_errors(browser) == []
    assert {urlsplit(address).netloc for address in requested(browser)} == {urlsplit(page.url).netloc}


def test_clips_are_played_or_shown_as_frames(browser: webdriver.Chrome, page: Server) -> None:
    WebDriverWait(browser, 20).until(
        lambda d: d.execute_script("return document.getElementById('film').currentTime > 0")
    )
    press(browser, " ")
    assert browser.execute_script("return document.getElementById('film').paused")
    for name in ("a.mp4", "b.mp4", "c.avi"):
        press(browser, Keys.ARROW_RIGHT)
        until(browser, "name", name)
    until(browser, "cannot", "cannot play the clip; these are frames of it")
    shown = "return [...document.querySelectorAll('#frames img')].filter(i => i.naturalWidth > 0).length"
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(shown) == 8)
    press(browser, Keys.ARROW_RIGHT)
    until(browser, "cannot", "This clip cannot be shown: is text, not a video")
    press(browser, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    until(browser, "name", "b.mp4")
    assert browser.find_element(By.ID, "film").is_displayed()
    press(browser, "f")
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(shown) == 8)
    assert not browser.find_element(By.ID, "film").is_displayed()


def test_what_is_not_saved_is_said(browser: webdriver.Chrome, page: Server, folder: Path) -> None:
    page.process.kill()
    page.process.wait()
    press(browser, "1")
    until(browser, "problem", "Not saved")
    assert text(browser, "name") == HOSTILE, "it does not go on as if it were"
    assert not (folder / "labels.csv").exists()


def test_the_run_speaks_and_the_order_is_its(
    browser: webdriver.Chrome, finished: Run, folder: Path, tmp_path: Path
) -> None:
    order = tmp_path / "next.csv"
    order.write_text("path\nb.mp4\na.mp4\n")
    with served("label", str(folder), "--run", str(finished.folder), "--order", str(order)) as server:
        browser.get(server.url)
        until(browser, "place", "1 of 5, suggested 1 of 2")
        assert text(browser, "name") == "b.mp4"
        meters = "return [...document.querySelectorAll('#classes meter')].map(m => m.value)"
        WebDriverWait(browser, 60).until(lambda driver: len(driver.execute_script(meters)) == 2)
        told = {e["label"]: e["probability"] for e in server.client.get("/api/answer/2").json()["probabilities"]}
        names = [entry["name"] for entry in server.client.get("/api/state").json()["classes"]]
        assert browser.execute_script(meters) == pytest.approx([told[name] for name in names])
        press(browser, "e")
        WebDriverWait(browser, 60).until(lambda driver: driver.find_element(By.ID, "reason").is_displayed())
        press(browser, "2")
        until(browser, "name", "a.mp4")
        press(browser, "2")
        until(browser, "place", "3 of 5")
        time.sleep(0.2)
        assert labels(folder) == {"b.mp4": names[1], "a.mp4": names[1]}
