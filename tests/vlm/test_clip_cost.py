"""What a clip costs is known without its pixels, and a bound on its tokens holds in every family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.families import FAMILIES
from tests.support.models import make_clip
from tests.support.videos import write_video

from rbft.data.dataset import Example, ExampleDataset
from rbft.data.records import VideoRecord
from rbft.data.sampler import Draw
from rbft.errors import ConfigError, ModelError
from rbft.video.sampling import FrameSampling
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt

PROMPT = Prompt("what is it?")
TWELVE = FrameSampling(num_frames=12)
FREE = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "wide.mp4", num_frames=24, size=(90, 160), fps=8)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("frames", "size", "sized"), [(3, (48, 64), False), (8, (90, 161), False), (5, (32, 48), True)]
)
def test_cost_is_that_of_the_clip_itself(name, frames, size, sized, family_folder: Callable[[str], Path]):
    processor = ClipProcessor(str(family_folder(name)))
    clip = make_clip(0, frames)
    clip = replace(clip, frames=torch.zeros((frames, 3, *size), dtype=torch.uint8))
    inputs = processor.prompt_inputs(PROMPT, clip, sized=sized)
    cost = processor.clip_cost(frames, *size, prompt=PROMPT, seconds=clip.duration, sized=sized)
    assert cost.visual_tokens == processor.count_visual_tokens(inputs.ids)
    assert cost.visual_tokens + cost.text_tokens == len(inputs.ids)
    pixels = [value for key, value in inputs.vision.items() if key.startswith("pixel_values")]
    assert cost.pixel_values == sum(value.numel() for value in pixels)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("most", [17, 9])
def test_no_clip_costs_more_than_allowed(name, most, video: Path, family_folder: Callable[[str], Path]):
    processor = ClipProcessor(str(family_folder(name)))
    examples = [Example(VideoRecord("v", video.name, "run"), PROMPT)]
    rows = ExampleDataset(examples, video.parent, processor.clip_spec(TWELVE, None, most), processor)
    tokens = processor.count_visual_tokens(rows[Draw(0, (0,), 1.0, 1.0)][0].prompt.ids)
    assert most / 4 < tokens <= most
    free = ExampleDataset(examples, video.parent, processor.clip_spec(TWELVE), processor)
    assert processor.count_visual_tokens(free[Draw(0, (0,), 1.0, 1.0)][0].prompt.ids) > most


@pytest.mark.parametrize("name", FAMILIES)
def test_frames_are_kept_where_they_can_get_smaller(name, family_folder: Callable[[str], Path]):
    spec = ClipProcessor(str(family_folder(name))).clip_spec(FrameSampling(num_frames=20), None, 9)
    if name in FREE:
        assert spec.sized and spec.sampling.num_frames == 18  # a token for each pair
        assert spec.frame_size(12, 90, 160) == (16, 16)
    else:
        assert not spec.sized and spec.budget is None and spec.sampling.num_frames == 2


@pytest.mark.parametrize("name", ["smolvlm", "llava_onevision", "internvl"])
def test_a_bound_below_one_frame_is_refused(name, family_folder: Callable[[str], Path]):
    with pytest.raises(ConfigError, match=r"data.max_visual_tokens: a clip of one frame costs .* 3 are too few"):
        ClipProcessor(str(family_folder(name))).clip_spec(TWELVE, None, 3)


def test_both_bounds_hold(video: Path, family_folder: Callable[[str], Path]):
    processor = ClipProcessor(str(family_folder("qwen2_5_vl")))
    spec = processor.clip_spec(TWELVE, 600, 1000)
    assert spec.max_pixels == 600 and spec.budget is not None
    height, width = spec.frame_size(8, 90, 160)
    assert height * width <= 600


def test_a_clip_the_processor_refuses_is_named(family_folder: Callable[[str], Path]):
    with pytest.raises(ModelError, match=r"refuses a clip of 4 frames of 3300x16 pixels"):
        ClipProcessor(str(family_folder("qwen2_5_vl"))).clip_cost(4, 16, 3300)
