"""Where the direct answer is sure nothing is written; elsewhere the answer is the one after a rationale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, load, make_clip

from rbft.answering.choice import Choice, answer
from rbft.answering.closed_set import ClosedSetScoring
from rbft.answering.settings import Answering
from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.data.records import VideoRecord
from rbft.evaluation.predictions import Prediction
from rbft.vlm.batch import Item, collate
from rbft.vlm.label_scorer import Scoring

NAMES = ("a", "d", "f")  # a model of random weights is sure of none of them
BOOK = PromptBook(Prompts(), LabelSet(NAMES))
RECORDS = [VideoRecord(str(number), f"{number}.mp4", "a") for number in range(3)]
NONE = torch.empty(0, dtype=torch.long)


@pytest.fixture(scope="module")
def loaded(family_folder: Callable[[str], Path]) -> Loaded:
    return load(family_folder("qwen2_5_vl"))


def predictions(loaded: Loaded, answering: Answering) -> tuple[list[Prediction], ClosedSetScoring]:
    """What a test over three clips gives, in two batches."""
    scoring = ClosedSetScoring(loaded.processor, BOOK, Scoring(), answering, seed=0)
    examples = scoring.examples(RECORDS, reasoned=True)
    scoring.start(loaded.vlm, None)
    clips = []
    for number in range(3):
        rows = range(2 * number, 2 * number + 2)
        first = loaded.processor.prompt_inputs(examples[rows[0]].prompt, make_clip(number))
        prompts = [first, loaded.processor.another(examples[rows[1]].prompt, first)]
        clips.append([Item(row, prompt, NONE) for row, prompt in zip(rows, prompts, strict=True)])
    for part in (clips[:2], clips[2:]):
        batch = collate(part)
        scoring.add(loaded.vlm, batch, [examples[row] for row in batch.indices])
    return scoring.gather(examples, "test", 1, partly=False), scoring


def test_only_unsure_videos_are_written_about(loaded: Loaded) -> None:
    both, written = predictions(loaded, Answering(mode="rationale", max_new_tokens=6))
    order = sorted(range(3), key=lambda number: max(both[number].answers["direct"]))
    unsure, sure = order[0], order[1:]
    gate = (max(both[unsure].answers["direct"]) + max(both[sure[0]].answers["direct"])) / 2
    found, scoring = predictions(loaded, Answering(mode="gated", gate=gate, max_new_tokens=6))
    said = [answer(prediction, Choice("gated", 1.0, 1.0, gate=gate), NAMES) for prediction in found]
    for number in sure:
        assert said[number].probabilities == both[number].answers["direct"] and said[number].rationale == ""
    assert said[unsure].probabilities == pytest.approx(both[unsure].answers["rationale"])
    assert said[unsure].probabilities != pytest.approx(both[unsure].answers["direct"])
    assert said[unsure].rationale == both[unsure].rationale != ""
    assert [bool(scoring.written[str(number)]) for number in range(3)] == [number == unsure for number in range(3)]
    assert 0 < scoring.tokens_written < written.tokens_written
    assert set(said[unsure].answers) == {"direct", "gated"}


def test_a_gate_of_0_writes_nothing_and_one_above_all_writes_everywhere(loaded: Loaded) -> None:
    assert predictions(loaded, Answering(mode="gated", gate=0.0, max_new_tokens=6))[1].tokens_written == 0
    found, scoring = predictions(loaded, Answering(mode="gated", gate=1.0, max_new_tokens=6))
    assert all(scoring.written.values())
    assert all(prediction.rationale for prediction in found)
