"""What demuxing alone tells: which packets display a frame, when, and whether the file is whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from tests.support.videos import numbered_frames, read_number, remux, write_gif, write_video

from rbft.errors import VideoError
from rbft.video.clip import read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.reader import FrameMissingError, count_frames, open_reader, read_frames
from rbft.video.sampling import FrameSampling


def test_reference_pictures_of_vp8_are_not_counted(tmp_path: Path) -> None:
    shown = write_video(tmp_path / "a.webm", num_frames=30, codec="libvpx", gop=30)
    hidden = {4, 5, 11}  # clear bit 4 of the first byte: decode, do not show (RFC 6386, 9.1)
    path = remux(
        shown, tmp_path / "b.webm", lambda i, data: bytes([data[0] & ~0x10]) + data[1:] if i in hidden else data
    )
    expected = [i for i in range(30) if i not in hidden]
    assert count_frames(path) == len(expected)
    with open_reader(path) as reader:
        assert (reader.index.timed, reader.index.num_frames) == (True, len(expected))
        for i, number in enumerate(expected):
            assert read_number(reader.read([i]).frames[0].numpy()) == number


def test_a_film_cut_in_the_middle_of_a_group(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", num_frames=40, gop=10, bframes=2)
    path = remux(whole, tmp_path / "cut.mkv", lambda i, data: data if i >= 5 else None)
    # The decoder displays nothing before the first key frame, so packets cannot be counted as frames.
    with open_reader(path) as reader:
        assert (reader.index.timed, reader.index.num_frames) == (False, 35)
        assert [read_number(frame.numpy()) for frame in reader.read(range(30)).frames] == list(range(10, 40))
    with pytest.raises(FrameMissingError, match="frame 34 does not exist: 30 frames can be read"):
        read_frames(path, [34])
    clip = read_clip(path, ClipSpec(FrameSampling(num_frames=30)))
    assert (clip.total_num_frames, clip.indices) == (30, tuple(range(30)))


def nothing_changed(number: int) -> bytes:
    """An mpeg4 picture of the first second at 25 per second with vop_coded = 0 (ISO/IEC 14496-2, 6.2.5).

    Start code; type P, no whole second passed, marker, 5 bits of time, marker, not coded; padding.
    """
    return b"\0\0\1\xb6" + (0b0101 << 12 | number << 7 | 0b10_11111).to_bytes(2, "big")


def test_mpeg4_pictures_that_say_nothing_changed(tmp_path: Path) -> None:
    moving = write_video(tmp_path / "a.mp4", num_frames=20, codec="mpeg4", gop=20)
    path = remux(moving, tmp_path / "b.mp4", lambda i, data: nothing_changed(i) if i in (7, 8) else data)
    assert count_frames(path) == 18
    with open_reader(path) as reader:
        assert not reader.index.timed
    clip = read_clip(path, ClipSpec(FrameSampling(num_frames=18)))
    assert (clip.total_num_frames, clip.indices) == (18, tuple(range(18)))


def write_with_sound(path: Path, film_seconds: float, sound_seconds: int, start: float = 0.0) -> Path:
    """Numbered frames at 25 per second with silence beside them."""
    codecs = {".webm": ("libvpx-vp9", "libopus"), ".avi": ("mpeg4", "ac3")}
    video_codec, audio_codec = codecs.get(path.suffix, ("libx264", "aac"))
    rate = 44100 if path.suffix == ".flv" else 48000
    with av.open(str(path), "w") as output:
        picture, sound = (
            output.add_stream(video_codec, rate=25),
            output.add_stream(audio_codec, rate=rate, layout="mono"),
        )
        picture.width, picture.height, picture.pix_fmt = 128, 96, "yuv420p"
        pictures = enumerate(numbered_frames(round(25 * film_seconds)))
        for second in range(max(math.ceil(film_seconds), sound_seconds)):
            for number, pixels in islice(pictures, 25):
                frame = av.VideoFrame.from_ndarray(pixels)
                frame.pts, frame.time_base = number + round(25 * start), Fraction(1, 25)
                output.mux(picture.encode(frame))
            for k in range(rate * second // 1024, rate * (second + 1) // 1024 if second < sound_seconds else 0):
                block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = rate, 1024 * k + round(rate * start), Fraction(1, rate)
                output.mux(sound.encode(block))
        output.mux(picture.encode())
        output.mux(sound.encode())
    return path


@pytest.mark.parametrize("file", ["a.mp4", "a.mkv", "a.webm", "a.flv", "a.ts", "a.avi"])
@pytest.mark.parametrize(("film_seconds", "sound_seconds"), [(1, 3), (3, 1)])
def test_sound_of_another_length_is_no_loss(file: str, film_seconds: int, sound_seconds: int, tmp_path: Path) -> None:
    path = write_with_sound(tmp_path / file, film_seconds, sound_seconds)
    clip = read_clip(path, ClipSpec(FrameSampling(num_frames=4)))
    assert (clip.total_num_frames, clip.duration) == (25 * film_seconds, pytest.approx(film_seconds))


def test_one_picture_with_sound_is_no_loss(tmp_path: Path) -> None:
    path = write_with_sound(tmp_path / "a.ts", 0.04, 10)
    assert read_clip(path, ClipSpec(FrameSampling(num_frames=2))).total_num_frames == 1


def test_a_stream_that_turns_up_on_the_way(tmp_path: Path) -> None:
    silent = write_video(tmp_path / "silent.ts", num_frames=200)  # 8 s, more than opening looks at
    loud = write_with_sound(tmp_path / "loud.ts", 2, 2, start=8.0)
    path = tmp_path / "a.ts"
    path.write_bytes(silent.read_bytes() + loud.read_bytes())
    assert count_frames(path) >= 248  # the break in the numbering of its packets may mark a frame on each side
    with open_reader(path) as reader:
        assert (reader.index.num_frames, reader.index.loss) == (250, None)
        numbers = [read_number(frame.numpy()) for frame in reader.read([*range(190), *range(210, 250)]).frames]
    assert numbers == [*range(190), *range(10, 50)]


@pytest.mark.parametrize("file", ["a.mkv", "a.webm", "a.avi", "a.mp4", "a.flv"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_clip_of_a_file_cut_short_is_refused(file: str, share: float, tmp_path: Path) -> None:
    codec = {"a.webm": "libvpx-vp9", "a.avi": "mpeg4"}.get(file, "libx264")
    noise = np.random.default_rng(0).integers(0, 30, (75, 96, 128, 3), np.uint8)
    options = {"a.avi": {"qmax": "4"}, "a.webm": {"deadline": "realtime", "cpu-used": "8"}}.get(file, {})
    where = {"movflags": "faststart"} if file == "a.mp4" else {}
    path = write_video(
        tmp_path / file, numbered_frames(75) + noise, codec=codec, codec_options=options, container_options=where
    )
    assert read_clip(path, ClipSpec(FrameSampling(num_frames=4))).total_num_frames == 75
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(VideoError, match=rf"{file}: is cut short: its header declares"):
        read_clip(path, ClipSpec(FrameSampling(num_frames=4)))


def test_fragments_after_a_table_of_contents(tmp_path: Path) -> None:
    flags = {"movflags": "frag_keyframe+empty_moov+global_sidx"}
    path = write_video(tmp_path / "a.mp4", num_frames=60, gop=10, container_options=flags)
    content = path.read_bytes()
    boundary = [i for i in range(len(content)) if content[i : i + 4] == b"moof"][4] - 4
    path.write_bytes(content[:boundary])  # between two fragments: every packet that is there is whole
    with open_reader(path) as reader:
        assert reader.index.loss is not None and "2.40 s" in reader.index.loss


@pytest.mark.parametrize(("file", "times"), [("a.mp4", 0.0), ("a.mkv", 5.0), ("a.ts", 0.0)])
def test_rate_and_duration_are_those_of_the_frames(file: str, times: float, tmp_path: Path) -> None:
    seconds = np.cumsum([0.0] + [0.02, 0.06] * 12)
    path = write_video(tmp_path / file, num_frames=25, bframes=2, times=seconds + times)
    with open_reader(path) as reader:
        assert reader.index.fps == pytest.approx(24 / seconds[-1], rel=1e-3)
        assert reader.index.duration == pytest.approx(seconds[-1] + 0.04, abs=0.03)


# Twenty a second, then two: frames 0 to 19 within the first second, 20 to 27 at 1.0, 1.5, ... 4.5 s.
SLOWING = [*(0.05 * i for i in range(20)), *(1 + 0.5 * i for i in range(8))]


def two_at_once(folder: Path, file: str) -> Path:
    """SLOWING, but that two frames have one time stamp: 9 and 10 are both at 0.45 s."""
    whole = write_video(
        folder / f"whole{file}", num_frames=28, times=SLOWING, gop=7, bframes=2 if file == ".mkv" else 0
    )
    return remux(whole, folder / f"two{file}", time=lambda stamp: 450 if stamp == 500 else stamp)


@pytest.mark.parametrize("file", [".mkv", ".flv"])
def test_a_repeated_time_stamp_takes_no_other_time_away(file: str, tmp_path: Path) -> None:
    path = two_at_once(tmp_path, file)
    with open_reader(path) as reader:
        index = reader.index
        assert (index.timed, index.steady, index.retimed, index.num_frames) == (False, False, True, 28)
        assert index.fps == pytest.approx(27 / 4.5) and 4.5 < index.duration < 5.1
        assert [index.timestamp(i) for i in (0, 9, 10, 11, 27)] == pytest.approx([0, 0.45, 0.45, 0.55, 4.5])
    clip = read_clip(path, ClipSpec(FrameSampling(fps=1.0)))
    assert [read_number(frame.numpy()) for frame in clip.frames] == [10, 20, 22, 24, 26]
    part = read_clip(path, ClipSpec(FrameSampling(num_frames=4)).of_part((2.0, 4.0)))
    assert [read_number(frame.numpy()) for frame in part.frames] == [22, 23, 24, 25]
    assert part.timestamps == pytest.approx((0.0, 0.5, 1.0, 1.5))


def paused(whole: Path, path: Path, change: Callable[[int, bytes], bytes | None] = lambda _, data: data) -> Path:
    """A video of 25 frames a second, changed, in which ten seconds pass before frame 30."""
    with av.open(str(whole)) as container:
        stream = container.streams.video[0]
        start, second = stream.start_time, 1 / stream.time_base
    return remux(whole, path, change, lambda stamp: stamp + int(10 * second * (stamp - start > 1.18 * second)))


@pytest.mark.parametrize("name", ["cut in a group", "interlaced", "unchanged pictures"])
def test_where_decoding_says_which_frames_there_are_it_says_when(name: str, tmp_path: Path) -> None:
    shown = [*range(60)]
    if name == "cut in a group":
        whole = write_video(tmp_path / "whole.ts", num_frames=60, gop=10)
        path, shown = paused(whole, tmp_path / "a.ts", lambda i, data: data if i >= 5 else None), shown[10:]
    elif name == "interlaced":
        fields = {"flags": "+ildct+ilme", "field_order": "tt"}
        path = paused(
            write_video(tmp_path / "whole.mkv", num_frames=60, codec="mpeg2video", codec_options=fields),
            tmp_path / "a.mkv",
        )
    else:
        whole = write_video(tmp_path / "whole.mp4", num_frames=60, codec="mpeg4", gop=60)
        path = paused(whole, tmp_path / "a.mp4", lambda i, data: nothing_changed(i) if i in (7, 8) else data)
        del shown[7:9]
    seconds = [i / 25 + (10 if i >= 30 else 0) for i in shown]
    with open_reader(path) as reader:
        index = reader.index
        assert (index.timed, index.steady, index.num_frames) == (False, False, len(shown))
        assert index.num_packets == len(shown) + {"cut in a group": 5, "interlaced": 0, "unchanged pictures": 2}[name]
        times = [index.timestamp(i) for i in range(len(shown))]
        assert times == pytest.approx([second - seconds[0] for second in seconds], abs=0.002)
    clip = read_clip(path, ClipSpec(FrameSampling(num_frames=8)))
    first, *still, last = (read_number(frame.numpy()) for frame in clip.frames)
    assert first < 30 and set(still) == {29} and last > 29
    part = read_clip(path, ClipSpec(FrameSampling(num_frames=2)).of_part((12.0 - seconds[0], 12.2 - seconds[0])))
    assert [read_number(frame.numpy()) for frame in part.frames] == [51, 53]


@pytest.mark.parametrize(
    ("durations", "numbers"),
    [
        ([100, 100, 100, 5000], [2, 3, 3, 3, 3, 3, 3, 3, 3, 3]),
        ([100, 900], [0, *[1] * 9]),
        ([100, 100, 100, 140], [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]),
        ([100, 100, 100, 10], [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]),
        ([5000], [0] * 10),
    ],
    ids=str,
)
def test_a_last_frame_counts_as_long_as_it_is_shown(durations: list[int], numbers: list[int], tmp_path: Path) -> None:
    path = write_gif(tmp_path / "a.gif", durations)
    clip = read_clip(path, ClipSpec(FrameSampling(num_frames=10)))
    assert [read_number(frame.numpy()) for frame in clip.frames] == numbers
    stays = durations[-1] > 150 and len(durations) > 1
    assert clip.duration == pytest.approx(sum(durations) / 1000) and clip.steady != stays
    with open_reader(path) as reader:
        assert reader.index.retimed == stays
    if stays:
        part = read_clip(path, ClipSpec(FrameSampling(num_frames=2)).of_part((0.5, 0.9)))
        assert [read_number(frame.numpy()) for frame in part.frames] == [len(durations) - 1] * 2


def test_where_the_rate_of_the_header_tells_all_times_it_does(tmp_path: Path) -> None:
    # Matroska rounds to milliseconds, of which several frames share one at this rate.
    fast = write_video(tmp_path / "a.mkv", num_frames=40, fps=3000)
    interlaced = write_video(tmp_path / "a.ts", num_frames=40, codec_options={"x264-params": "interlaced=1"})
    for path, rate in ((fast, 3000), (interlaced, 25)):
        with open_reader(path) as reader:
            index = reader.index
            assert (index.timed, index.steady, index.retimed) == (False, True, False)
            assert (index.fps, index.duration) == (rate, pytest.approx(40 / rate))


def test_recordings_in_one_file_with_a_clock_each_are_counted(tmp_path: Path) -> None:
    one = write_video(tmp_path / "one.ts", num_frames=25, bframes=2)
    path = tmp_path / "two.ts"
    path.write_bytes(one.read_bytes() * 2)
    with open_reader(path) as reader:
        assert (reader.index.timed, reader.index.steady, reader.index.retimed) == (False, True, False)
        assert (reader.index.num_frames, reader.index.duration) == (50, pytest.approx(2.0))


@pytest.mark.parametrize(("codec", "bframes"), [("mpeg4", 0), ("mjpeg", 0), ("libx264", 0), ("libx264", 2)])
def test_pictures_that_a_recorder_left_out_of_an_avi_are_no_loss(codec: str, bframes: int, tmp_path: Path) -> None:
    form = {"pix_fmt": "yuvj420p"} if codec == "mjpeg" else {}
    whole = write_video(tmp_path / "whole.avi", num_frames=60, codec=codec, bframes=bframes, gop=10, **form)
    path = remux(whole, tmp_path / "a.avi", time=lambda stamp: stamp + 100 if stamp >= 30 else stamp)
    clip = read_clip(path, ClipSpec(FrameSampling(num_frames=5)))
    first, *still, last = (read_number(frame.numpy()) for frame in clip.frames)
    # with B-frames, numbers in order of decoding are a few off
    assert first < 30 and last > 31 and set(still) <= ({29} if not bframes else {29, 30, 31})
    assert (clip.steady, clip.duration) == (False, pytest.approx(6.4))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 8 // 10])
    with pytest.raises(VideoError, match="is cut short: its header declares 160 frames and"):
        read_clip(path, ClipSpec(FrameSampling(num_frames=5)))


def test_a_clock_that_starts_again_is_no_loss(tmp_path: Path) -> None:
    # The clock of mpeg ts has 33 bits, at 90 kHz.
    late = {"output_ts_offset": str(2**33 / 90_000 - 0.5)}
    path = write_video(tmp_path / "a.ts", num_frames=40, container_options=late)
    assert read_clip(path, ClipSpec(FrameSampling(num_frames=4))).duration == pytest.approx(1.6)
