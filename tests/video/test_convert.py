"""Colour, size and rotation."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from tests.support.videos import numbered_frames, read_number, write_video
from torch.nn.functional import interpolate

from rbft.errors import VideoError
from rbft.video.convert import RGBConverter
from rbft.video.reader import read_frames


def picture(height: int, width: int) -> np.ndarray:
    """A smooth coloured (1, H, W, 3) picture without symmetry."""
    down, right = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]
    channels = np.broadcast_arrays(220 * down, 220 * right, 110 + 100 * np.sin(7 * down + 4 * right**2))
    return np.stack(channels, axis=-1)[None].astype(np.uint8)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le"])
@pytest.mark.parametrize(("height", "width"), [(96, 128), (48, 64)])
def test_colours_survive(pix_fmt: str, height: int, width: int, tmp_path: Path) -> None:
    original = picture(height, width)
    path = write_video(tmp_path / "a.mp4", original, pix_fmt=pix_fmt, codec_options={"qp": "5"})
    got = read_frames(path, [0]).frames[0].permute(1, 2, 0).numpy()
    assert got.shape == original[0].shape
    assert np.abs(got.astype(int) - original[0]).mean() < 3


@pytest.mark.parametrize(("height", "width"), [(97, 129), (1, 1), (17, 201), (241, 321), (33, 17)])
def test_odd_sizes(height: int, width: int, tmp_path: Path) -> None:
    original = picture(height, width)
    for codec, pix_fmt in (("ffv1", "yuv444p"), ("ffv1", "yuv420p")):
        path = write_video(tmp_path / "a.mkv", original, codec=codec, pix_fmt=pix_fmt)
        got = read_frames(path, [0]).frames[0].permute(1, 2, 0).numpy()
        assert got.shape == original[0].shape
        assert np.abs(got.astype(int) - original[0]).mean() < 3


def test_rgb_is_given_out_as_it_is(tmp_path: Path) -> None:
    original = np.random.default_rng(0).integers(0, 256, (2, 37, 51, 3), np.uint8)
    for codec, pix_fmt in (("png", "rgb24"), ("libx264rgb", "rgb24")):
        options = {"qp": "0"} if codec == "libx264rgb" else {}
        path = write_video(tmp_path / "a.mov", original, codec=codec, pix_fmt=pix_fmt, codec_options=options)
        assert np.array_equal(read_frames(path, [0, 1]).frames.permute(0, 2, 3, 1).numpy(), original)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation(rotation: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", picture(96, 128), rotation=rotation, codec_options={"qp": "5"})
    upright = np.rot90(picture(96, 128)[0], rotation // 90)
    frames = read_frames(path, [0]).frames
    assert frames.shape[2:] == upright.shape[:2]
    assert np.abs(frames[0].permute(1, 2, 0).numpy().astype(int) - upright).mean() < 3
    small = read_frames(path, [0], size=(40, 60)).frames
    assert small.shape == (1, 3, 40, 60)
    reference = interpolate(frames.float(), size=(40, 60), mode="bicubic", antialias=True)
    assert (small - reference).abs().max() < 6


@pytest.mark.parametrize("size", [(120, 170), (64, 64), (239, 337), (300, 400)])
def test_scaling_is_as_good_as_in_floating_point(size: tuple[int, int], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 30, (1, 240, 338, 3), np.uint8)
    path = write_video(tmp_path / "a.mov", picture(240, 338) + noise, codec="png", pix_fmt="rgb24")
    full = read_frames(path, [0]).frames.float()
    reference = interpolate(full, size=size, mode="bicubic", antialias=True).clamp(0, 255)
    error = read_frames(path, [0], size=size).frames.float() - reference
    assert 10 * torch.log10(255**2 / error.square().mean()) > 42  # dB


def test_pictures_that_change_size_come_out_in_the_first_size(tmp_path: Path) -> None:
    parts = [write_video(tmp_path / f"{h}.h264", numbered_frames(4, h, w)) for h, w in ((96, 128), (192, 256))]
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = read_frames(path, [1, 6]).frames
    assert frames.shape == (2, 3, 96, 128)
    assert [read_number(frame.numpy()) for frame in frames] == [1, 2]


def test_constant_luminance_is_shown_as_plain_bt2020(tmp_path: Path) -> None:
    files = [
        write_video(
            tmp_path / f"{matrix}.mp4",
            picture(96, 128),
            codec="libx265",
            pix_fmt="yuv420p10le",
            codec_options={"x265-params": f"log-level=none:pools=none:colormatrix={matrix}"},
        )
        for matrix in ("bt2020c", "bt2020nc")
    ]
    with av.open(str(files[0])) as container:
        frame = next(container.decode(video=0))
        assert frame.colorspace == 10
        with pytest.raises(OSError, match="not supported"):  # what the reader has to work around
            frame.to_ndarray(format="rgb24")
    constant, plain = (read_frames(file, [0]).frames for file in files)
    assert torch.equal(constant, plain)


def test_colours_without_a_conversion_are_refused(tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none:pools=none:colormatrix=ictcp"}
    path = write_video(tmp_path / "a.mp4", picture(96, 128), codec="libx265", codec_options=options)
    with pytest.raises(VideoError, match=r"a\.mp4: its colours cannot be converted to RGB .*colour space 14"):
        read_frames(path, [0])


def test_the_converter_keeps_to_its_rule() -> None:
    frame = av.VideoFrame.from_ndarray(picture(96, 128)[0])
    convert = RGBConverter("x", lambda height, width: (height // 2, width // 4))
    assert convert.size_for(frame) == (48, 32)
    assert convert.size_for(av.VideoFrame(16, 16)) == (48, 32)
