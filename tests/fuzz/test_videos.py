"""Thousands of damaged videos: each is refused by name or read, soon and in little memory, and none crashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fuzz.decoding import Decoder
from tests.support.mutate import damage, depth
from tests.support.videos import write_video

KINDS: dict[str, dict[str, Any]] = {
    "plain.mp4": {"bframes": 2},
    "faststart.mp4": {"container_options": {"movflags": "faststart"}},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "a.mkv": {"bframes": 2},
    "a.webm": {"codec": "libvpx-vp9"},
    "a.ts": {"codec": "mpeg2video"},
    "a.mpg": {"codec": "mpeg2video"},
    "a.flv": {},
    "a.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "a.mov": {"codec": "libx265", "codec_options": {"x265-params": "log-level=none"}},
}
SECONDS = 20.0  # for files that take milliseconds when they are whole
MEGABYTES = 300.0  # above what the process needs for the whole ones
# Damage to data without a checksum can be valid code for another picture. So the pictures of a file that was accepted
# are held to this: at most so many of the clips hold a picture with an intact number that is not its own.
MOST_WRONG = 0.25


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Videos of 40 numbered frames, a few kilobytes each, by name."""
    folder = tmp_path_factory.mktemp("whole")
    written = {name: write_video(folder / name, size=(64, 96), **how) for name, how in KINDS.items()}
    return {name: path.read_bytes() for name, path in written.items()}


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(SECONDS) as decoder:
        yield decoder


@depth(60, 2400)
def test_damaged_videos(examples: int, whole: dict[str, bytes], decoder: Decoder, tmp_path: Path) -> None:
    usual = 0.0
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
        answer = decoder.read(tmp_path / name, extra=60)
        assert answer.numbers == ((5, 5), (15, 15), (25, 25), (35, 35)), f"{name}: {answer}"
        usual = answer.megabytes
    outcomes: Counter[str] = Counter()
    wrong, bad = 0, []
    for number in range(examples):
        name = list(whole)[number % len(whole)]
        path = tmp_path / f"damaged{Path(name).suffix}"
        path.write_bytes(damage(whole[name], np.random.default_rng(number)))
        answer = decoder.read(path)
        outcomes[answer.outcome] += 1
        wrong += any(shown is not None and shown != stated for stated, shown in answer.numbers)
        if answer.outcome not in ("clip", "refused") or answer.trouble or answer.megabytes > usual + MEGABYTES:
            bad.append((number, name, answer))
    assert not bad, f"damage(whole[name], default_rng(number)) of (number, name) gives: {bad[:5]}"
    assert outcomes["clip"] > examples / 10 and outcomes["refused"] > examples / 10, "it must meet both"
    assert wrong < MOST_WRONG * outcomes["clip"]


def test_a_hang_and_a_crash_would_be_seen(tmp_path: Path, decoder: Decoder, whole: dict[str, bytes]) -> None:
    path = tmp_path / "plain.mp4"
    path.write_bytes(whole["plain.mp4"])
    assert decoder.read(path, extra=60).outcome == "clip"
    decoder._process.kill()
    decoder._process.join()
    assert decoder.read(path).outcome == "crashed"
    assert decoder.read(path, extra=60).outcome == "clip", "the next process takes over"
    decoder.seconds = 0.0
    assert decoder.read(tmp_path / "plain.mp4").outcome == "hung"
    decoder.seconds = SECONDS
    assert decoder.read(path, extra=60).outcome == "clip"
