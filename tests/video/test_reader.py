"""The reader gives exactly the frames that a decoding of the whole file displays, or refuses."""

from __future__ import annotations

import gc
import os
import sys
from dataclasses import replace
from itertools import pairwise
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
X265 = "log-level=none:pools=none:frame-threads=1"
OPEN_GOP = {"x264-params": "open-gop=1:scenecut=0"}
UNEVEN = np.cumsum([0.0] + [(0.01, 0.02, 0.04, 0.1, 0.3)[i % 5] for i in range(NUM_FRAMES - 1)])

# Name: (file, how it is written). What of these has time stamps that name the frames is read by seeking.
BY_SEEKING: dict[str, tuple[str, dict[str, Any]]] = {
    "mp4 short groups": ("a.mp4", {"gop": 12}),
    "mp4 b-frames": ("a.mp4", {"gop": 30, "bframes": 3}),
    "mp4 one group": ("a.mp4", {"gop": 250, "bframes": 7, "codec_options": {"x264-params": "b-pyramid=strict:ref=5"}}),
    "mp4 intra only": ("a.mp4", {"gop": 1}),
    "mp4 open groups": ("a.mp4", {"gop": 8, "bframes": 3, "codec_options": OPEN_GOP}),
    "mp4 fragments": ("a.mp4", {"bframes": 2, "container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "mp4 hevc": ("a.mp4", {"codec": "libx265", "bframes": 3, "codec_options": {"x265-params": X265}}),
    "mp4 hevc open groups": (
        "a.mp4",
        {"codec": "libx265", "gop": 8, "bframes": 3, "codec_options": {"x265-params": f"{X265}:open-gop=1:scenecut=0"}},
    ),
    "mp4 mpeg4": ("a.mp4", {"codec": "mpeg4", "bframes": 2}),
    "mp4 av1": ("a.mp4", {"codec": "libsvtav1", "codec_options": {"preset": "12", "svtav1-params": "lp=1"}}),
    "mp4 10 bit": ("a.mp4", {"pix_fmt": "yuv420p10le", "bframes": 2}),
    "mp4 4:4:4": ("a.mp4", {"pix_fmt": "yuv444p", "bframes": 2}),
    "mp4 variable rate": ("a.mp4", {"bframes": 2, "times": UNEVEN}),
    "mp4 late start": ("a.mp4", {"bframes": 2, "times": np.arange(NUM_FRAMES) / 25 + 3.2}),
    "mov rotated": ("a.mov", {"bframes": 2, "rotation": 90}),
    "mov prores": ("a.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
    "mkv": ("a.mkv", {"bframes": 2}),
    "mkv open groups": ("a.mkv", {"gop": 8, "bframes": 3, "codec_options": OPEN_GOP}),
    "mkv variable rate": ("a.mkv", {"bframes": 2, "times": UNEVEN}),
    "mkv without duration and cues": ("a.mkv", {"bframes": 2, "container_options": {"live": "1"}}),
    "webm vp8": ("a.webm", {"codec": "libvpx"}),
    "webm vp9": ("a.webm", {"codec": "libvpx-vp9", "codec_options": {"auto-alt-ref": "1", "lag-in-frames": "25"}}),
    "avi mpeg4": ("a.avi", {"codec": "mpeg4"}),
    "avi mjpeg": ("a.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "ts": ("a.ts", {"bframes": 2}),
    "ts open groups": ("a.ts", {"gop": 8, "bframes": 3, "codec_options": OPEN_GOP}),
    "ts mpeg2": ("a.ts", {"codec": "mpeg2video", "bframes": 2}),
    "flv": ("a.flv", {"bframes": 2}),
    "wmv": ("a.wmv", {"codec": "wmv2"}),
    "gif": ("a.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
}
# What is decoded from the start: no usable time stamps, or decoding cannot start where the container says.
FROM_THE_START: dict[str, tuple[str, dict[str, Any]]] = {
    "raw h264": ("a.h264", {"bframes": 2}),
    "raw hevc": ("a.hevc", {"codec": "libx265", "bframes": 2, "codec_options": {"x265-params": X265}}),
    "avi mpeg4 b-frames": ("a.avi", {"codec": "mpeg4", "bframes": 2}),
    "avi h264": ("a.avi", {"bframes": 2}),
    "mpeg2 program stream": ("a.mpg", {"codec": "mpeg2video", "bframes": 2}),
    "interlaced": ("a.ts", {"bframes": 2, "codec_options": {"x264-params": "interlaced=1"}}),
    "intra refresh": ("a.mp4", {"codec_options": {"x264-params": "intra-refresh=1"}}),
}


def check_every_frame(path: Path) -> None:
    count, expected = decode_plainly(path)
    assert count == count_frames(path) == NUM_FRAMES
    shuffled = np.random.default_rng(0).permutation(NUM_FRAMES).tolist()
    with open_reader(path) as reader:
        assert reader.index.num_frames == NUM_FRAMES
        assert reader.index.loss is None
        for wanted in ([[i] for i in range(NUM_FRAMES)], [shuffled, [39, 0, 39, 7, 7, 20]]):
            for indices in wanted:
                decoded = reader.read(indices)
                assert decoded.indices == tuple(indices)
                for index, frame in zip(indices, decoded.frames.numpy(), strict=True):
                    assert np.array_equal(frame, expected[index]), index


@pytest.mark.parametrize("name", BY_SEEKING)
def test_every_frame_by_seeking(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, how = BY_SEEKING[name]
    path = write_video(tmp_path / file, num_frames=NUM_FRAMES, **how)

    def refuse(*_: object) -> None:
        raise AssertionError("decoded from the start although time stamps name the frames")

    monkeypatch.setattr(reader_module.VideoReader, "_read_from_start", refuse)
    check_every_frame(path)
    turns = how.get("rotation", 0) // 90
    numbers = [read_number(np.rot90(f.numpy(), -turns, (1, 2))) for f in read_frames(path, range(NUM_FRAMES)).frames]
    assert numbers == list(range(NUM_FRAMES))


@pytest.mark.parametrize("name", FROM_THE_START)
def test_every_frame_from_the_start(name: str, tmp_path: Path) -> None:
    file, how = FROM_THE_START[name]
    path = write_video(tmp_path / file, num_frames=NUM_FRAMES, **how)
    check_every_frame(path)
    numbers = [read_number(frame.numpy()) for frame in read_frames(path, range(NUM_FRAMES)).frames]
    assert numbers == list(range(NUM_FRAMES))


@pytest.mark.parametrize(("file", "start"), [("a.mp4", 0.0), ("a.mp4", 3.2), ("a.mkv", 3.2), ("a.ts", 0.0)])
def test_timestamps_are_real_and_start_at_zero(file: str, start: float, tmp_path: Path) -> None:
    path = write_video(tmp_path / file, num_frames=NUM_FRAMES, bframes=2, times=UNEVEN + start)
    decoded = read_frames(path, [0, 11, 3, 39])
    assert decoded.timestamps == pytest.approx([UNEVEN[i] for i in (0, 11, 3, 39)], abs=0.0011)


def test_timestamps_without_times_follow_the_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", num_frames=20, fps=10, codec="mpeg4", bframes=2)
    assert read_frames(path, [0, 5, 19]).timestamps == pytest.approx([0, 0.5, 1.9])


@pytest.mark.parametrize("hidden", [10, 30])  # within the first group of pictures, and more than two groups
def test_an_edit_list_hides_frames(hidden: int, tmp_path: Path) -> None:
    times = (np.arange(NUM_FRAMES) - hidden) / 25
    path = write_video(tmp_path / "a.mp4", num_frames=NUM_FRAMES, bframes=2, times=times)
    with open_reader(path) as reader:
        assert (reader.index.declared_frames, reader.index.loss) == (NUM_FRAMES, None)
        assert reader.index.num_frames == NUM_FRAMES - hidden
        numbers = [read_number(reader.read([i]).frames[0].numpy()) for i in range(NUM_FRAMES - hidden)]
    assert numbers == list(range(hidden, NUM_FRAMES))
    assert count_frames(path) == NUM_FRAMES - hidden


def test_repeated_time_stamps_name_nothing(tmp_path: Path) -> None:
    # Matroska rounds to milliseconds, of which several frames share one at this rate.
    path = write_video(tmp_path / "a.mkv", num_frames=NUM_FRAMES, fps=3000, bframes=2)
    with open_reader(path) as reader:
        assert not reader.index.timed
        numbers = [read_number(frame.numpy()) for frame in reader.read(range(NUM_FRAMES)).frames]
    assert numbers == list(range(NUM_FRAMES))


@pytest.mark.parametrize("changed", ["sizes", "keyframes"])
def test_another_packet_under_the_same_time_stamp_is_noticed(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []
    count = reader_module.VideoReader._read_from_start
    monkeypatch.setattr(reader_module.VideoReader, "_read_from_start", lambda *args: (counted.append(1), count(*args)))
    with open_reader(write_video(tmp_path / "a.mp4", num_frames=NUM_FRAMES, bframes=2)) as reader:
        assert read_number(reader.read([20]).frames[0].numpy()) == 20
        assert not counted
        # As if demuxing after a seek gave packets other than those that were indexed.
        index = reader.index
        other = index.sizes + 1 if changed == "sizes" else index.keyframes + np.array([0, 0, 1])
        reader.index = replace(index, **{changed: other})
        assert read_number(reader.read([20]).frames[0].numpy()) == 20
        assert counted


def test_the_first_film_of_several_streams(tmp_path: Path) -> None:
    path = tmp_path / "several.mkv"
    with av.open(str(path), "w") as output:
        audio = output.add_stream("aac", rate=48000, layout="mono")
        first, second = output.add_stream("libx264", rate=25), output.add_stream("libx264", rate=25)
        for stream, (height, width) in ((first, (96, 128)), (second, (48, 64))):
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for i, pixels in enumerate(numbered_frames(30)):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 48000, 1024 * i
            output.mux(audio.encode(sound))
            output.mux(first.encode(av.VideoFrame.from_ndarray(pixels)))
            output.mux(second.encode(av.VideoFrame.from_ndarray(pixels[::2, ::2].copy())))
        for stream in (audio, first, second):
            output.mux(stream.encode())
    decoded = read_frames(path, [0, 29, 13])
    assert decoded.frames.shape == (3, 3, 96, 128)
    assert [read_number(frame.numpy()) for frame in decoded.frames] == [0, 29, 13]


def test_a_frame_that_does_not_exist(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=10)
    for index in (10, -1):
        with pytest.raises(FrameMissingError, match=rf"a\.mp4: frame {index} does not exist: 10 frames can be read"):
            read_frames(path, [0, index])
    with pytest.raises(ValueError, match="at least one frame"):
        read_frames(path, [])


def test_only_the_needed_part_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=200, gop=20, bframes=3)
    fed: list[tuple[int, bool]] = []
    feed = reader_module.DecodingRun.feed

    def spy(self: Any, packet: Any, wanted: bool = True) -> Any:
        fed.append((packet.pts, wanted))
        return feed(self, packet, wanted)

    monkeypatch.setattr(reader_module.DecodingRun, "feed", spy)
    decoded = read_frames(path, [2, 101])
    assert [read_number(frame.numpy()) for frame in decoded.frames] == [2, 101]
    assert len(fed) < 16
    assert sum(wanted for _, wanted in fed) == 2


def test_order_of_reading_does_not_matter(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=NUM_FRAMES, gop=8, bframes=2)
    with open_reader(path) as reader:
        for first, second in pairwise([0, 39, 3, 17, 16, 39, 1]):
            assert read_number(reader.read([first]).frames[0].numpy()) == first
            assert read_number(reader.read([second]).frames[0].numpy()) == second


@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
@pytest.mark.parametrize("file", ["a.mp4", "a.avi", "a.h264"])
def test_nothing_is_left_open(file: str, tmp_path: Path) -> None:
    codec = "mpeg4" if file == "a.avi" else "libx264"
    path = write_video(tmp_path / file, num_frames=10, bframes=2, codec=codec)
    broken = tmp_path / f"broken_{file}"
    broken.write_bytes(path.read_bytes()[:700])

    def use() -> tuple[int, int]:
        for _ in range(20):
            read_frames(path, [0, 9])
            with pytest.raises(VideoError):
                read_frames(path, [99])
            with pytest.raises(VideoError):
                read_frames(broken, [9])
        gc.collect()
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))  # noqa: PTH208

    assert use() == use()
