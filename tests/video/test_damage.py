"""Files that are cut short or hit inside: every frame that is given out is intact, the others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tests.support.videos import decode_plainly, numbered_frames, read_number, write_video

from rbft.errors import VideoError
from rbft.video import reader as reader_module
from rbft.video.reader import FrameMissingError, count_frames, open_reader, read_frames

NUM_FRAMES = 40


def noisy_frames() -> np.ndarray:
    """Numbered frames that cost enough bytes for a cut or a hit to matter."""
    noise = np.random.default_rng(1).integers(0, 30, (NUM_FRAMES, 96, 128, 3), np.uint8)
    return numbered_frames(NUM_FRAMES) + noise


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("a.avi", {"codec": "mpeg4", "codec_options": {"qmax": "4"}}),
        ("a.mp4", {"container_options": {"movflags": "faststart"}}),
        ("a.mkv", {}),
        ("a.webm", {"codec": "libvpx-vp9"}),
        ("a.flv", {}),
    ],
)
def test_half_a_file_reads_up_to_the_cut(file: str, how: dict[str, Any], tmp_path: Path) -> None:
    path = write_video(tmp_path / file, noisy_frames(), **how)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with open_reader(path) as reader:
        index = reader.index
        assert index.loss is not None and index.loss.startswith("is cut short: its header declares")
        assert 5 < index.num_frames < NUM_FRAMES
        assert read_number(reader.read([5]).frames[0].numpy()) == 5
        if file in ("a.avi", "a.mp4"):  # the others leave out the packet that is cut in two
            with pytest.raises(VideoError, match="is damaged: the container marks its data as incomplete"):
                reader.read([index.num_frames - 1])
    with pytest.raises(
        FrameMissingError, match=rf"frame 39 does not exist: {index.num_frames} frames can be read"
    ) as no:
        read_frames(path, [39])
    if index.declared_frames:
        assert "its header declares 40" in no.value.reason


def damage(path: Path, packet_number: int) -> None:
    """Overwrites the middle of the n-th packet (in order of decoding) with zeros.

    Those are no valid code in the codings used here. What happens to be valid shows as a wrong picture and no decoder
    can tell.
    """
    with av.open(str(path)) as container:
        packet = next(p for i, p in enumerate(container.demux(video=0)) if i == packet_number)
        start, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[start + size // 4 : start + size * 3 // 4] = bytes(size * 3 // 4 - size // 4)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("a.mp4", {"codec_options": {"x264-params": "scenecut=0:cabac=0"}}),
        ("a.avi", {"codec": "mpeg4"}),
        ("a.ts", {"codec": "mpeg2video"}),
        ("a.avi", {"codec": "mpeg4", "bframes": 2}),
    ],
)
def test_damage_spreads_to_the_next_key_frame_and_no_further(file: str, how: dict[str, Any], tmp_path: Path) -> None:
    path = write_video(tmp_path / file, noisy_frames(), gop=12, **how)
    clean = decode_plainly(path)[1]
    damage(path, 16)
    intact = []
    for i in range(NUM_FRAMES):
        try:
            frame = read_frames(path, [i]).frames[0].numpy()
        except VideoError as error:
            assert f"{file}: frame {i} (at {i / 25:.2f} s) is damaged: " in str(error)
        else:
            assert np.array_equal(frame, clean[i]), f"frame {i} is damaged and was given out"
            intact.append(i)
    assert set(range(12)) <= set(intact)
    assert set(range(24, NUM_FRAMES)) <= set(intact)
    assert not {17, 18, 19, 20} & set(intact)
    assert count_frames(path) == len(intact)


def test_b_frames_before_a_damaged_picture_are_refused_with_it(tmp_path: Path) -> None:
    # Decoded after the picture they refer to, displayed before it: the error must not be noticed too late.
    options = {"x264-params": "b-adapt=0:scenecut=0:b-pyramid=none:cabac=0"}
    path = write_video(tmp_path / "a.mp4", noisy_frames(), gop=40, bframes=3, codec_options=options)
    clean = decode_plainly(path)[1]
    damage(path, 5)  # I0 P4 B1 B2 B3 P8: the one that is displayed as frame 8
    for i in (5, 6, 7, 8, 12):
        with pytest.raises(VideoError, match=f"frame {i} .* is damaged"):
            read_frames(path, [i])
    for i in (0, 1, 2, 3, 4):
        assert np.array_equal(read_frames(path, [i]).frames[0].numpy(), clean[i])


def test_damage_that_only_seeking_brings_about_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Decoders may complain about pictures that refer to what comes before the key frame where they were started.
    path = write_video(tmp_path / "a.mp4", num_frames=NUM_FRAMES, bframes=2)

    class Complaining(reader_module.DecodingRun):
        def __init__(self, decoder: Any, skip: bool) -> None:
            super().__init__(decoder, skip)
            if skip:
                self._damage.append((1, "refers to nothing"))

    monkeypatch.setattr(reader_module, "DecodingRun", Complaining)
    assert read_number(read_frames(path, [23]).frames[0].numpy()) == 23
