"""What a model computes that is no number is no result: it stops with the video's name and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, load, make_clip

from rbft.answering.reasoning import Reasoner
from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.errors import ModelError
from rbft.rationales.checks.base import Judge, Material
from rbft.rationales.checks.contradiction import Contradiction
from rbft.rationales.checks.grounding import Grounding
from rbft.rationales.store import Rationale
from rbft.training.feature_pool import FeaturePool
from rbft.vlm.batch import Item, collate
from rbft.vlm.feature_cache import FeatureCache
from rbft.vlm.finite import remedy
from rbft.vlm.generation import Sampling, generate
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.tuning import LoRA

QUESTION = "Which action?"
BOOK = PromptBook(Prompts(), LabelSet(("run", "fall")))
FILES = r"The model's weight '[\w.]+' holds such numbers: its files are damaged"


def spoilt(folder: Path, where: str) -> Loaded:
    """A model with one weight that is no number, in its tower or in its language model."""
    loaded = load(folder)
    with torch.no_grad():
        part = loaded.vlm.base.get_decoder().norm.weight if where == "language" else loaded.vlm.vision_parameters()[0]
        part.view(-1)[0] = torch.nan
    return loaded


@pytest.fixture(scope="module")
def tower(family_folder: Callable[[str], Path]) -> Loaded:
    return spoilt(family_folder("qwen2_5_vl"), "tower")


@pytest.fixture(scope="module")
def language(family_folder: Callable[[str], Path]) -> Loaded:
    return spoilt(family_folder("qwen2_5_vl"), "language")


@pytest.mark.parametrize("where", ["tower", "language"])
def test_scores(request, where):
    loaded = request.getfixturevalue(where)
    scorer = LabelScorer(tuple(loaded.target(QUESTION, name) for name in BOOK.texts))
    with pytest.raises(ModelError, match=rf"^clip3\.mp4: the scores of the classes are not all finite.*{FILES}"):
        scorer(loaded.vlm, [loaded.inputs(QUESTION, make_clip(3))])


def test_the_one_bad_video_of_a_batch_is_named(family_folder):
    loaded = load(family_folder("qwen2_5_vl"))
    scorer = LabelScorer(tuple(loaded.target(QUESTION, name) for name in BOOK.texts))
    prompts = [loaded.inputs(QUESTION, make_clip(number)) for number in range(3)]
    vision = prompts[1].vision
    prompts[1] = replace(prompts[1], vision=vision | {"pixel_values_videos": vision["pixel_values_videos"] * torch.inf})
    with pytest.raises(ModelError, match=r"^clip1\.mp4: .*weights are finite, .* set model\.dtype to float32"):
        scorer(loaded.vlm, prompts)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("where", ["tower", "language"])
def test_written_texts(request, where, temperature):
    loaded = request.getfixturevalue(where)
    prompts = [loaded.inputs(QUESTION, make_clip(3))]
    with pytest.raises(ModelError, match=rf"^clip3\.mp4: the expected tokens are not all finite.*{FILES}"):
        generate(loaded.vlm, prompts, max_new_tokens=3, temperature=temperature, samples=2)
    targets = tuple(loaded.target(QUESTION, name) for name in BOOK.texts)
    with pytest.raises(ModelError, match=rf"^clip3\.mp4: .*{FILES}"):
        Reasoner(loaded.processor, BOOK, LabelScorer(targets), Sampling(max_new_tokens=3))(
            loaded.vlm, prompts, ["v"], 0
        )


def test_features_are_neither_kept_nor_pooled(tower, tmp_path):
    tower.vlm.features = FeatureCache(tmp_path / "features", 10**6)
    prompt = replace(tower.inputs(QUESTION, make_clip(3)), key="clip")
    with pytest.raises(ModelError, match=rf"^clip3\.mp4: the visual features of the clip .*{FILES}"):
        tower.vlm.with_features([prompt])
    assert not list(tmp_path.rglob("*.safetensors"))
    tower.vlm.features = None
    with pytest.raises(ModelError, match=rf"^clip3\.mp4: the visual features of the clip .*{FILES}"):
        FeaturePool().add(tower.vlm, collate([[Item(0, prompt, torch.empty(0, dtype=torch.long))]]))


@pytest.mark.parametrize("check", [Contradiction(), Grounding(4)], ids=["contradiction", "grounding"])
def test_checks_that_ask_a_model(language, check):
    rows = [Rationale(str(i), 0, f"{i}.mp4", "run", "", "blind", "me", "a man", None, "", False) for i in range(6)]
    judge = Judge(
        language.vlm,
        language.processor,
        lambda video, prompt: language.inputs(prompt.question, make_clip(int(video[0]))),
    )
    with pytest.raises(ModelError, match=rf"^(\w+\.mp4|a text without content): .* are not all finite.*{FILES}"):
        check.scores(Material(tuple(rows), BOOK, judge))


def test_trained_weights_are_told_from_those_of_the_model(family_folder):
    loaded = load(family_folder("qwen2_5_vl"), LoRA(rank=2))
    assert remedy(loaded.vlm, "overflow") == "overflow"
    with torch.no_grad():
        trained = next(value for name, value in loaded.vlm.named_parameters() if "lora_B" in name)
        trained.view(-1)[0] = torch.inf
    assert remedy(loaded.vlm, "overflow", trained=False) == "overflow"
    assert "train the stage again" in remedy(loaded.vlm, "overflow")
