"""An audit says of a set with known faults what is wrong with it, on the terminal, as JSON and as a page."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.support.planted import PROMPTS, Planted, plant

from rbft.__main__ import main
from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.rationales import statistics
from rbft.rationales.audit import audit
from rbft.rationales.import_export import RationaleFile, read_rationale_file, write_rationale_file
from rbft.rationales.statistics import Text
from rbft.rationales.store import Rationale
from rbft.report.audit import write_audit_page

EVIL = "<script>alert(1)</script>"


def run(*args: str | Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["rationales", *map(str, args)])
    return code, " ".join(out.getvalue().split()), err.getvalue()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "clips"


@pytest.fixture(scope="module")
def planted(clips: Path) -> Planted:
    return plant(clips, "unions", "plain", 10, 4)


def test_every_fault_is_counted(planted):
    rationales, book = planted.material.rationales, planted.material.book
    question = book.blind_prompt().question
    file = RationaleFile(rationales, tuple(question for _ in rationales), True, book)
    found = audit("set", file, planted.material.judge)
    filled = len(rationales) - 4
    assert (found.overall["rationales"], found.overall["empty"]) == (40, 4)
    assert found.overall["fails_leak"] == 4 / filled
    assert found.overall["fails_truncation"] == found.overall["no_conclusion"] == 4 / filled
    assert found.overall["fails_label_parse"] == 4 / filled
    assert found.overall["prompt_names_label"] == 0
    assert 4 / filled <= found.overall["fails_contradiction"] < 11 / filled
    assert 3 / filled <= found.overall["fails_grounding"]
    assert found.overall["nats_over_other_videos"] > 1
    assert found.not_measured == {}
    assert {example.check for example in found.examples} >= {"leak", "contradiction", "truncation"}
    wrong = next(example for example in found.examples if example.check == "contradiction")
    assert wrong.remark.startswith("argues for ")
    assert sum(figures["rationales"] for figures in found.per_class.values()) == 40
    json.dumps(found.to_json())


def small(*texts: tuple[str, str], question: str | None = None) -> RationaleFile:
    made = tuple(
        Rationale(f"v{i}", 0, f"v{i}.mp4", label, "", "blind", "me", text, None, text, False)
        for i, (label, text) in enumerate(texts)
    )
    book = PromptBook(Prompts(), LabelSet(("fall", "sit")))
    questions = [None if question is None else question.format(label=r.label) for r in made]
    return RationaleFile(made, tuple(questions), False, book)


def test_a_prompt_that_names_its_own_class_more_often_than_others_is_a_leak():
    texts = [("fall", "He falls."), ("sit", "She sits.")]
    symmetric = audit("x", small(*texts, question="fall or sit?"))
    hinted = audit("x", small(*texts, question="fall or sit? It is {label}."))
    assert (symmetric.overall["prompt_names_label"], hinted.overall["prompt_names_label"]) == (0, 1)
    assert "leaks in prompts" in audit("x", small(*texts)).not_measured


def test_what_could_not_be_measured_is_said():
    found = audit("x", small(("fall", "He falls."), ("sit", "")))
    assert set(found.not_measured) == {"agreement", "reconstruction", "contradiction", "grounding", "leaks in prompts"}
    assert found.overall["fails_contradiction"] is None
    assert audit("x", small(("fall", ""), ("sit", ""))).not_measured == {"texts": "every rationale is empty"}


def test_the_classifier_is_reported_with_its_floor():
    rng = np.random.default_rng(0)
    said = {"fall": "he stands then lies", "sit": "he lies then stands"}
    labels = ["fall"] * 30 + ["sit"] * 10
    texts = [(label, f"{said[label]} {rng.integers(1000)}") for label in labels]
    found = audit("x", small(*texts))
    assert found.overall["reconstructed"] == 1
    assert found.overall["reconstruction_auroc"] == 1
    assert found.overall["majority"] == 0.75


def texts(*said: str) -> list[Text]:
    return [Text.of(f"v{i}", "fall", text) for i, text in enumerate(said)]


def test_statistics_of_texts():
    some = texts("The man falls.", "the man falls", "the man sits down there", "he sits")
    assert statistics.lengths(some) == pytest.approx(
        {"mean": 3.25, "min": 2, "p10": 2.3, "median": 3, "p90": 4.4, "max": 5}
    )
    assert statistics.distinct(some) == pytest.approx({"1": 7 / 13, "2": 6 / 9, "3": 4 / 5, "4": 1.0})
    assert statistics.openings(some, 1) == [("the man falls", 0.5)]
    assert statistics.duplicates(some) == (0.5, [("the man falls", 2)])
    again = [Text.of("same", "fall", "x y"), Text.of("same", "fall", "x y")]
    assert statistics.duplicates(again) == (0.0, []), "two samples of one video are no copy"
    assert statistics.distinct(texts("x"))["2"] is None


def test_the_command_over_our_own_file(planted, clips, tmp_path):
    path = tmp_path / "rationales.jsonl"
    write_rationale_file(path, planted.material.rationales)
    config = {"model": {"prompts": dataclasses.asdict(PROMPTS)}, "data": {"num_frames": 8}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    page, figures = tmp_path / "audit.html", tmp_path / "audit.json"
    code, out, err = run("audit", path, "--model", "builtin/tiny", "--videos", clips, "--json", figures, "--html", page)
    assert (code, err) == (0, "")
    assert "40 rationales of 4 classes, 4 empty" in out
    assert "leak 11.1% show that the answer was given" in out
    assert "label given 0.0%" in out, "the prompts of the stage's own config are used"
    assert json.loads(figures.read_text())["overall"]["fails_leak"] == 4 / 36
    assert "argues for" in page.read_text()


def test_the_page_asks_nothing_of_the_network_and_takes_words_as_text(tmp_path):
    file = small(("fall", f"{EVIL} is the ground truth."), ("sit", f"{EVIL} is the ground truth."))
    write_audit_page(tmp_path / "page.html", audit(EVIL, file))
    html = (tmp_path / "page.html").read_text()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 3
    assert not re.search(r"url\(|https?://|@import|<link|<iframe", html)
    assert "default-src 'none'" in html


@pytest.mark.slow
def test_ten_thousand_rows_take_seconds(tmp_path):
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(2000)]
    rows = []
    for number in range(10_000):
        label = f"class {number % 20}"
        text = " ".join(rng.choice(words, rng.integers(60, 140)))
        turns = [
            {"role": "user", "content": f"<video>Describe the video. It shows {label}."},
            {"role": "assistant", "content": f"{text}.\nClassification: {label}"},
        ]
        rows.append({"messages": turns, "videos": [f"{number}.mp4"]})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    before = time.process_time()
    code, out, err = run("audit", tmp_path / "rows.json", "--json", tmp_path / "figures.json")
    taken = time.process_time() - before
    assert (code, err) == (0, "") and "10000 rationales of 20 classes" in out
    print(f"{taken:.1f} s of work")
    assert taken < 20


def test_wrong_use_is_told(tmp_path):
    assert run("audit", tmp_path / "gone.jsonl")[0] == 1
    code, _, err = run("audit", tmp_path / "x.json", "--videos", tmp_path)
    assert code == 1, err
    code, _, err = run("auditt", tmp_path / "x.json")
    assert (code, "invalid choice" in err) == (2, True)
    code, _, err = run("audit", tmp_path / "x.json", "--jsn", "y")
    assert (code, "unknown argument '--jsn'" in err) == (2, True)
    (tmp_path / "rationales.jsonl").write_text("{}\n")
    (tmp_path / "config.yaml").write_text("model: {prompts: {sytem: x}}")
    code, _, err = run("audit", tmp_path / "rationales.jsonl")
    assert (code, "model.prompts: expected the keys" in err) == (2, True)


def test_a_body_that_names_its_own_class_is_counted(tmp_path: Path) -> None:
    talk = {"from": "human", "value": "<video>\nWhich?"}
    bodies = {"fall": ["This is a fall.", "He goes down."], "rest": ["He sits, no fall.", "He rests."]}
    rows = [
        {
            "id": f"{label}{i}",
            "video": "x.mp4",
            "conversations": [talk, {"from": "gpt", "value": f"{body}\nClassification: {label}"}],
        }
        for label, found in bodies.items()
        for i, body in enumerate(found)
    ]
    path = tmp_path / "stage1.json"
    path.write_text(json.dumps(rows))
    found = audit("stage1", read_rationale_file(path))
    assert found.overall["names_label"] == 0.5
    assert {name: figures["names_label"] for name, figures in found.per_class.items()} == {"fall": 0.5, "rest": 0.5}
