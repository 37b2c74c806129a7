"""Pictures are read as players show them: turned and mirrored in all eight ways."""

from __future__ import annotations

import gc
import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.filter import Graph
from PIL import Image, ImageOps
from rich.console import Console
from tests.support.clip_caches import make
from tests.support.display_matrix import EIGHT, four_colours, shown, write_oriented
from tests.support.watch import entries

from rbft.data.survey import survey
from rbft.data.video_facts import inspect_video
from rbft.files import file_digest
from rbft.video.clip import read_clip
from rbft.video.clip_prefetch import ClipRequest
from rbft.video.clip_spec import ClipSpec
from rbft.video.container import probe
from rbft.video.orientation import Orientation
from rbft.video.reader import read_frames
from rbft.video.sampling import FrameSampling

FOUR = ClipSpec(FrameSampling(num_frames=4), max_pixels=48 * 32)


def by_filters(path: Path) -> np.ndarray:
    """The first picture (H, W, 3) through the media library's filters, chosen as the ffmpeg program does."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        side = frame.side_data.get("DISPLAYMATRIX")
        matrix = np.frombuffer(bytes(side), np.int32) if side else np.eye(3, dtype=np.int32).ravel()
        angle = -frame.rotation % 360
        names = {
            0: ["vflip"] if matrix[4] < 0 else [],
            90: ["transpose=cclock_flip" if matrix[3] > 0 else "transpose=clock"],
            180: [name for name, value in (("hflip", matrix[0]), ("vflip", matrix[4])) if value < 0],
            270: ["transpose=clock_flip" if matrix[3] < 0 else "transpose=cclock"],
        }[angle]
        graph = Graph()
        nodes = [graph.add_buffer(template=container.streams.video[0])]
        nodes += [graph.add(*name.split("=")) for name in ["format=gbrp", *names]]
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        graph.push(frame)
        return graph.pull().to_ndarray(format="rgb24")


@pytest.fixture(params=EIGHT)
def video(request, tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A video of each orientation, and its first picture as shown."""
    matrix = EIGHT[request.param]
    return write_oriented(tmp_path / "a.mp4", matrix), shown(four_colours(1)[0], matrix)


def difference(picture: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(picture.astype(int) - other).mean())


def test_pictures_are_as_shown(video):
    path, picture = video
    read = read_frames(path, [0]).frames[0].permute(1, 2, 0).numpy()
    assert read.shape == picture.shape
    assert difference(read, picture) < 4
    assert difference(read, by_filters(path)) < 5, "another turn differs by 50 or more"


def test_sizes_are_as_shown_and_known_beforehand(video, tmp_path):
    path, picture = video
    info = probe(path)
    assert (info.height, info.width) == picture.shape[:2]
    facts = inspect_video(path.name, path.parent, "x", 60)
    assert (facts.height, facts.width) == picture.shape[:2]
    assert (facts.rotation, facts.mirrored) == (info.orientation.rotation, info.orientation.mirrored)
    upright = four_colours(1)[0]
    turned = np.rot90(upright[:, ::-1] if facts.mirrored else upright, facts.rotation // 90)
    assert np.array_equal(turned, picture), "the two facts say the whole"
    shape = FOUR.shape(facts.timeline, facts.height, facts.width)
    assert shape == (4, *read_clip(path, FOUR).frames.shape[-2:])


def test_a_clip_fetched_early_is_as_shown(video, tmp_path):
    path, picture = video
    request = ClipRequest(tmp_path / "cache", 10**9, FOUR)
    survey(path.parent, [path.name], cache=tmp_path / "facts", console=Console(quiet=True), requests=[request])
    assert len(entries(tmp_path / "cache")) == 1
    frame = make(tmp_path / "cache").read(path.name, FOUR, path.parent).frames[0].numpy()
    assert len(entries(tmp_path / "cache")) == 1
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    corner = (slice(2, height // 2 - 4), slice(2, width // 2 - 4))
    for rows, columns in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        small, whole = frame[:, ::rows, ::columns][(slice(None), *corner)], picture[::rows, ::columns]
        assert np.abs(small.mean(axis=(1, 2)) - whole[4, 4]).max() < 12


def test_an_orientation_is_part_of_the_content(tmp_path):
    digests = {
        file_digest(write_oriented(tmp_path / f"{number}.mp4", matrix)) for number, matrix in enumerate(EIGHT.values())
    }
    assert len(digests) == 8, "so that no kept clip is taken for another's"


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((0, 0, 0, 0), Orientation()),
        ((3, 1, -1, 3), Orientation()),
        ((1, 3, -3, 1), Orientation(transposed=True, flipped_x=True)),
        ((-2, 1, 1, 2), Orientation(flipped_x=True)),
    ],
)
def test_other_matrices_count_as_the_nearest(matrix, expected, tmp_path):
    assert probe(write_oriented(tmp_path / "a.mp4", matrix)).orientation == expected


@pytest.mark.parametrize(("turn", "shape"), [(6, (60, 40)), (1, (40, 60)), (5, (60, 40))])
def test_what_a_camera_says_of_each_picture(turn, shape, tmp_path):
    """Motion JPEG whose pictures carry EXIF, of which the library's Python side has no name."""
    exif = Image.Exif()
    exif[0x0112] = turn
    pixels = np.full((40, 60, 3), 60, np.uint8)
    pixels[:20, :30] = 220
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=95, exif=exif)
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        stream = output.add_stream("mjpeg", rate=5)
        stream.height, stream.width, stream.pix_fmt = 40, 60, "yuvj420p"
        for number in range(4):
            packet = av.Packet(content.getvalue())
            packet.pts = packet.dts = number
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 5), True
            output.mux(packet)
    frame = read_frames(tmp_path / "a.mkv", [1]).frames[0].numpy()
    assert frame.shape == (3, *shape)
    upright = np.array(ImageOps.exif_transpose(Image.open(content))).transpose(2, 0, 1)
    assert np.abs(frame.astype(int) - upright).max() < 12


def test_a_frame_goes_when_nobody_holds_it(video):
    """Else the frames of every video of a data set would stay until Python looks for cycles."""
    path, _ = video
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        # the library itself leaves none
        gc.collect()
        gc.disable()
        try:
            Orientation.of(frame)
            del frame
            assert gc.collect() == 0
        finally:
            gc.enable()
