"""Parts of hours-long recordings: right, in every container, and at a cost that grows with the parts alone."""

from __future__ import annotations

import re
import struct
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.videos import read_number, write_video

from rbft.errors import VideoError
from rbft.video import reader
from rbft.video.clip import read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.container import PART_LIMITS, Limits
from rbft.video.decoding import DecodingRun
from rbft.video.reader import open_reader, read_frames
from rbft.video.sampling import FrameSampling

TWO = ClipSpec(FrameSampling(num_frames=2))
CODINGS = {
    "a.mp4": {"bframes": 2},
    "a.mkv": {"bframes": 2},
    "a.ts": {"bframes": 2},
    "a.flv": {"codec": "flv"},
    "a.wmv": {"codec": "wmv2", "container": "asf"},
    "a.webm": {"codec": "libvpx"},
    "a.mpg": {"codec": "mpeg1video"},
    "a.ogv": {"codec": "libvpx", "container": "ogg"},
    "counted.avi": {"codec": "mpeg4"},
    "untimed.avi": {"bframes": 2},
    "untimed.h264": {"bframes": 2},
    "untimed.hevc": {"codec": "libx265", "container": "hevc"},
}
FRAMES = 300


@pytest.fixture(autouse=True)
def nothing_open() -> Iterator[None]:
    yield
    reader._INDICES.clear()
    reader._OPEN.clear()


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each packet that is decoded."""
    packets: list[int] = []
    feed = DecodingRun.feed
    monkeypatch.setattr(DecodingRun, "feed", lambda *arguments: packets.append(1) or feed(*arguments))
    return packets


@pytest.mark.parametrize("name", CODINGS)
def test_all_parts_together_cost_one_pass(name: str, tmp_path: Path, fed: list[int]):
    path = write_video(tmp_path / name, num_frames=FRAMES, size=(48, 64), fps=25, gop=25, **CODINGS[name])
    with open_reader(path, often=True) as opened:
        assert not (opened.index.timed and name.startswith("untimed"))
    for turns in (1, 2):  # windows of 2 s that do not overlap, and those that overlap by half, in two turns
        fed.clear()
        starts = [2 / turns * number for number in range(turns * FRAMES // 50 - turns)]
        order = [start for turn in range(turns) for start in starts[turn::turns]]
        for start in order:
            clip = read_clip(path, TWO.of_part((start, start + 2)))
            first = round(start * 25)
            assert [read_number(frame) for frame in clip.frames.numpy()] == [first + 12, first + 37], start
        assert len(fed) <= turns * (FRAMES + 120), "decoded from a key frame, or on from the part before"


def test_parts_in_any_order_are_right_all_the_same(tmp_path: Path):
    path = write_video(tmp_path / "untimed.h264", num_frames=FRAMES, size=(48, 64), bframes=2)
    for start in (4, 0, 2, 2, 8, 3.6):
        clip = read_clip(path, TWO.of_part((start, start + 2)))
        assert [read_number(frame) for frame in clip.frames.numpy()] == [round(start * 25) + 12, round(start * 25) + 37]


def test_damage_is_found_where_decoding_goes_on(tmp_path: Path):
    whole = write_video(tmp_path / "a.avi", num_frames=FRAMES, size=(96, 128), gop=25, bframes=2).read_bytes()
    path = tmp_path / "damaged.avi"
    chunks = [found.end() for found in re.finditer(b"00dc", whole[: whole.rindex(b"idx1")])]
    middle = max(chunks[FRAMES // 2 :], key=lambda place: struct.unpack_from("<I", whole, place)[0]) + 4 + 60
    path.write_bytes(whole[:middle] + bytes(byte ^ 0x55 for byte in whole[middle : middle + 60]) + whole[middle + 60 :])
    states = []
    for start in range(0, 12, 2):
        wanted = [start * 25 + 12, start * 25 + 37]
        try:
            expected = read_frames(path, wanted).frames
        except VideoError as error:
            with pytest.raises(VideoError, match=re.escape(error.reason)):
                read_clip(path, TWO.of_part((start, start + 2)))
            states.append("damaged")
        else:
            assert torch.equal(read_clip(path, TWO.of_part((start, start + 2))).frames, expected)
            states.append("sound")
    assert set(states) == {"sound", "damaged"}


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.ts", "long.avi", "long.wmv", "long.flv"])
def test_hours_are_read_in_parts_and_refused_as_one_clip(name: str, tmp_path: Path):
    codings = {"long.avi": "mpeg4", "long.wmv": "wmv2", "long.flv": "flv"}
    # a frame every two seconds: two and a half hours
    path = write_video(
        tmp_path / name, num_frames=4000, size=(48, 64), fps=1, codec=codings.get(name, "libx264"), gop=50
    )
    with pytest.raises(
        VideoError, match=r"lasts 4000 s, over the limit of 3600 s; .*--window SECONDS.*data\.max_seconds"
    ):
        read_clip(path, TWO)
    clip = read_clip(path, TWO.of_part((3900, 3960)))
    assert [read_number(frame) for frame in clip.frames.numpy()] == [3915, 3945]
    assert clip.timestamps == pytest.approx((15, 45), abs=0.01)
    raised = ClipSpec(TWO.sampling, limits=Limits(max_seconds=5000))
    assert [read_number(frame) for frame in read_clip(path, raised).frames.numpy()] == [1000, 3000]


def test_an_index_takes_little_memory(tmp_path: Path):
    path = write_video(tmp_path / "a.mkv", num_frames=4000, size=(16, 16), codec="mpeg4", gop=250)
    tracemalloc.start()
    with open_reader(path, limits=PART_LIMITS, often=True):
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / 4000 < 130, "bytes a frame: a day at 30 frames a second stays below 350 MB"


def test_two_files_are_left_open_at_most(tmp_path: Path):
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("needs /proc")
    before = len(list(descriptors.iterdir()))
    for number in range(8):
        path = write_video(tmp_path / f"{number}.h264", num_frames=20, size=(48, 64))
        read_clip(path, TWO.of_part((0, 0.5)))
    for number in range(8):
        path = write_video(tmp_path / f"{number}.mp4", num_frames=20, size=(48, 64))
        with pytest.raises(VideoError, match="shows no frame"):
            read_clip(path, TWO.of_part((50, 60)))
    assert len(list(descriptors.iterdir())) - before <= 4, "each is open twice: to be asked, and to be decoded"


CUT = {
    "a.mp4": {"bframes": 2, "container_options": {"movflags": "faststart"}},
    "pieces.mp4": {"bframes": 2, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "a.mkv": {"bframes": 2},
    "a.webm": {"codec": "libvpx"},
    "a.flv": {"codec": "flv"},
}


@pytest.mark.parametrize("name", CUT)
def test_parts_before_the_loss_of_a_video_that_was_cut_short(name: str, tmp_path: Path):
    path = write_video(tmp_path / name, num_frames=200, size=(48, 64), gop=25, **CUT[name])
    content = path.read_bytes()
    for share in (0.4, 0.63):
        path.write_bytes(content[: int(len(content) * share)])
        with open_reader(path) as opened:
            index = opened.index
        assert index.loss and 0.5 < index.intact < index.duration < 8.0
        whole = replace(TWO, sampling=replace(TWO.sampling, num_frames=round(index.intact * 25)))
        frames = read_clip(path, whole.of_part((0.0, index.intact))).frames
        assert [read_number(frame) for frame in frames.numpy()] == list(range(len(frames))), "each of them, intact"
        for part in (None, (0.0, index.intact + 0.1)):
            with pytest.raises(VideoError, match="is cut short"):
                read_clip(path, TWO.of_part(part))


def test_of_numbered_pictures_nobody_knows_where_one_is_missing(tmp_path: Path):
    path = write_video(tmp_path / "a.avi", num_frames=200, size=(48, 64), codec="mpeg4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_reader(path) as opened:
        assert opened.index.loss and opened.index.intact == 0.0
    with pytest.raises(VideoError, match="is cut short"):
        read_clip(path, TWO.of_part((0.0, 1.0)))
