"""Written answers are those that full transformers passes give, whatever else is written with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, Plain, load, make_clip

from rbft.vlm.batch import PromptInputs
from rbft.vlm.generation import _sample, generate
from rbft.vlm.model import VLM

QUESTIONS = ("Which action?", "Explain step by step what happens.", "Name it")
CLIPS = (make_clip(0, frames=4), make_clip(1, frames=8), make_clip(2, frames=5))
# 16 frames over 48 s: times that reach far beyond the number of tokens
SLOW = make_clip(3, frames=16, gap=75)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Plain:
    return Plain(folder)


@pytest.fixture(scope="module")
def prompts(loaded: Loaded) -> list[PromptInputs]:
    return [loaded.inputs(question, clip) for question, clip in zip(QUESTIONS, CLIPS, strict=True)]


def test_greedy_answers_are_the_likeliest_tokens_of_full_passes(loaded, plain):
    banned = [i for i in loaded.processor.special_ids if i not in loaded.vlm.end_ids]
    prompt = loaded.inputs(QUESTIONS[0], SLOW)
    answer = generate(loaded.vlm, [prompt], max_new_tokens=5, banned_ids=loaded.processor.special_ids)[0][0]
    for position, token in enumerate(answer.tolist()):
        log_probs = plain.next_log_probs(QUESTIONS[0], SLOW, answer[:position])
        log_probs[banned] = -torch.inf
        assert token == int(log_probs.argmax()), f"token {position}"


def test_a_batch_writes_what_single_prompts_do(loaded, prompts):
    together = generate(loaded.vlm, prompts, max_new_tokens=6, banned_ids=loaded.processor.special_ids)
    alone = [
        generate(loaded.vlm, [prompt], max_new_tokens=6, banned_ids=loaded.processor.special_ids)[0]
        for prompt in prompts
    ]
    assert [[ids.tolist() for ids in row] for row in together] == [[ids.tolist() for ids in row] for row in alone]


def test_banned_tokens_never_appear(loaded, prompts):
    vlm = loaded.vlm
    free = generate(vlm, prompts, max_new_tokens=4)
    banned = sorted({int(ids[0]) for row in free for ids in row})
    answers = generate(vlm, prompts, max_new_tokens=12, banned_ids=banned, temperature=3.0, samples=4)
    written = {int(i) for row in answers for ids in row for i in ids}
    assert not written & (set(banned) - set(vlm.end_ids))
    again = generate(vlm, prompts, max_new_tokens=4, banned_ids=banned)
    assert [int(row[0][0]) for row in again] != [int(row[0][0]) for row in free]


def test_sampling_gives_several_answers_and_is_repeatable(loaded, prompts):
    def write(seed: int, samples: int = 3) -> list[list[list[int]]]:
        answers = generate(
            loaded.vlm, prompts[:2], max_new_tokens=8, temperature=1.5, samples=samples, seeds=[seed, seed]
        )
        return [[ids.tolist() for ids in row] for row in answers]

    before = torch.get_rng_state()
    first = write(seed=1)
    assert torch.equal(before, torch.get_rng_state()), "sampling must not disturb training's random state"
    assert [len(row) for row in first] == [3, 3]
    assert len({tuple(ids) for ids in first[0]}) > 1
    assert write(seed=1) == first
    assert write(seed=2) != first


def test_top_p_narrows_sampling_to_the_likeliest(loaded, prompts):
    greedy = generate(loaded.vlm, prompts, max_new_tokens=4)
    narrow = generate(loaded.vlm, prompts, max_new_tokens=4, temperature=0.7, top_p=1e-6, seeds=[5, 6, 7])
    assert [row[0].tolist() for row in narrow] == [row[0].tolist() for row in greedy]


def test_answers_end_with_the_first_end_token(folder, prompts):
    loaded = load(folder)
    free = generate(loaded.vlm, prompts[:1], max_new_tokens=6)[0][0]
    loaded.vlm.end_ids = (int(free[2]),)
    cut = generate(loaded.vlm, prompts[:1], max_new_tokens=6)[0][0]
    first = free.tolist().index(int(free[2]))
    assert cut.tolist() == free[: first + 1].tolist()


def test_an_answer_does_not_depend_on_its_company(loaded, prompts):
    def write(chosen: Sequence[int], samples: int) -> list[list[list[int]]]:
        seeds = [10 + i for i in chosen]
        rows = [prompts[i] for i in chosen]
        answers = generate(loaded.vlm, rows, max_new_tokens=8, temperature=1.5, samples=samples, seeds=seeds)
        return [[ids.tolist() for ids in row] for row in answers]

    together = write([0, 1, 2], samples=2)
    assert write([2], samples=2) == [together[2]]
    assert write([1, 0], samples=1) == [together[1][:1], together[0][:1]]


def test_samples_share_one_reading_of_their_prompt(loaded, prompts, monkeypatch):
    read: list[int] = []
    prefix = VLM.prefix
    monkeypatch.setattr(VLM, "prefix", lambda self, prompts: (read.append(len(prompts)), prefix(self, prompts))[1])
    generate(loaded.vlm, prompts, max_new_tokens=3, temperature=1.0, samples=4)
    assert read == [3]


def test_rows_that_are_done_are_no_longer_computed(folder, prompts, monkeypatch):
    loaded = load(folder)
    loaded.vlm.end_ids = ()  # eight tokens each, whatever random weights say
    free = generate(loaded.vlm, prompts, max_new_tokens=8)
    # the end is a token that some rows reach before others
    ends = [int(i) for i in free[0][0]]
    reached = [next((n for n, i in enumerate(row[0].tolist()) if i in ends[1:2]), 8) for row in free]
    loaded.vlm.end_ids = tuple(ends[1:2])
    rows: list[int] = []
    original = VLM.continue_prefix

    def counted(self, cache, mask, ids, positions):
        rows.append(len(ids))
        return original(self, cache, mask, ids, positions)

    monkeypatch.setattr(VLM, "continue_prefix", counted)
    cut = generate(loaded.vlm, prompts, max_new_tokens=8)
    for row, stop in enumerate(reached):
        assert cut[row][0].tolist() == free[row][0].tolist()[: stop + 1]
    if len(set(reached)) > 1:
        assert rows[-1] < rows[0]


def test_sampling_follows_the_distribution():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    places = torch.linspace(0, 1, 10_001)[:-1]
    tokens = _sample(logits.expand(len(places), -1), 0.5, 1.0, places)
    found = torch.bincount(tokens, minlength=4) / len(places)
    assert found.tolist() == pytest.approx((logits[0] / 0.5).softmax(-1).tolist(), abs=1e-3)
    # of 0.64, 0.24, 0.09, 0.03 the first two reach 0.8
    narrow = _sample(logits.expand(len(places), -1), 1.0, 0.8, places)
    assert sorted(set(narrow.tolist())) == [0, 1]
    share = logits[0, :2].softmax(-1)
    assert (torch.bincount(narrow) / len(places)).tolist() == pytest.approx(share.tolist(), abs=1e-3)
