"""What a model is told of the times of its frames is when they are shown, at one rate or not, in every family."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from tests.support.families import RECIPES
from tests.support.videos import UNEVEN, read_number, write_video

from rbft.video.clip import read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.sampling import FrameSampling
from rbft.vlm.batch import PromptInputs
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt

EIGHT = ClipSpec(FrameSampling(num_frames=8))
Times = Sequence[float]


def pairs(times: Times) -> list[str]:
    """Means of two frames each, to a tenth of a second."""
    # as the family's processor computes them, so that halves are rounded alike
    return [f"{(first + second) / 2:.1f}" for first, second in zip(times[::2], times[1::2], strict=True)]


def minutes(times: Times) -> list[str]:
    return [f"{int(time) // 60:02d}:{int(time) % 60:02d}" for time in times]


def tenths(times: Times) -> list[str]:
    return [f"{time:.1f}" for time in times]


QWEN = (r"<([\d.]+) seconds>", pairs)
IN_THE_PROMPT: dict[str, tuple[str, Callable[[Times], list[str]]]] = {
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "cosmos3_omni", "lfm3_vl"), QWEN),
    **dict.fromkeys(("qwen4_exp", "cohere_compass"), QWEN),
    "cosmos3_edge": (r"<([\d.]+) seconds>", tenths),
    "smolvlm": (r"Frame from (\d\d:\d\d):", minutes),
    **dict.fromkeys(("gemma4", "gemma4_unified"), (r"(\d\d:\d\d) <", minutes)),
    "molmo2": (r"([\d.]+) <frame_start>", tenths),
    "video_llama_3": (r"Time ([\d.]+)s:", tenths),
    **dict.fromkeys(
        ("glm46v", "glmga", "glm5_next", "minimax_m3_vl"),
        (r"([\d.]+) seconds", lambda times: tenths(times[::2])),
    ),
    **dict.fromkeys(("muse_glimmer", "muse_spark"), (r"Time: ([\d.]+)s", lambda times: tenths(times[::2]))),
    **dict.fromkeys(
        ("glm4v", "glm4v_moe"), (r"<\|end_of_image\|>(\d+)", lambda times: [f"{int(t)}" for t in times[::2]])
    ),
}
"""How families write times before frames, and which they write."""
BESIDE_THE_PROMPT = {"qwen2_5_vl"}
NOWHERE = set(RECIPES) - {*IN_THE_PROMPT, *BESIDE_THE_PROMPT}
"""Families whose prompts hold no time: they must not depend on them (see the test)."""


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("uneven") / "a.mp4"
    return write_video(path, num_frames=len(UNEVEN), size=(48, 64), times=UNEVEN)


def inputs_of(processor: ClipProcessor, video: Path) -> PromptInputs:
    return processor.prompt_inputs(Prompt("what is it?"), read_clip(video, EIGHT))


def test_frames_are_those_shown_at_equal_times(uneven: Path):
    clip = read_clip(uneven, EIGHT)
    middles = [(2 * i + 1) * clip.duration / 16 for i in range(8)]
    expected = [max(number for number, time in enumerate(UNEVEN) if time <= middle) for middle in middles]
    assert (
        [read_number(frame) for frame in clip.frames.numpy()]
        == list(clip.indices)
        == expected
        == [7, 9, 9, 9, *[10] * 4]
    )
    assert clip.timestamps == pytest.approx([UNEVEN[number] for number in expected])
    assert not clip.steady


@pytest.mark.parametrize("name", IN_THE_PROMPT)
def test_times_in_the_prompt(name: str, uneven: Path, family_folder: Callable[[str], Path]):
    pattern, expected = IN_THE_PROMPT[name]
    told = re.findall(pattern, inputs_of(ClipProcessor(str(family_folder(name))), uneven).text)
    assert told == expected(read_clip(uneven, EIGHT).timestamps)


@pytest.mark.parametrize("name", sorted(BESIDE_THE_PROMPT))
def test_times_beside_the_prompt(name: str, uneven: Path, family_folder: Callable[[str], Path]):
    seconds = inputs_of(ClipProcessor(str(family_folder(name))), uneven).vision["second_per_grid_ts"]
    assert seconds.tolist() == pytest.approx([2 * read_clip(uneven, EIGHT).duration / 8])


@pytest.mark.parametrize("name", sorted(NOWHERE))
def test_families_that_are_told_no_times(name: str, uneven: Path, tmp_path: Path, family_folder: Callable[[str], Path]):
    processor = ClipProcessor(str(family_folder(name)))
    steady = write_video(tmp_path / "a.mp4", num_frames=12, size=(48, 64), fps=3)
    one, other = inputs_of(processor, uneven), inputs_of(processor, steady)
    assert torch.equal(one.ids, other.ids) and "second_per_grid_ts" not in one.vision


@pytest.mark.parametrize("name", IN_THE_PROMPT)
def test_times_at_one_rate_are_told_as_ever(name: str, tmp_path: Path, family_folder: Callable[[str], Path]):
    video = write_video(tmp_path / "a.mp4", num_frames=80, size=(48, 64), fps=10)
    clip = read_clip(video, EIGHT)
    assert clip.steady and clip.metadata()["frames_indices"] == [5, 15, 25, 35, 45, 55, 65, 75]
    pattern, expected = IN_THE_PROMPT[name]
    told = re.findall(pattern, inputs_of(ClipProcessor(str(family_folder(name))), video).text)
    assert told == expected([0.5 + number for number in range(8)])
