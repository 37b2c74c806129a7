"""The page of a run is one file that asks nothing of the network and takes every name as text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.support.videos import write_video

from rbft.data.datamodule import VideoDataModule
from rbft.data.formats import ClassFolders
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.evaluation import metrics
from rbft.evaluation.predictions import Prediction
from rbft.experiment import Experiment, Stage
from rbft.rationales.audit import Audit, audit_stored
from rbft.rationales.checks.contradiction import Contradiction
from rbft.rationales.checks.grounding import Grounding
from rbft.rationales.store import Rationale
from rbft.report.run_page import write_page

EVIL = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """Every tag with its attributes, and the visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> VideoDataModule:
    root = tmp_path_factory.mktemp("page")
    for label in ("push", "push & pull"):
        (root / label).mkdir()
        for number in range(3):
            write_video(root / label / f"{number}.mp4", num_frames=6 + number + 3 * len(label), size=(48, 64))
    write_video(root / "push" / '"><img src=x>.mp4', num_frames=30, size=(48, 64))
    return VideoDataModule(str(root), ClassFolders(), num_frames=4, cache_clips=False)


def predictions(data: VideoDataModule) -> list[Prediction]:
    """Everything is called the first class; one video cannot be read."""
    names = data.labels.names
    made = [
        Prediction(
            r.id,
            r.path,
            r.label,
            names[0],
            (0.9 - 0.01 * i, 0.1 + 0.01 * i),
            (-1.0, -3.0),
            calibrated=(0.625 - 0.01 * i, 0.375 + 0.01 * i),
        )
        for i, r in enumerate(data.records)
    ]
    return [*made, Prediction("gone", "gone.mp4", names[1], None, (), ())]


def page(
    tmp_path: Path, data: VideoDataModule, rationales: list[Rationale], audit: Audit | None = None, **changes
) -> tuple[str, Reader]:
    stages = (Stage("write", "write", {}, None, None), Stage("test", "test", {}, None, None))
    run_dir = tmp_path / EVIL.replace("/", "")
    experiment = Experiment(EVIL, "rbft", "rbft", stages, None, run_dir, (), (), False, False)
    found = metrics.test_metrics(predictions(data), data.labels, ["push"])
    figures = {**found, **changes}
    write_page(tmp_path / "report.html", experiment, data, figures, predictions(data), rationales, audit=audit)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(html)
    return html, reader


def rationale(data: VideoDataModule, number: int, **changes) -> Rationale:
    record = data.records[number]
    text = f"Hands move. {EVIL} {number}"
    values = {"kept": True, "reason": ""} | changes
    return Rationale(record.id, 0, record.path, record.label, "00", "blind", "me", text, None, text, False, **values)


def test_the_page_shows_the_figures_of_the_run(tmp_path, data):
    _, reader = page(tmp_path, data, [rationale(data, 0)], **{"zero-shot/accuracy": 0.25})
    right = sum(r.label == data.labels.names[0] for r in data.records)
    text = reader.text
    assert f"{right / 8:.1%} accuracy on 8 test videos" in text
    assert "1 unreadable videos count as wrong" in text
    assert "zero-shot 25.0%" in text
    assert "chance 50.0%" in text
    assert f"{8 - right} of 8 test videos are wrong" in text
    assert "are shown, with calibrated probabilities" in text, "as rbft predict prints them"
    first = next(i for i, record in enumerate(data.records) if record.label != data.labels.names[0])
    assert f"{data.labels.names[0]} {0.625 - 0.01 * first:.1%}" in text
    assert "Hands move." in text
    assert "write → test" in text


def test_the_page_asks_nothing_of_the_network(tmp_path, data):
    html, reader = page(tmp_path, data, [rationale(data, i) for i in range(3)])
    for tag, attributes in reader.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                assert str(value).startswith("data:image/png;base64,"), (tag, name, str(value)[:60])
    assert "@import" not in html
    assert not re.search(r"url\(|https?://|//cdn", html)
    policy = next(a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_names_and_words_are_text(tmp_path, data):
    html, reader = page(tmp_path, data, [rationale(data, 0), rationale(data, 3)])
    assert "<script" not in html
    assert EVIL in reader.text
    assert "push & pull" in reader.text
    assert '"><img src=x>.mp4' in reader.text
    assert all(str(a.get("src", "data:")).startswith("data:") for tag, a in reader.tags if tag == "img")


def test_errors_are_shown_with_their_frames_the_most_confident_first(tmp_path, data):
    _, reader = page(tmp_path, data, [])
    wrong = [p for p in predictions(data) if p.predicted not in (None, p.label)]
    alts = [str(a["alt"]) for tag, a in reader.tags if tag == "img" and str(a.get("alt")).startswith("frames of")]
    assert alts == [f"frames of {p.video}" for p in sorted(wrong, key=lambda p: -max(p.probabilities))]


def test_the_audit_of_the_rationales_is_part_of_the_page_by_the_scores_they_have(tmp_path, data):
    texts = ["a hand moves up .", "a hand moves up .", "it goes in circles . " * 9, "it is a pull ."]
    book, checks = PromptBook(Prompts(), data.labels), [Contradiction(), Grounding()]
    written = [
        replace(rationale(data, n), text=text, written=text, scores={"contradiction": 0.2 if n == 1 else 0.9})
        for n, text in enumerate(texts)
    ]
    found = audit_stored("write", written, book, checks)
    html, reader = page(tmp_path, data, written, audit=found)
    text = reader.text
    assert "What the rationales are worth" in text
    assert "4 rationales of 2 classes, 0 empty" in text
    assert "contradict argue for another class, as the model reads them 25.0%" in text
    assert "word for word as for another video 50.0%" in text
    assert "Not measured: grounding: the stage that wrote them has no such check (model.checks)" in text
    assert "The worst by each check" in text and "contradiction 0.20" in text and "repetition" in text
    assert html.count("<html") == html.count("<style") == 1, "a part, not a page in a page"
    assert "What the rationales are worth" not in page(tmp_path, data, [])[1].text


def test_dropped_rationales_say_why(tmp_path, data):
    _, reader = page(tmp_path, data, [rationale(data, 0, kept=False, reason="names another class")])
    assert "dropped: names another class" in reader.text


def test_figures_that_are_not_defined_say_so(tmp_path, data):
    _, reader = page(tmp_path, data, [], **{"test/auroc": None, "test/num_unreadable": 0})
    assert "not defined" in reader.text
    assert "unreadable" not in reader.text
    assert "Rationales the model wrote" not in reader.text
