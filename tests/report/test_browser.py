"""The pages in a real browser: they open offline, ask for nothing, fit a phone, and are worked by the keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from tests.support import browser as support
from tests.support.browser import DESKTOP, PHONE, console_errors, open_browser, overflow, requested, resize
from tests.support.finished_runs import VIDEOS, write_grid
from tests.support.scenes import write_scene

from rbft.__main__ import main

pytestmark = pytest.mark.browser
browser = support.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("grid")
    for number in range(VIDEOS):
        write_scene(root / "data" / "test" / f"{number}.mp4", number, num_frames=4)
    runs = write_grid(root / "runs", str(root / "data"))
    assert main(["report", str(runs), "--to", str(root / "report.html")]) == 0
    return (root / "report.html").as_uri()


def shown(browser: webdriver.Chrome, selector: str) -> list:
    return [one for one in browser.find_elements(By.CSS_SELECTOR, selector) if one.is_displayed()]


@pytest.mark.parametrize("browser", [DESKTOP, PHONE], indirect=True, ids=["desktop", "phone"])
def test_it_opens_offline_without_an_error_and_fits(browser, page):
    browser.get(page)
    assert requested(browser) == [page]
    assert console_errors(browser) == []
    assert overflow(browser) == 0
    pictures = browser.find_elements(By.CSS_SELECTOR, ".card img")
    assert len(pictures) == 24
    loaded = browser.execute_script("return [...document.images].every((one) => one.complete && one.naturalWidth > 0)")
    assert loaded, "the page's policy lets its own pictures through"


def test_no_other_script_runs(browser, page, tmp_path):
    text = Path(page.removeprefix("file://")).read_text()
    other = tmp_path / "other.html"
    other.write_text(text.replace("</body>", "<script>document.title = 'broken'</script></body>"))
    browser.get(other.as_uri())
    assert browser.title == "tiny"
    assert any("Content Security Policy" in message for message in console_errors(browser))
    assert len(shown(browser, ".panel")) == 1, "its own does"


def test_filters_narrow_the_gallery_and_can_be_taken_back(browser, page):
    browser.get(page)
    by_class, by_wrong = (Select(browser.find_element(By.CSS_SELECTOR, name)) for name in (".by-class", ".by-wrong"))
    output = browser.find_element(By.CSS_SELECTOR, ".shown")
    assert len(shown(browser, ".card")) == 24
    by_class.select_by_visible_text("push & pull")
    assert {one.get_attribute("data-label") for one in shown(browser, ".card")} == {"push & pull"}
    assert output.text == "8 shown" and len(shown(browser, ".card")) == 8
    by_wrong.select_by_visible_text("rbft")
    wrong = shown(browser, ".card")
    assert 0 < len(wrong) < 8
    assert all("2" in str(one.get_attribute("data-wrong")).split() for one in wrong)
    browser.find_element(By.CSS_SELECTOR, ".reset").click()
    assert (len(shown(browser, ".card")), output.text) == (24, "24 shown")
    browser.find_element(By.CSS_SELECTOR, ".by-difference").click()
    differ = shown(browser, ".card")
    assert 0 < len(differ) < 24 and {one.get_attribute("data-differ") for one in differ} == {"yes"}


def test_one_method_is_shown_at_a_time(browser, page):
    browser.get(page)
    choice = Select(browser.find_element(By.ID, "panel-choice"))
    assert [one.get_attribute("aria-label") for one in shown(browser, ".panel")] == ["zero_shot, 8 shots"]
    choice.select_by_visible_text("rbft, 8 shots")
    assert [one.get_attribute("aria-label") for one in shown(browser, ".panel")] == ["rbft, 8 shots"]


def test_the_keyboard_reaches_and_works_every_control(browser, page):
    browser.get(page)
    reached: dict[str, str] = {}
    for _ in range(120):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        current = browser.switch_to.active_element
        name = current.get_attribute("id") or current.get_attribute("class")
        outline = "const s = getComputedStyle(arguments[0]); return s.outlineStyle + ' ' + s.outlineWidth"
        reached.setdefault(name, browser.execute_script(outline, current))
        if name == "by-class":
            current.send_keys("p")  # a select goes to the entry that begins so
        if name == "reset":
            break
    assert {"panel-choice", "by-class", "by-wrong", "by-difference", "reset"} <= reached.keys()
    assert set(reached.values()) == {"solid 3px"}, "where it stands is seen"
    assert len(shown(browser, ".card")) == 8
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert len(shown(browser, ".card")) == 24


def test_without_scripts_everything_is_there_and_no_control_is_dead(page):
    with open_browser(PHONE, scripts=False) as browser:
        browser.get(page)
        assert len(shown(browser, ".panel")) == 7
        assert len(shown(browser, ".card")) == 24
        assert shown(browser, "select, button, input") == []


def test_it_is_readable_in_the_dark(page):
    with open_browser(DESKTOP, dark=True) as browser:
        browser.get(page)
        script = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        ink, paper = (list(map(int, colour[4:-1].split(","))) for colour in browser.execute_script(script))
        assert min(ink) > 200 and max(paper) < 60
        resize(browser, PHONE)
        assert overflow(browser) == 0
