"""Small mp4 files whose index would fill the memory are refused before the media library sees them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.videos import write_video

from rbft.errors import VideoError
from rbft.video.container import probe
from rbft.video.mp4_tables import excess

HUGE = 60_000_000


def put(data: bytearray, box: bytes, offset: int, *numbers: int) -> None:
    """Overwrites numbers of 32 bits after the name of the first such box."""
    place = data.index(box) + len(box) + offset
    data[place : place + 4 * len(numbers)] = struct.pack(f">{len(numbers)}I", *numbers)


def many_samples(data: bytearray) -> None:
    put(data, b"stsz", 4, 1, HUGE)
    put(data, b"stsc", 4, 1, 1, HUGE, 1)
    put(data, b"stts", 4, 1, HUGE, 512)


def many_in_a_fragment(data: bytearray) -> None:
    put(data, b"trun", 0, 1, HUGE)


def many_edits(data: bytearray) -> None:
    put(data, b"elst", 4, HUGE)


def compressed(data: bytearray) -> None:
    data[data.index(b"trak") : data.index(b"trak") + 4] = b"cmov"


def many_boxes(data: bytearray) -> None:
    data += struct.pack(">I4s", 8, b"free") * 100_000


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (many_samples, r"promises 60000000 samples of 1 bytes, and the file has \d+ bytes"),
        (many_in_a_fragment, r"fragments promise 600000\d\d samples or more"),
        (many_edits, "is edited in 60000000 places"),
        (compressed, "its index is compressed"),
        (many_boxes, "more than 100000 boxes"),
    ],
)
@pytest.mark.parametrize("wide", [False, True], ids=["plain", "after a wide box"])
def test_bombs(spoil: Callable[[bytearray], None], reason: str, wide: bool, tmp_path: Path) -> None:
    fragments = {"movflags": "frag_keyframe+empty_moov"} if spoil is many_in_a_fragment else {"movflags": "faststart"}
    path = write_video(tmp_path / "a.mp4", size=(48, 64), bframes=2, container_options=fragments)
    assert excess(path) is None
    data = bytearray(path.read_bytes())
    spoil(data)
    path.write_bytes(struct.pack(">I4sQ8x", 1, b"free", 24) * wide + bytes(data))
    with pytest.raises(VideoError, match=reason):
        probe(path)


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"\0" * 7, b"\0" * 100, b"\0\0\0\x01moov", b"\xff" * 50, b"GIF89a" * 9]
)
def test_what_is_no_mp4_is_left_to_others(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    assert excess(tmp_path / "x") is None


def test_boxes_in_boxes_without_end(tmp_path: Path) -> None:
    nested = b"".join(struct.pack(">I4s", 8 * (200_000 - depth), b"moov") for depth in range(200_000))
    (tmp_path / "x").write_bytes(nested)
    assert "more than 100000 boxes" in str(excess(tmp_path / "x"))
