"""A rationale for each class: what is written for which, and scores that a plain computation gives as well."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.support.models import Loaded, load, make_clip

from rbft.answering.arguing import Arguer
from rbft.answering.choice import Choice, answer
from rbft.answering.closed_set import ClosedSetScoring
from rbft.answering.settings import Answering
from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError
from rbft.evaluation.predictions import Prediction
from rbft.vlm.batch import Item, PromptInputs, collate
from rbft.vlm.generation import generate
from rbft.vlm.label_scorer import Scoring
from rbft.vlm.prompt import Prompt

NAMES = ("a", "d", "f")
PROMPTS = Prompts(argued_question="Say why it may be {label}.")
BOOK = PromptBook(PROMPTS, LabelSet(NAMES))
RECORDS = [VideoRecord(str(number), f"{number}.mp4", "a") for number in range(2)]
NONE = torch.empty(0, dtype=torch.long)
ARGUED = Choice("argued", 1.0, 1.0)


@pytest.fixture(scope="module", params=["qwen2_5_vl", "smolvlm"])
def loaded(request: pytest.FixtureRequest, family_folder: Callable[[str], Path]) -> Loaded:
    return load(family_folder(request.param))


def predictions(loaded: Loaded, answering: Answering, scoring: Scoring | None = None) -> list[Prediction]:
    """What a test over two clips gives."""
    scores = ClosedSetScoring(loaded.processor, BOOK, scoring or Scoring(), answering, seed=0)
    examples = scores.examples(RECORDS, reasoned=True)
    scores.start(loaded.vlm, None)
    clips = []
    for number in range(len(RECORDS)):
        first = loaded.processor.prompt_inputs(examples[2 * number].prompt, make_clip(number))
        prompts = [first, loaded.processor.another(examples[2 * number + 1].prompt, first)]
        clips.append([Item(2 * number + row, prompt, NONE) for row, prompt in enumerate(prompts)])
    batch = collate(clips)
    scores.add(loaded.vlm, batch, [examples[row] for row in batch.indices])
    return scores.gather(examples, "test", 1, partly=False)


def asked(loaded: Loaded, prompt: Prompt, number: int) -> PromptInputs:
    return loaded.processor.prompt_inputs(prompt, make_clip(number) if prompt.video else None)


def likelihood(loaded: Loaded, prompt: PromptInputs, ids: torch.Tensor) -> float:
    with torch.no_grad():
        return float(loaded.vlm.target_log_probs([prompt], [ids])[0].double().sum())


def softmax(scores: Sequence[float]) -> list[float]:
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]


def argued_by_hand(loaded: Loaded, number: int, name: str, normalize: str) -> tuple[str, float]:
    """The text that argues for a class of a clip, and its score, each part computed on its own."""
    question, ids_of = BOOK.blind_prompt(), loaded.processor.target_ids
    prompt = asked(loaded, Prompt(f"Say why it may be {name}."), number)
    written = generate(loaded.vlm, [prompt], max_new_tokens=6, banned_ids=loaded.processor.special_ids)[0][0]
    text = BOOK.parse(loaded.processor.decode(written)).body
    seen, unseen = asked(loaded, question, number), asked(loaded, Prompt(question.question, video=False), number)
    # what all classes share before their names cancels out
    concluded = softmax([likelihood(loaded, seen, ids_of(question, BOOK.concluded(text, other))) for other in NAMES])
    body = ids_of(question, text)[:-1]
    gain = likelihood(loaded, seen, body) - likelihood(loaded, unseen, body)
    length = {"sum": 1, "token": len(body), "byte": len(text.encode())}[normalize]
    return text, math.log(concluded[NAMES.index(name)]) + gain / length


@pytest.mark.parametrize("normalize", ["sum", "token", "byte"])
def test_scores_are_those_of_a_plain_computation(loaded, normalize):
    found = predictions(loaded, Answering(mode="argued", max_new_tokens=6), Scoring(normalize=normalize))
    differing = False
    for number, prediction in enumerate(found):
        by_hand = [argued_by_hand(loaded, number, name, normalize) for name in NAMES]
        if normalize == "sum":  # others divide the classes' own scores as well
            assert prediction.answers["argued"] == pytest.approx(softmax([score for _, score in by_hand]), abs=1e-4)
        said = answer(prediction, ARGUED, NAMES)
        assert said.probabilities == prediction.answers["argued"]
        assert said.predicted == NAMES[said.probabilities.index(max(said.probabilities))]
        best = NAMES.index(said.predicted)
        assert said.rationale.split("\n\n")[0] == BOOK.concluded(by_hand[best][0], said.predicted)
        assert {text for text, _ in by_hand} <= {BOOK.parse(t).body for t in said.rationale.split("\n\n")}
        differing |= said.probabilities != pytest.approx(prediction.answers["direct"], abs=1e-3)
    assert differing, "the texts decide, and not the direct answers"


def test_of_many_classes_the_likeliest_are_argued_for(loaded):
    for prediction in predictions(loaded, Answering(mode="argued", most_argued=2, max_new_tokens=6)):
        direct, argued = prediction.answers["direct"], prediction.answers["argued"]
        last = direct.index(min(direct))
        assert argued[last] == direct[last] and sum(argued) == pytest.approx(1)
        assert max(argued) != argued[last], "the best of those that were argued for is before all others"
        assert len(prediction.rationale.split("\n\n")) == 2
        assert not prediction.rationale.endswith(NAMES[last])


def test_no_probability_is_rounded_above_1():
    """The shares of a softmax add up to a little more than 1 at times, and one class may get all of them."""
    names = ("a", "b", "c")
    book: Any = SimpleNamespace(labels=LabelSet(names), concluded=lambda text, name: text)
    above = (0.4, 0.5, 0.1 + 2**-52)
    assert math.fsum(above) > 1
    arguer: Any = SimpleNamespace(book=book)
    found = Arguer._weighed(arguer, (0, 1, 2), ("", "", ""), (0.0, -900.0, -900.0), above, 0)
    assert found.probabilities == (1.0, 0.0, 0.0)


def test_the_hinted_question_argues_where_there_is_no_other():
    book = PromptBook(Prompts(), LabelSet(NAMES))
    assert book.argued_prompt("d") == book.writing_prompt("d", hinted=True)
    assert BOOK.argued_prompt("d").question == "Say why it may be d."
    with pytest.raises(ConfigError, match=r"model\.prompts\.argued_question"):
        Prompts(argued_question="Say why.")


@pytest.mark.parametrize("settings", [{"most_argued": 1}, {"mode": "argued", "samples": 2, "temperature": 1.0}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ConfigError, match=r"model\.answering\.(most_argued|samples)"):
        Answering(**settings)
