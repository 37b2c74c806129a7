"""Real files that break video readers: exactly the frames of a full decode, or a refusal that says why."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from tests.support.videos import decode_plainly

from rbft.errors import VideoError
from rbft.video.clip import read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.container import probe
from rbft.video.reader import count_frames, open_reader, read_frames
from rbft.video.sampling import FrameSampling

pytestmark = pytest.mark.media

# Whole-clip reads of these must be refused; the reasons are those a person should see.
REFUSED = {
    "decord_corrupted.mp4": "is damaged",
    "derived_lfs_pointer.mp4": "Git LFS pointer",
    "derived_text_named.mp4": "is text",
    "derived_truncated_50pct_ucf.avi": "declares 141 frames and 73 are there",
    "derived_truncated_60pct_fi001.mp4": "incomplete mp4",
    "derived_zero_bytes.mp4": "is empty",
    "moviepy_result.webm": "is empty",
    "tc_nasa_13013_audio.mp3": "accepted format",
    "tc_sine_mono_s16.wav": "accepted format",
}


def rows(media_root: Path) -> list[dict[str, str]]:
    with (media_root / "hard.csv").open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.slow
def test_every_file_is_read_exactly_or_refused_with_a_reason(media_root: Path) -> None:
    rng = np.random.default_rng(0)
    listed = rows(media_root)
    assert len(listed) > 50
    for row in listed:
        name, path = row["file"], media_root / "hard" / row["file"]
        if name in REFUSED:
            with pytest.raises(VideoError) as refused:
                read_clip(name, ClipSpec(FrameSampling(num_frames=1000)), root=media_root / "hard")
            assert str(refused.value).startswith(f"{name}: ") and REFUSED[name] in str(refused.value)
            continue
        total = int(row["decoded_frames"])
        indices = [*rng.integers(0, total, 10).tolist(), 0, total - 1]
        count, expected = decode_plainly(path, set(indices))
        assert count == count_frames(path) == total, name
        info = probe(path)
        assert info.orientation.rotation == int(row["rotation_degrees"]) % 360, name
        assert info.start == pytest.approx(float(row["start_seconds"] or 0)), name
        assert info.declared_frames == int(row["declared_frames"]), name
        assert (info.height, info.width) == expected[0].shape[1:], name
        with open_reader(path) as reader:
            assert (reader.index.num_frames, reader.index.loss) == (total, None), name
            decoded = reader.read(indices)
        for index, frame in zip(indices, decoded.frames.numpy(), strict=True):
            assert np.array_equal(frame, expected[index]), (name, index)
        assert np.array_equal(np.argsort(decoded.timestamps, kind="stable"), np.argsort(indices, kind="stable")), name
        clip = read_clip(path, ClipSpec(FrameSampling(num_frames=8), 112 * 112))
        assert clip.total_num_frames == total and clip.fps > 0 and clip.duration > 0, name


def test_whole_parts_of_broken_files_can_be_read(media_root: Path) -> None:
    truncated, corrupted = (
        media_root / "hard" / name for name in ("derived_truncated_50pct_ucf.avi", "decord_corrupted.mp4")
    )
    assert count_frames(truncated) == 72  # the 73rd is cut in two
    assert len(read_frames(truncated, range(72)).frames) == 72
    assert count_frames(corrupted) == 29
    assert len(read_frames(corrupted, range(29)).frames) == 29
    with pytest.raises(VideoError, match=r"frame 29 .* is damaged"):
        read_frames(corrupted, [29])


@pytest.mark.slow
def test_a_real_data_set_is_read_without_a_refusal(media_root: Path) -> None:
    paths = sorted((media_root / "fights").rglob("*.mp4"))
    assert len(paths) == 300
    for path in paths:
        clip = read_clip(path.relative_to(media_root), ClipSpec(FrameSampling(num_frames=4), 112 * 112), media_root)
        assert clip.frames.shape[0] == 4
