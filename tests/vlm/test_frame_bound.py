"""A bound on pixels is a bound on visual tokens in families that take any frame size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.videos import write_video

from rbft.video.clip import read_clip
from rbft.video.sampling import FrameSampling
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "wide.mp4"
    write_video(path, num_frames=8, size=(90, 160), fps=8)
    return path


def tokens(processor: ClipProcessor, video: Path, max_pixels: int | None) -> tuple[int, tuple[int, ...]]:
    spec = processor.clip_spec(FrameSampling(num_frames=8), max_pixels)
    assert spec.sized == (max_pixels is not None)
    clip = read_clip(video, spec, video.parent)
    inputs = processor.prompt_inputs(Prompt("what?"), clip, sized=spec.sized)
    return processor.count_visual_tokens(inputs.ids), tuple(clip.frames.shape[-2:])


@pytest.mark.parametrize("name", QWEN)
@pytest.mark.parametrize("max_pixels", [300, 600, 1100, 2000])
def test_tokens_stay_below_the_bound(name: str, max_pixels: int, video: Path, family_folder: Callable[[str], Path]):
    processor = ClipProcessor(str(family_folder(name)))
    assert processor.cell == 16
    count, (height, width) = tokens(processor, video, max_pixels)
    assert height % 16 == 0 and width % 16 == 0
    assert height * width <= max_pixels
    # one token for each cell of each pair of frames: no frame was enlarged behind our back
    assert count == 4 * (height // 16) * (width // 16)


@pytest.mark.parametrize("name", QWEN[:2])
def test_the_processors_own_largest_frame_holds(name: str, video: Path, family_folder: Callable[[str], Path]):
    processor = ClipProcessor(str(family_folder(name)))
    assert processor.clip_spec(FrameSampling(num_frames=8), 10**9).max_pixels == 2048
    assert tokens(processor, video, 10**9)[0] <= 4 * 2048 // 256


def test_a_frame_smaller_than_a_cell_is_enlarged(tmp_path: Path, family_folder: Callable[[str], Path]):
    path = tmp_path / "small.mp4"
    write_video(path, num_frames=8, size=(12, 12), fps=8)
    assert tokens(ClipProcessor(str(family_folder("qwen2_5_vl"))), path, 2000)[0] >= 4


@pytest.mark.parametrize("name", ["smolvlm", "llava_onevision", "internvl"])
def test_families_of_one_frame_size_keep_their_tokens(name: str, video: Path, family_folder: Callable[[str], Path]):
    processor = ClipProcessor(str(family_folder(name)))
    assert processor.cell is None
    assert tokens(processor, video, 600)[0] == tokens(processor, video, None)[0] > 0
