"""A clip from a part of a video is the clip of that part, as if it were a video of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.videos import UNEVEN, read_number, write_video

from rbft.errors import ConfigError, VideoError
from rbft.files import file_digest
from rbft.video import reader
from rbft.video.clip import Clip, read_clip
from rbft.video.clip_cache import ClipCache
from rbft.video.clip_entry import clip_key
from rbft.video.clip_spec import ClipSpec
from rbft.video.frame_index import build_index
from rbft.video.sampling import FrameSampling

FOUR = ClipSpec(FrameSampling(num_frames=4))


def part(start: float, end: float) -> ClipSpec:
    return FOUR.of_part((start, end))


def numbers(clip: Clip) -> list[int]:
    return [read_number(frame.numpy()) for frame in clip.frames]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty numbered frames, ten a second."""
    return write_video(tmp_path_factory.mktemp("parts") / "long.mp4", num_frames=60, fps=10)


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "untimed.avi"])
def test_frames_are_those_of_the_part_and_times_count_from_its_start(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, num_frames=60, fps=10, bframes=2 if name == "untimed.avi" else 0)
    clip = read_clip(path, part(2.0, 4.0))
    assert numbers(clip) == [22, 27, 32, 37]
    assert clip.indices == (2, 7, 12, 17)
    assert clip.timestamps == pytest.approx((0.2, 0.7, 1.2, 1.7))
    assert (clip.total_num_frames, clip.fps) == (20, pytest.approx(10))
    assert clip.duration == pytest.approx(2.0)
    assert clip.metadata()["frames_indices"] == [2, 7, 12, 17]


def test_a_part_that_is_all_of_it_is_the_whole(video: Path) -> None:
    whole, all_of_it = read_clip(video, FOUR), read_clip(video, part(0, 6.0))
    assert torch.equal(whole.frames, all_of_it.frames)
    assert whole.metadata() == all_of_it.metadata() and whole.timestamps == all_of_it.timestamps


def test_the_end_of_a_video_ends_a_part(video: Path) -> None:
    clip = read_clip(video, part(5.0, 9.0))
    assert numbers(clip) == [51, 53, 56, 58]
    assert clip.duration == pytest.approx(1.0)
    with pytest.raises(VideoError, match=r"long\.mp4: shows no frame between 6\.5 and 7 s"):
        read_clip(video, part(6.5, 7.0))


def test_windows_next_to_each_other_share_no_frame_and_miss_none(video: Path) -> None:
    every = FrameSampling(fps=10.0)
    seen = []
    for start in range(0, 6, 2):
        seen += numbers(read_clip(video, ClipSpec(FrameSampling(fps=every.fps, part=(start, start + 2)))))
    assert seen == list(range(60))


def test_the_index_of_a_long_video_is_built_once(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(reader, "build_index", lambda opened: built.append(1) or build_index(opened))
    reader._INDICES.clear()
    reader._OPEN.clear()
    for start in range(4):
        read_clip(video, part(start, start + 2))
    assert len(built) == 1
    write_video(video, num_frames=30, fps=10)
    with pytest.raises(VideoError, match="shows no frame"):
        read_clip(video, part(4, 6))
    assert len(built) == 2
    for number in range(6):
        read_clip(write_video(video.with_name(f"{number}.mp4"), num_frames=20), part(0, 1))
    assert len(reader._INDICES) == 4 and len(reader._OPEN) == 2
    write_video(video, num_frames=60, fps=10)


def test_parts_are_kept_apart_in_the_cache(video: Path, tmp_path: Path) -> None:
    cache = ClipCache(tmp_path, 10**9, file_digest)
    for _ in range(2):
        assert numbers(cache.read(video, part(0, 2))) == [2, 7, 12, 17]
        assert numbers(cache.read(video, part(2, 4))) == [22, 27, 32, 37]
        assert numbers(cache.read(video, FOUR)) == [7, 22, 37, 52]
    assert len({clip_key("x", spec) for spec in (FOUR, part(0, 2), part(2, 4))}) == 3


def test_a_part_without_a_new_frame_shows_the_one_that_stands_there(tmp_path: Path) -> None:
    uneven = write_video(tmp_path / "uneven.mp4", num_frames=12, times=UNEVEN)
    still = read_clip(uneven, part(2, 4))
    assert numbers(still) == [9] * 4 and still.timestamps == (0.0,) * 4 and still.duration == pytest.approx(2)
    changing = read_clip(uneven, part(5, 8))
    assert numbers(changing) == [9, 10, 10, 10]
    assert changing.timestamps == pytest.approx((0.0, 1.0, 1.0, 1.0))
    assert changing.metadata()["frames_indices"] == [0, 1000, 1000, 1000]
    assert numbers(read_clip(uneven, part(0, 1))) == [1, 3, 6, 8]
    sparse = write_video(tmp_path / "sparse.mp4", num_frames=5, times=[number * 600 for number in range(5)])
    assert numbers(read_clip(sparse, part(60, 120))) == [0] * 4
    assert numbers(read_clip(sparse, part(590, 650))) == [1] * 4
    with pytest.raises(VideoError, match="shows no frame between 5000 and 5060 s"):
        read_clip(sparse, part(5000, 5060))


@pytest.mark.parametrize("wrong", [(-1.0, 2.0), (2.0, 2.0), (3.0, 1.0)])
def test_parts_that_are_none_are_refused(wrong: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="part must be a start and a later end"):
        FrameSampling(num_frames=4, part=wrong)
