"""Scoring all labels behind a prompt that is read once is scoring each label with a pass of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, Plain, make_clip
from torch import Tensor

from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.model import VLM

QUESTION = "Which action does this video show?"
# prefixes of each other, one token, many tokens
LABELS = ("push", "push up", "push up fast", "a", "the person jumps over a wooden door")
CLIPS = (make_clip(0, frames=8), make_clip(1, frames=4), make_clip(2, frames=16, gap=75))


@pytest.fixture(scope="module")
def labels(loaded: Loaded) -> tuple[Tensor, ...]:
    return tuple(loaded.target(QUESTION, label) for label in LABELS)


@pytest.fixture(scope="module")
def naive(folder: Path, labels: tuple[Tensor, ...]) -> Tensor:
    return Plain(folder).scores(QUESTION, CLIPS, labels)


def check(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < 1e-4
    assert found.argmax(1).tolist() == expected.argmax(1).tolist()


def test_labels_differ_as_meant(loaded, labels):
    single = [ids for ids in labels if len(ids) == 2]
    assert single, "a label of one token and the end of the turn"
    assert labels[0][:-1].tolist() == labels[1][: len(labels[0]) - 1].tolist(), "a label that starts another"
    assert all(int(ids[-1]) in loaded.vlm.end_ids for ids in labels)


# one clip at a time though there are more labels than rows; two, which does not divide three; all at once
@pytest.mark.parametrize("max_rows", [1, 3, 5, 12, 256])
def test_scores_are_those_of_full_passes(loaded, labels, naive, max_rows):
    prompts = [loaded.inputs(QUESTION, clip) for clip in CLIPS]
    check(LabelScorer(labels, max_rows)(loaded.vlm, prompts), naive)


def test_scores_do_not_depend_on_company_or_order(loaded, labels, naive):
    scorer = LabelScorer(labels)
    prompts = [loaded.inputs(QUESTION, clip) for clip in CLIPS]
    for row, prompt in enumerate(prompts):
        check(scorer(loaded.vlm, [prompt]), naive[row : row + 1])
    check(scorer(loaded.vlm, [prompts[2], prompts[0], prompts[2]]), naive[[2, 0, 2]])


def test_score_of_a_label_does_not_depend_on_the_others(loaded, labels, naive):
    prompts = [loaded.inputs(QUESTION, clip) for clip in CLIPS]
    for chosen in ([4, 0], [3], [2, 1, 3]):
        check(LabelScorer(tuple(labels[i] for i in chosen))(loaded.vlm, prompts), naive[:, chosen])


def test_labels_of_a_single_id_need_no_second_pass(folder, loaded, labels, monkeypatch):
    ids = tuple(label[:1] for label in labels)
    prompts = [loaded.inputs(QUESTION, clip) for clip in CLIPS]
    monkeypatch.setattr(VLM, "continue_prefix", lambda *_: pytest.fail("nothing stands behind the first token"))
    check(LabelScorer(ids)(loaded.vlm, prompts), Plain(folder).scores(QUESTION, CLIPS, ids))


def test_the_prompt_is_read_once_and_its_pixels_are_seen_once(loaded, labels, monkeypatch):
    read, encoded = [], []
    prefix, encode_one = VLM.prefix, VLM._encode_one
    monkeypatch.setattr(VLM, "prefix", lambda self, prompts: (read.append(len(prompts)), prefix(self, prompts))[1])
    monkeypatch.setattr(VLM, "_encode_one", lambda self, vision: (encoded.append(1), encode_one(self, vision))[1])
    LabelScorer(labels, max_rows=10)(loaded.vlm, [loaded.inputs(QUESTION, clip) for clip in CLIPS])
    assert read == [2, 1]
    assert len(encoded) == 3


@pytest.mark.parametrize("max_rows", [1, 2, 3, 5, 8])
def test_no_more_rows_than_allowed_are_computed_at_once(loaded, labels, max_rows, monkeypatch):
    rows: list[int] = []
    original = VLM.continue_prefix

    def counted(self: VLM, cache, mask: Tensor, ids: Tensor, positions: Tensor) -> Tensor:
        rows.append(len(ids))
        return original(self, cache, mask, ids, positions)

    monkeypatch.setattr(VLM, "continue_prefix", counted)
    LabelScorer(labels, max_rows)(loaded.vlm, [loaded.inputs(QUESTION, clip) for clip in CLIPS])
    assert max(rows) <= max_rows
    assert sum(rows) == len(CLIPS) * len(labels)
