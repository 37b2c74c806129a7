"""Rationales hinted to another class: written beside all others, kept apart from them, and learned from in pairs."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.runs import Run, fit, rows, run_experiment, signal_once, write_experiment

from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.objectives.preference import PreferenceObjective
from rbft.rationales.store import Rationale
from rbft.rationales.writer import _rationale as plain

pytest_plugins = ["tests.support.run_fixtures"]

HINTED = {
    "methods": {"hinted": ["write", "preference", "test"]},
    "model": {"writer": {"contrast": True, "max_new_tokens": 6}},
    "stages": {
        "preference": {"trainer": {"max_epochs": 1}, "model": {"objective": {"init_args": {"between": "hints"}}}},
    },
}


def test_another_class_is_named_and_the_same_one_each_time():
    book = PromptBook(Prompts(), LabelSet(("a", "d", "f")))
    named = {video: book.hinted_to(book.contrast_prompt(video, "d"), "d") for video in map(str, range(20))}
    assert set(named.values()) == {"a", "f"}, "all others come up, and never its own"
    assert named == {video: book.hinted_to(book.contrast_prompt(video, "d"), "d") for video in named}
    assert book.hinted_to(book.writing_prompt("d", hinted=True), "d") == book.hinted_to(book.blind_prompt(), "d") == ""


@pytest.fixture
def led(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts conclude with the class that they were hinted to, which those of a model of random weights do not."""
    monkeypatch.setattr("rbft.rationales.writer._rationale", concluding)


def concluding(*args: Any) -> Rationale:
    written = plain(*args)
    text = written.text or "something moves"
    return replace(written, text=text, stated=written.hinted_to or written.label, kept=True, reason="")


@pytest.fixture(scope="module")
def hinted(tmp_path_factory: pytest.TempPathFactory, clips: Path, family_folder: Callable[[str], Path]) -> Run:
    folder = tmp_path_factory.mktemp("hinted")
    config = write_experiment(folder / "tiny.yaml", clips, family_folder("qwen2_5_vl"), HINTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rbft.rationales.writer._rationale", concluding)
        return run_experiment(config, folder / "runs", method="hinted")


def test_texts_of_another_class_are_kept_apart(hinted):
    own, against = (rows(hinted.folder / "write" / name) for name in ("rationales.jsonl", "contrasts.jsonl"))
    assert len(own) == len(against) == 6 and {row["hinted_to"] for row in own} == {""}
    assert all(row["hinted_to"] not in ("", row["label"]) for row in against)
    assert {row["id"]: row["label"] for row in own} == {row["id"]: row["label"] for row in against}
    assert {row["sample"] for row in own} == {0} and {row["sample"] for row in against} == {1}
    summary = json.loads((hinted.folder / "write/stage.json").read_text())["summary"]
    assert summary["rationales"] == summary["contrasts"] == 6
    said = " ".join(hinted.result.out.split())
    assert "6 videos, 1 rationale(s) each, and as many hinted to another class" in said


def test_a_stage_learns_from_both(hinted):
    record = json.loads((hinted.folder / "preference/stage.json").read_text())["summary"]
    assert record["rows"] == 2 * 6, "a pair of each video"
    summary = json.loads((hinted.folder / "write/stage.json").read_text())["summary"]
    assert summary["contrasts_led"] == 6
    own, against = (rows(hinted.folder / "write" / name) for name in ("rationales.jsonl", "contrasts.jsonl"))
    texts = {row["id"]: row["text"] for row in own}
    assert summary["contrasts_differ"] == sum(row["text"] != texts[row["id"]] for row in against)
    assert f"{summary['contrasts_differ']} say something else before it" in " ".join(hinted.result.out.split())


def test_what_was_written_is_not_written_again(hinted, led, tmp_path, clips, family_folder):
    settings = {**HINTED, **signal_once(tmp_path, signal.SIGTERM, "predict", 3)}
    config = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), settings)
    command = ("--config", config, "--run_root", tmp_path / "runs", "--method", "hinted", "--stage", "write")
    assert fit(*command).code == 143
    again = fit(*command)
    assert again.code == 0, again.err
    texts = [
        {(row["id"], row["text"]) for row in rows(folder / "write/contrasts.jsonl")}
        for folder in (hinted.folder, tmp_path / "runs/tiny/hinted/seed0")
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "flags",
    [("--model.writer.contrast", "false"), ("--model.prompts.hint", "blind")],
)
def test_pairs_of_hints_need_both_sides(hinted, flags):
    refused = hinted.again("--method", "hinted", "--dry_run", *flags)
    assert refused.code == 2
    assert "Set model.writer.contrast to true and model.prompts.hint to hint_stripped" in " ".join(refused.err.split())


def test_an_objective_says_whether_it_needs_them():
    assert PreferenceObjective(between="hints").contrasts and not PreferenceObjective().contrasts
