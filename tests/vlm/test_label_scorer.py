"""Scoring all labels after a prompt that is read once is scoring each label with a pass of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, Plain, make_clip
from torch import Tensor

from rbft.errors import ConfigError
from rbft.vlm.label_scorer import LabelScorer, Scoring
from rbft.vlm.loading import load_model
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


# one clip and label at a time; two, which does not divide three; all at once
BOUNDS = [1, 3, 9, 30, 4096]


@pytest.fixture(params=[True, False], ids=["tree", "rows"])
def kernel(request, monkeypatch) -> bool:
    """Attention that takes a mask of its own for each token, and attention that does not."""
    if not request.param:
        monkeypatch.setattr(VLM, "takes_tree_masks", False)
    return request.param


@pytest.mark.parametrize("max_tokens", BOUNDS)
def test_scores_are_those_of_full_passes(loaded, labels, naive, max_tokens, kernel):
    prompts = [loaded.inputs(QUESTION, clip) for clip in CLIPS]
    check(LabelScorer(labels, max_tokens=max_tokens)(loaded.vlm, prompts), naive)


def test_scores_are_those_of_full_passes_with_plain_attention(folder, loaded, labels, naive):
    model = load_model(str(folder), None, "float32", "eager")
    vlm = VLM(model, loaded.processor.pad_id, loaded.processor.end_ids).eval()
    assert vlm.takes_tree_masks
    check(LabelScorer(labels)(vlm, [loaded.inputs(QUESTION, clip) for clip in CLIPS]), naive)


def test_scores_do_not_depend_on_company_or_order(loaded, labels, naive, kernel):
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
    monkeypatch.setattr(VLM, "continue_prefix", lambda *_: pytest.fail("nothing stands after the first token"))
    check(LabelScorer(ids)(loaded.vlm, prompts), Plain(folder).scores(QUESTION, CLIPS, ids))


def test_labels_of_one_and_of_more_ids_stand_together(folder, loaded, labels):
    ids = (labels[3][:1], labels[4])
    prompts = [loaded.inputs(QUESTION, clip) for clip in CLIPS]
    expected = Plain(folder).scores(QUESTION, CLIPS, ids)
    for max_tokens in (1, 4096):
        check(LabelScorer(ids, max_tokens=max_tokens)(loaded.vlm, prompts), expected)


def test_the_prompt_is_read_once_and_its_pixels_are_seen_once(loaded, labels, monkeypatch):
    read, encoded = [], []
    prefix, encode_one = VLM.prefix, VLM._encode_one
    monkeypatch.setattr(VLM, "prefix", lambda self, prompts: (read.append(len(prompts)), prefix(self, prompts))[1])
    monkeypatch.setattr(VLM, "_encode_one", lambda self, vision: (encoded.append(1), encode_one(self, vision))[1])
    nodes = sum(len(ids) - 1 for ids in labels)  # more than the tree has, and less than twice as many
    LabelScorer(labels, max_tokens=2 * nodes)(loaded.vlm, [loaded.inputs(QUESTION, clip) for clip in CLIPS])
    assert sum(read) == 3 and len(read) <= 2
    assert len(encoded) == 3


@pytest.mark.parametrize("max_tokens", BOUNDS)
def test_no_more_tokens_than_allowed_are_read_at_once(loaded, labels, max_tokens, monkeypatch, kernel):
    sizes: list[tuple[int, int, int]] = []
    read: list[int] = []
    original, prefix = VLM.continue_prefix, VLM.prefix

    def counted(self: VLM, cache, mask: Tensor, ids: Tensor, positions: Tensor) -> Tensor:
        sizes.append((ids.numel(), len(ids) * mask.shape[-1], len(ids) // read[-1]))
        return original(self, cache, mask, ids, positions)

    monkeypatch.setattr(VLM, "continue_prefix", counted)
    monkeypatch.setattr(VLM, "prefix", lambda self, prompts: (read.append(len(prompts)), prefix(self, prompts))[1])
    LabelScorer(labels, max_tokens=max_tokens)(loaded.vlm, [loaded.inputs(QUESTION, clip) for clip in CLIPS])
    # a label is never cut
    assert max(tokens for tokens, *_ in sizes) <= max(max_tokens, len(CLIPS) * (max(map(len, labels)) - 1))
    if not kernel:
        # each row holds a copy of its prompt; there is at least one label at a time
        assert all(copied <= max_tokens or at_once == 1 for _, copied, at_once in sizes)


def test_a_shared_beginning_is_read_once(loaded, labels, monkeypatch):
    read: list[Tensor] = []
    original = VLM.continue_prefix

    def kept(self: VLM, cache, mask: Tensor, ids: Tensor, positions: Tensor) -> Tensor:
        read.append(ids)
        return original(self, cache, mask, ids, positions)

    monkeypatch.setattr(VLM, "continue_prefix", kept)
    LabelScorer(labels)(loaded.vlm, [loaded.inputs(QUESTION, CLIPS[0])])
    beginnings = {tuple(ids[:end].tolist()) for ids in labels for end in range(1, len(ids))}
    assert [tuple(ids.shape) for ids in read] == [(1, len(beginnings))]
    assert len(beginnings) < sum(len(ids) - 1 for ids in labels)


@pytest.mark.parametrize("normalize", ["token", "byte"])
def test_scores_are_divided_by_what_was_asked_for(loaded, labels, naive, normalize):
    prompts = [loaded.inputs(QUESTION, clip) for clip in CLIPS]
    scorer = LabelScorer.of(labels, LABELS, Scoring(normalize=normalize))
    by = [len(ids) for ids in labels] if normalize == "token" else [len(label.encode()) for label in LABELS]
    check(scorer(loaded.vlm, prompts), naive / torch.tensor(by))


def test_the_prior_is_what_the_labels_score_behind_a_blank_clip(folder, loaded, labels, naive):
    blank = replace(CLIPS[0], frames=torch.full_like(CLIPS[0].frames, 128))
    prompts = [loaded.inputs(QUESTION, clip) for clip in CLIPS]
    scorer = LabelScorer.of(labels, LABELS, Scoring()).corrected(loaded.vlm, loaded.inputs(QUESTION, blank))
    expected = naive - Plain(folder).scores(QUESTION, [blank], labels)
    check(scorer(loaded.vlm, prompts), expected)
    again = scorer.corrected(loaded.vlm, loaded.inputs(QUESTION, blank))
    check(again(loaded.vlm, prompts), expected)


def test_a_bound_that_reads_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"model\.scoring\.max_tokens: 0"):
        Scoring(max_tokens=0)
