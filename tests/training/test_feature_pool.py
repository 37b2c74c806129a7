"""Pooled features are the mean of what each family's projector gives, of each clip once and of none left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.families import FAMILIES
from tests.support.models import load, make_clip

from rbft.data.dataset import Example
from rbft.data.records import VideoRecord
from rbft.errors import ModelError
from rbft.training.feature_pool import FeaturePool
from rbft.vlm.batch import Item, collate
from rbft.vlm.prompt import Prompt


@pytest.fixture(params=[*FAMILIES, "tiny"])
def loaded(request: pytest.FixtureRequest, family_folder: Callable[[str], Path]):
    return load(Path("builtin/tiny") if request.param == "tiny" else family_folder(request.param))


def batch(loaded, *numbers: int, fill: int = 0):
    prompts = [loaded.inputs("what?", make_clip(number)) for number in numbers]
    none = torch.empty(0, dtype=torch.long)
    return collate([[Item(place, prompt, none, float(place >= fill))] for place, prompt in enumerate(prompts)])


def examples(count: int) -> list[Example]:
    return [Example(VideoRecord(f"v{n}", f"{n}.mp4", "a"), Prompt("what?")) for n in range(count)]


def test_features_of_a_clip_are_the_mean_over_its_visual_tokens(loaded):
    pool = FeaturePool()
    pool.add(loaded.vlm, batch(loaded, 0, 1))
    found = pool.gather(examples(2), 1)
    for number in (0, 1):
        prompt = loaded.inputs("what?", make_clip(number))
        tokens = loaded.processor.count_visual_tokens(prompt.ids)
        clip = loaded.vlm.with_features([prompt])[0].encoded
        assert clip is not None
        assert len(clip.features) == tokens > 0
        assert np.allclose(found[f"v{number}"], clip.features.double().mean(0).numpy())
    assert found["v0"].shape == (loaded.vlm.base.config.get_text_config().hidden_size,)
    assert not np.allclose(found["v0"], found["v1"])


def test_rows_that_fill_up_a_batch_count_nowhere_and_none_may_miss(family_folder):
    loaded, pool = load(family_folder("qwen2_5_vl")), FeaturePool()
    pool.add(loaded.vlm, batch(loaded, 0, 1, fill=1))
    with pytest.raises(ModelError, match="1 of 2 videos were encoded"):
        pool.gather(examples(2), 1)
