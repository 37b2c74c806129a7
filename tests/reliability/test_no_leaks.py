"""Nothing that is asked about a test video depends on its label, its name, or on what was written about it."""

from __future__ import annotations

from typing import get_args

import pytest
from tests.support.fitting import Stage

from rbft.answering.closed_set import ClosedSetScoring
from rbft.answering.settings import Answering
from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import HintPolicy, PromptBook, Prompts
from rbft.data.records import VideoRecord
from rbft.vlm.label_scorer import Scoring

pytest_plugins = ["tests.support.fitting_fixtures"]

LABELS = LabelSet(("fall", "no fall", "crawl"))
RECORDS = [VideoRecord(f"id{i}", f"secret {i}.mp4", LABELS.names[i % 3]) for i in range(6)]


@pytest.mark.parametrize("hint", get_args(HintPolicy))
@pytest.mark.parametrize("reasoned", [False, True])
def test_all_test_videos_are_asked_the_same(hint: str, reasoned: bool, stage: Stage) -> None:
    book = PromptBook(Prompts(hint=hint), LABELS)
    answering = Answering(mode="rationale") if reasoned else Answering()
    scoring = ClosedSetScoring(stage.processor, book, Scoring(), answering, 0)
    asked: dict[str, set[object]] = {}
    for example in scoring.examples(RECORDS, reasoned=reasoned):
        assert example.answer is None
        asked.setdefault(example.record.id, set()).add(example.prompt)
        text = f"{example.prompt.system} {example.prompt.question}"
        assert "secret" not in text and example.record.id not in text
    assert len(asked) == len(RECORDS)
    assert len({frozenset(prompts) for prompts in asked.values()}) == 1, "a question depends on its video"
    # where labels stand in the question, all do: one alone would be the answer
    for prompt in asked["id0"]:
        assert len({name in prompt.question for name in ("crawl", "no fall")}) == 1
