"""Streams that do not say by how far B-frames are displaced, as some hardware encoders write them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch
from tests.support.videos import read_number, write_video

from rbft.video import clip_cache, clip_entry
from rbft.video.clip import read_clip
from rbft.video.clip_cache import ClipCache
from rbft.video.clip_spec import ClipSpec
from rbft.video.content import content_digest
from rbft.video.reader import count_frames, open_reader
from rbft.video.sampling import FrameSampling


class Bits:
    """Reads an H.264 parameter set bit by bit (ITU-T H.264, 7.2 and 9.1)."""

    def __init__(self, data: bytes) -> None:
        self.text = "".join(f"{byte:08b}" for byte in data)
        self.position = 0

    def take(self, count: int) -> int:
        self.position += count
        return int(self.text[self.position - count : self.position] or "0", 2)

    def golomb(self) -> int:
        zeros = self.text.index("1", self.position) - self.position
        self.position += zeros
        return self.take(zeros + 1) - 1


def without_vui(unit: bytes) -> bytes:
    """A sequence parameter set (7.3.2.1.1) of x264's 4:2:0 high profile cut before its usability information."""
    bits = Bits(unit[1:].replace(b"\0\0\3", b"\0\0"))
    assert bits.take(8) == 100  # profile_idc
    bits.take(16)
    for _ in range(4):  # id, chroma format, bit depths
        bits.golomb()
    bits.take(2)  # transform bypass, scaling matrix
    bits.golomb()  # frame number
    assert bits.golomb() == 0  # picture order count type
    for _ in range(2):  # picture order count, reference frames
        bits.golomb()
    bits.take(1)
    for _ in range(2):  # width, height
        bits.golomb()
    assert bits.take(1) == 1  # frame_mbs_only
    bits.take(1)
    assert bits.take(1) == 0  # cropping
    assert bits.take(1) == 1  # vui_parameters_present
    text = bits.text[: bits.position - 1] + "01"
    text += "0" * (-len(text) % 8)
    return unit[:1] + bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


@pytest.mark.parametrize("file", ["a.mp4", "a.mkv", "a.ts", "a.h264"])
@pytest.mark.parametrize("how", [{"gop": 40, "bframes": 3}, {"gop": 12, "bframes": 7}])
def test_no_frame_is_lost(file: str, how: dict[str, int], tmp_path: Path) -> None:
    timed = write_video(tmp_path / "timed.mp4", num_frames=40, **how)
    raw = write_video(tmp_path / "raw.h264", num_frames=40, **how).read_bytes()
    units = raw.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]
    units = [without_vui(unit) if unit[0] & 31 == 7 else unit for unit in units]
    (tmp_path / "a.h264").write_bytes(b"".join(b"\0\0\0\1" + unit for unit in units))
    if file != "a.h264":
        with (
            av.open(str(timed)) as times,
            av.open(str(tmp_path / "a.h264")) as pictures,
            av.open(str(tmp_path / file), "w") as output,
        ):
            copy = output.add_stream_from_template(pictures.streams.video[0])
            for time, packet in zip(times.demux(video=0), pictures.demux(video=0), strict=True):
                if packet.size:
                    packet.stream, packet.pts, packet.dts, packet.time_base = copy, time.pts, time.dts, time.time_base
                    output.mux(packet)
    assert count_frames(tmp_path / file) == 40
    with open_reader(tmp_path / file) as reader:
        for indices in (list(range(40)), *([i] for i in range(40))):
            assert [read_number(frame.numpy()) for frame in reader.read(indices).frames] == indices


def times_of_decoding(source: Path, target: Path) -> Path:
    """A copy by packets that have no other times, as of tools that put a raw stream into a container."""
    with av.open(str(source)) as read, av.open(str(target), "w") as output:
        copy = output.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.pts = packet.dts = packet.dts + packet.duration * 4
                packet.stream = copy
                output.mux(packet)
    return target


@pytest.mark.parametrize(
    ("codec", "file"),
    [*(("libx264", f"a.{kind}") for kind in ("wmv", "mp4", "mkv", "ts")), ("mpeg4", "a.wmv"), ("mpeg4", "a.mkv")],
)
def test_times_of_decoding_do_not_name_frames(codec: str, file: str, tmp_path: Path) -> None:
    path = write_video(
        tmp_path / ("a.wmv" if file == "a.wmv" else "b.mp4"), num_frames=40, gop=40, bframes=2, codec=codec
    )
    if file != "a.wmv":
        path = times_of_decoding(path, tmp_path / file)
    # of this codec the demuxer works out from asf when a picture is displayed
    known = (codec, file) == ("mpeg4", "a.wmv")
    with open_reader(path) as reader:
        assert (reader.index.timed, reader.index.retimed) == (known, not known)
        for indices in (list(range(40)), [7], [30]):
            frames = reader.read(indices)
            assert [read_number(frame.numpy()) for frame in frames.frames] == indices
            assert frames.timestamps == pytest.approx([index / 25 for index in indices], abs=0.002)


@pytest.mark.parametrize("file", ["a.wmv", "a.mp4", "a.mkv", "a.ts"])
def test_where_no_picture_is_reordered_times_name_frames(file: str, tmp_path: Path) -> None:
    options = {"x264-params": "b-adapt=0:b-pyramid=none:keyint=50:min-keyint=50:scenecut=0"}
    source = write_video(tmp_path / "b.mp4", num_frames=40, bframes=1, codec_options=options)
    path = tmp_path / file
    with av.open(str(source)) as read, av.open(str(path), "w") as output:
        copy, last = output.add_stream_from_template(read.streams.video[0]), -1
        for packet in read.demux(video=0):
            if packet.size and packet.pts > last:  # no B-frame is left
                packet.stream, last = copy, packet.pts
                output.mux(packet)
    with open_reader(path) as reader:
        assert (reader.index.timed, reader.index.retimed) == (True, False)
        found = [read_number(frame.numpy()) for frame in reader.read(range(reader.index.num_frames)).frames]
        assert found == [0, *range(2, 40, 2), 39][: len(found)] and len(found) >= 20


def test_a_clip_kept_of_an_asf_whose_frames_were_misnamed_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, spec = write_video(tmp_path / "a.wmv", num_frames=20, bframes=3), ClipSpec(FrameSampling(num_frames=4))
    expected = read_clip(path, spec)
    with monkeypatch.context() as before:
        before.setattr(clip_entry, "READING", 1)
        before.setattr(clip_cache, "read_clip", lambda *_: replace(expected, frames=expected.frames * 0))
        ClipCache(tmp_path / "cache", 10**8, content_digest).read(path, spec)
    found = ClipCache(tmp_path / "cache", 10**8, content_digest).read(path, spec)
    assert torch.equal(found.frames, expected.frames)
