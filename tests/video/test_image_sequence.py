"""Folders of numbered images: the pixels and times of the encoded video, and a refusal of all that is no sequence."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.videos import numbered_frames, read_number, write_video

from rbft.errors import VideoError
from rbft.video.clip import read_clip
from rbft.video.clip_cache import ClipCache
from rbft.video.clip_spec import ClipSpec
from rbft.video.container import Limits, probe, resolve_inside
from rbft.video.content import content_bytes, content_digest, content_status, is_there
from rbft.video.image_sequence import images_of, is_sequence, sequence_name, split_rate
from rbft.video.reader import count_frames, read_frames
from rbft.video.sampling import FrameSampling

FIVE = ClipSpec(FrameSampling(num_frames=5))
SPECS = {
    "whole": FIVE,
    "by rate": ClipSpec(FrameSampling(fps=10)),
    "small": ClipSpec(FrameSampling(num_frames=5), max_pixels=3000),
    "part": FIVE.of_part((0.2, 0.52)),
}


def write_images(
    folder: Path, name: str = "img_{:05d}.png", num_frames: int = 20, first: int = 1, step: int = 1
) -> Path:
    """Numbered frames as images of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(numbered_frames(num_frames)):
        Image.fromarray(frame).save(folder / name.format(first + step * number))
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sequence and the same as a video without loss."""
    root = tmp_path_factory.mktemp("both")
    write_images(root / "seq")
    write_video(root / "video.mkv", numbered_frames(20), codec="ffv1", pix_fmt="bgr0")
    return root


@pytest.mark.parametrize("name", SPECS)
def test_pixels_and_times_are_those_of_the_video(name: str, both: Path):
    images, video = (read_clip(path, SPECS[name], both) for path in ("seq#fps=25", "video.mkv"))
    assert torch.equal(images.frames, video.frames)
    assert images.timestamps == video.timestamps and images.indices == video.indices
    assert (images.fps, images.duration, images.steady) == (video.fps, video.duration, video.steady)
    assert images.metadata() == video.metadata()


def test_the_rate_decides_on_times_and_nothing_else(both: Path):
    fast, slow = (read_clip(f"seq#fps={rate}", FIVE, both) for rate in ("29.97", "5"))
    assert torch.equal(fast.frames, slow.frames)
    assert slow.duration == 4.0 and fast.duration == pytest.approx(20 / 29.97)
    assert content_digest(both / "seq#fps=5") != content_digest(both / "seq#fps=29.97")


@pytest.mark.parametrize(
    ("name", "first", "step"), [("{}.jpg", 0, 1), ("f-{:03d}.JPEG", 1, 5), ("a.{}.webp", 8, 1), ("{:04d}.tif", 3, 2)]
)
def test_numbers_order_the_images_however_they_are_written(name: str, first: int, step: int, tmp_path: Path):
    folder = write_images(tmp_path / "seq", name, 12, first, step)
    (folder / "notes.txt").write_text("not one of them")
    (folder / ".hidden_1.jpg").write_text("nor this")
    frames = read_frames("seq#fps=4", range(12), root=tmp_path).frames
    assert [read_number(frame) for frame in frames.numpy()] == list(range(12))
    assert count_frames(sequence_name(str(folder), 4)) == 12
    info = probe("seq#fps=4", tmp_path)
    assert (info.height, info.width, info.fps, info.duration, info.declared_frames) == (96, 128, 4.0, 3.0, 12)


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path):
    (tmp_path / "seq").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to display
    picture = Image.fromarray(np.full((40, 60, 3), 90, np.uint8))
    picture.save(tmp_path / "seq/1.jpg", exif=exif)
    assert read_frames("seq#fps=1", [0], root=tmp_path).frames.shape == (1, 3, 60, 40)


def test_names_hold_the_rate():
    assert sequence_name("a/b", 25.0) == "a/b#fps=25"
    for rate in (25, 29.97, 0.5):
        assert split_rate(sequence_name("x", rate)) == ("x", pytest.approx(rate))
    for plain in ("a.mp4", "a#fps=", "a#fps=0", "a#fps=25.mp4", "a#fps=25#t=1,2"):
        assert split_rate(plain) == (plain, None)


def test_a_file_may_be_called_like_one(tmp_path: Path):
    path = write_video(tmp_path / "a#fps=5", num_frames=4, container="mp4")
    assert resolve_inside(tmp_path, path.name) == path.resolve()
    assert count_frames(path) == 4 and content_bytes(path) == path.stat().st_size


def broken(folder: Path, how: str) -> None:
    (folder / "img_00007.png").unlink()
    if how == "text":
        (folder / "img_00007.png").write_text("not a picture")
    elif how == "empty":
        (folder / "img_00007.png").touch()
    elif how == "twice":
        for name in ("img_0000007.png", "img_00007.png"):
            Image.new("RGB", (8, 8)).save(folder / name)
    elif how == "two sequences":
        Image.new("RGB", (8, 8)).save(folder / "flow_00007.png")
    elif how == "two suffixes":
        Image.new("RGB", (8, 8)).save(folder / "img_00007.jpg")
    elif how == "folder":
        (folder / "img_00007.png").mkdir()
    elif how == "cut":
        content = (folder / "img_00008.png").read_bytes()
        (folder / "img_00007.png").write_bytes(content[: len(content) // 2])


BROKEN = {
    "missing": "is incomplete: after image 6 comes 8, and 7 is missing",
    "text": r"frame 6 \(at 0\.24 s\) is damaged",
    "empty": r"its image img_00007\.png is empty \(0 bytes\)",
    "twice": "holds two images of the number 7",
    "two sequences": r"several sequences of images, by their words before the number \('flow_', 'img_'\)",
    "two suffixes": r"several sequences of images, by their suffix \('\.jpg', '\.png'\)",
    "folder": r"its image img_00007\.png is no regular file",
    "cut": r"frame 6 \(at 0\.24 s\) is damaged",
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_no_sound_sequence_is_refused(how: str, tmp_path: Path):
    folder = write_images(tmp_path / "seq")
    broken(folder, how)
    with pytest.raises(VideoError, match=BROKEN[how]):
        read_frames("seq#fps=25", range(20), root=tmp_path)


def test_no_image_leads_out_of_the_data_root(tmp_path: Path):
    outside = write_images(tmp_path / "outside", num_frames=2)
    folder = write_images(tmp_path / "data/seq", num_frames=2)
    (folder / "img_00002.png").unlink()
    (folder / "img_00002.png").symlink_to(outside / "img_00002.png")
    for root in (tmp_path / "data", None):
        with pytest.raises(VideoError, match=r"img_00002\.png leads to .*outside of"):
            read_frames("seq#fps=25" if root else f"{folder}#fps=25", [0], root=root)
    (tmp_path / "data/linked").symlink_to(outside)
    with pytest.raises(VideoError, match="outside of the data folder"):
        read_frames("linked#fps=25", [0], root=tmp_path / "data")
    (folder / "img_00002.png").unlink()
    (tmp_path / "data/below.png").write_bytes((outside / "img_00002.png").read_bytes())
    (folder / "img_00002.png").symlink_to("../below.png")
    assert read_number(read_frames("seq#fps=25", [1], root=tmp_path / "data").frames[0].numpy()) == 1


def test_a_folder_needs_its_rate_and_images(tmp_path: Path):
    write_images(tmp_path / "seq", num_frames=2)
    with pytest.raises(VideoError, match="is a folder, not a file; it holds numbered images: say their frame rate"):
        resolve_inside(tmp_path, "seq")
    (tmp_path / "none").mkdir()
    assert is_sequence(tmp_path / "seq") and not is_sequence(tmp_path / "none")
    assert not is_there(tmp_path / "seq") and is_there(tmp_path / "seq#fps=2") and not is_there(tmp_path / "no#fps=2")
    with pytest.raises(VideoError, match="holds no numbered images"):
        read_frames("none#fps=25", [0], root=tmp_path)
    (tmp_path / "seq/img_00001.png").write_text("<svg/>")
    with pytest.raises(VideoError, match="neither JPEG, PNG, WebP, BMP nor TIFF"):
        read_frames("seq#fps=25", [0], root=tmp_path)


def test_an_image_of_another_kind_than_its_name_says_is_told_from_a_damaged_one(tmp_path: Path):
    folder = write_images(tmp_path / "seq", "{}.jpg")
    name = sequence_name(str(folder), 25)
    Image.fromarray(numbered_frames(1)[0]).save(folder / "7.jpg", "PNG")
    with pytest.raises(VideoError, match=r"its image 7.jpg is PNG by its content and the first one is JPEG; save all"):
        count_frames(name)
    (folder / "7.jpg").write_bytes(b"nothing")
    with pytest.raises(VideoError, match="is damaged"):
        read_frames(name, range(20))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_is_told(progressive: bool, tmp_path: Path):
    folder = write_images(tmp_path / "seq", "{}.jpg")
    picture = Image.fromarray(numbered_frames(1)[0])
    exif = Image.Exif()
    exif[0x10E] = "\xff\xd9" * 9
    picture.save(folder / "7.jpg", progressive=progressive, exif=exif, comment=b"\xff\xda\xff\xd9")
    whole = (folder / "7.jpg").read_bytes()
    for sound in (whole, whole + b"\xff\xda of a film after it"):
        (folder / "7.jpg").write_bytes(sound)
        read_frames(sequence_name(str(folder), 25), range(20))
    for bytes_gone in (3, 40, 300):
        (folder / "7.jpg").write_bytes(whole[:-bytes_gone])
        with pytest.raises(VideoError, match=r"its image 7.jpg is cut short: the end of the JPEG is missing"):
            read_frames(sequence_name(str(folder), 25), range(20))
        read_frames(sequence_name(str(folder), 25), range(5))


def test_a_jpeg_in_a_tiff_is_refused(tmp_path: Path):
    folder = write_images(tmp_path / "seq", "{}.tif")
    read_frames(sequence_name(str(folder), 25), range(20))
    Image.fromarray(numbered_frames(1)[0]).save(folder / "7.tif", compression="jpeg")
    with pytest.raises(VideoError, match=r"its image 7.tif is a TIFF that holds a JPEG, .*save it as \.jpg or \.png"):
        read_frames(sequence_name(str(folder), 25), range(20))


def test_limits_hold(both: Path):
    for limits, message in (
        (Limits(max_seconds=0.5), "lasts 1 s, over the limit"),
        (Limits(max_frames=19), "has 20 frames or more"),
        (Limits(max_pixels=5000), "damaged|does not decode"),
    ):
        with pytest.raises(VideoError, match=message):
            read_frames("seq#fps=25", [0], root=both, limits=limits)


def test_a_changed_image_is_another_video(tmp_path: Path):
    folder = write_images(tmp_path / "seq")
    cache = ClipCache(tmp_path / "cache", 10**9, content_digest)
    name = "seq#fps=25"
    first, again = (cache.read(name, FIVE, tmp_path) for _ in range(2))
    assert torch.equal(first.frames, again.frames)
    digest, status = content_digest(tmp_path / name), content_status(tmp_path / name)
    image, times = images_of(folder)[2], (folder / "img_00003.png").stat()
    image.write_bytes((folder / "img_00009.png").read_bytes())
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert content_digest(tmp_path / name) != digest and content_status(tmp_path / name) != status
    assert read_number(cache.read(name, FIVE, tmp_path).frames[0].numpy()) == 8
