"""A test with further passes: figures of degraded clips are those of a test of them, and texts stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.runs import Run, digests, rows, run_experiment, write_experiment

from rbft.answering.reasoning import Reasoner

pytest_plugins = ["tests.support.run_fixtures"]

REASONED = {"stages": {"test": {"model": {"answering": {"mode": "rationale", "max_new_tokens": 6}}}}}
ROBUST = ("--model.robustness.ladder", "[dropped, blank]", "--model.robustness.swap", "true", "--variant", "robust")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, clips: Path, family_folder: Callable[[str], Path]) -> Run:
    folder = tmp_path_factory.mktemp("robust")
    config = write_experiment(folder / "tiny.yaml", clips, family_folder("qwen2_5_vl"), REASONED)
    return run_experiment(config, folder / "runs", method="zero_shot")


def test_each_figure_is_that_of_its_own_test(plain, monkeypatch):
    asked = []
    call = Reasoner.__call__

    def noted(self, vlm, prompts, videos, seed, fixed=None):
        found = call(self, vlm, prompts, videos, seed, fixed)
        asked.append(
            (fixed is not None, {video: reasoned.texts for video, reasoned in zip(videos, found, strict=True)})
        )
        return found

    monkeypatch.setattr(Reasoner, "__call__", noted)
    again = plain.again("--method", "zero_shot", *ROBUST)
    assert again.code == 0, again.err
    folder = plain.root / "tiny/robust/seed0"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert digests(folder, "predictions.jsonl") == digests(plain.folder, "predictions.jsonl"), (
        "the test itself is as ever"
    )
    for control in ("dropped", "blank"):
        alone = plain.again("--method", "zero_shot", "--data.clip_control", control, "--variant", control)
        assert alone.code == 0, alone.err
        expected = json.loads((plain.root / "tiny" / control / "seed0/metrics.json").read_text())["test/accuracy"]
        assert metrics[f"degraded_{control}/accuracy"] == expected
    own = {row["id"]: row["rationale"] for row in rows(folder / "predictions.jsonl")}
    swapped: dict[str, tuple[str, ...]] = {}
    for fixed, texts in asked:
        if fixed:
            swapped |= texts
    assert sorted(text for (text,) in swapped.values()) == sorted(own.values())
    assert {"swapped_video/accuracy", "swapped_video/unchanged", "swapped_video/follows_video"} <= metrics.keys()
    assert "degraded-dropped" in again.out


def test_a_direct_answer_has_no_rationale_to_keep(plain):
    refused = plain.again(
        "--method", "zero_shot", "--model.robustness.swap", "true", "--stages.test.model.answering.mode", "direct"
    )
    assert refused.code == 2
    assert "model.robustness.swap keeps a video's own rationale" in " ".join(refused.err.split())
