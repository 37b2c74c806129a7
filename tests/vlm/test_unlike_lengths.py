"""Clips of unlike length are answered in a batch as they are alone, whatever the layers of the language model are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, Plain, load, make_clip

from rbft.vlm.batch import Item, collate
from rbft.vlm.generation import generate
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.prefix_cache import read_together
from rbft.vlm.shared_prefix import answer_logits

QUESTION = "Which action does this video show?"
LABELS = ("push", "push up", "the person jumps over a wooden door")
# by place 0 and 2 are of one length
CLIPS = (make_clip(0), make_clip(1, frames=4), make_clip(2))


@pytest.fixture(scope="module", params=["qwen3_5", "exaone4_5"], ids=["running state", "window"])
def folder(request: pytest.FixtureRequest, family_folder: Callable[[str], Path]) -> Path:
    return family_folder(request.param)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(folder)


@pytest.fixture(scope="module")
def prompts(loaded):
    return [loaded.inputs(QUESTION, clip) for clip in CLIPS]


@pytest.fixture(scope="module")
def labels(loaded):
    return tuple(loaded.target(QUESTION, label) for label in LABELS)


@pytest.fixture(scope="module")
def naive(folder, labels):
    return Plain(folder).scores(QUESTION, CLIPS, labels)


def test_only_one_length_is_read_into_a_cache(loaded, prompts):
    assert read_together(loaded.vlm, prompts) == [[0, 2], [1]]
    with pytest.raises(ValueError, match="padding after shorter prompts"):
        loaded.vlm.prefix(prompts)


def test_all_lengths_are_where_every_layer_sees_every_token(family_folder):
    loaded = load(family_folder("qwen2_5_vl"))
    assert read_together(loaded.vlm, [loaded.inputs(QUESTION, clip) for clip in CLIPS]) == [[0, 1, 2]]


@pytest.mark.parametrize("max_tokens", [1, 4096])
def test_scores_are_those_of_full_passes(loaded, prompts, labels, naive, max_tokens):
    with torch.no_grad():
        scores = LabelScorer(labels, max_tokens=max_tokens)(loaded.vlm, prompts)
    assert float((scores - naive).abs().max()) < 1e-4


@pytest.mark.parametrize("samples", [1, 3])
def test_answers_are_those_written_alone(loaded, prompts, samples):
    def write(chosen, seeds):
        settings = {"max_new_tokens": 8, "temperature": float(samples > 1), "samples": samples, "seeds": seeds}
        return [[ids.tolist() for ids in row] for row in generate(loaded.vlm, chosen, **settings)]

    together = write(prompts, [5, 6, 7])
    assert together == [write([prompt], [5 + row])[0] for row, prompt in enumerate(prompts)]


def test_rows_that_end_early_leave_the_others_as_they_are(loaded, prompts, monkeypatch):
    free = generate(loaded.vlm, prompts, max_new_tokens=8)
    end = int(free[0][0][2])
    monkeypatch.setattr(loaded.vlm, "end_ids", (end,))
    for before, after in zip(free, generate(loaded.vlm, prompts, max_new_tokens=8), strict=True):
        stop = next((place + 1 for place, token in enumerate(before[0].tolist()) if token == end), 8)
        assert after[0].tolist() == before[0][:stop].tolist()


def test_training_gives_the_log_probabilities_of_full_passes(loaded, prompts, labels, naive):
    rows = [
        [Item(0, prompts[0], labels[0]), Item(0, prompts[0], labels[2])],
        [Item(1, prompts[1], labels[2])],
        [Item(2, prompts[2], labels[1])],
    ]
    with torch.no_grad():
        answers = answer_logits(loaded.vlm, collate(rows))
    log_probs = answers.log_probs()
    found = torch.stack([log_probs[answers.rows == row].sum() for row in range(4)])
    assert float((found - naive[[0, 0, 1, 2], [0, 2, 2, 1]]).abs().max()) < 1e-4
