"""Opening refuses what is not one harmless video file, and names file and reason."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from tests.support.videos import write_video

import rbft
from rbft.errors import VideoError
from rbft.video.clip import read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.container import Limits, OpenVideo, open_video, probe, resolve_inside
from rbft.video.reader import count_frames, read_frames
from rbft.video.sampling import FrameSampling


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one video, beside another folder with a secret one."""
    base = tmp_path_factory.mktemp("container")
    (base / "data").mkdir()
    (base / "data_private").mkdir()
    write_video(base / "data" / "clip.mp4", num_frames=5)
    write_video(base / "data_private" / "secret.mp4", num_frames=5)
    write_video(base / "data_private" / "secret.ts", num_frames=5)
    return base / "data"


def test_containers_are_opened_for_reading_in_one_place_only() -> None:
    package = Path(rbft.__file__).parent
    found = [
        str(file.relative_to(package))
        for file in sorted(package.rglob("*.py"))
        if re.search(r"av\.open\((?!.*mode=\"w\")|InputContainer\(|from av import open", file.read_text())
    ]
    assert found == ["video/container.py"]


def test_paths_inside_the_root(data: Path, tmp_path: Path) -> None:
    clip = (data / "clip.mp4").resolve()
    assert resolve_inside(data, "clip.mp4") == clip
    assert resolve_inside(data, clip) == clip
    assert resolve_inside(data, "../data/./clip.mp4") == clip
    assert resolve_inside(None, clip) == clip
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "clip.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "real" / "link.mp4").symlink_to("clip.mp4")
    assert resolve_inside(tmp_path / "root", "link.mp4") == (tmp_path / "real" / "clip.mp4").resolve()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../data_private/secret.mp4", "outside of the data folder"),
        ("{private}/secret.mp4", "outside of the data folder"),
        ("/dev/zero", "outside of the data folder"),
        ("missing.mp4", "no such file"),
        ("clip.mp4/inner.mp4", "cannot be reached"),
        ("", "names no file"),
        (".", "is a folder"),
        ("clip.mp4\0.txt", "NUL"),
        ("x" * 5000, "cannot be reached"),
        ("file:clip.mp4", "never as a URL"),
        ("file:{private}/secret.mp4", "never as a URL"),
        ("http://127.0.0.1:9/clip.mp4", "never as a URL"),
        ("concat:{private}/secret.ts|{private}/secret.ts", "never as a URL"),
        ("subfile,,start,0,end,0,,:{private}/secret.mp4", "never as a URL"),
        ("pipe:0", "never as a URL"),
        ("-i", "no such file"),
    ],
)
def test_paths_that_are_refused(path: str, reason: str, data: Path) -> None:
    path = path.format(private=data.parent / "data_private")
    with pytest.raises(VideoError, match=re.escape(reason)) as refused:
        read_frames(path, [0], root=data)
    assert (path or "(empty path)").replace("\0", "\\x00") in str(refused.value)


def test_links_out_of_the_root_are_refused(data: Path) -> None:
    private = data.parent / "data_private"
    (data / "file.mp4").symlink_to(private / "secret.mp4")
    (data / "folder").symlink_to(private)
    (data / "circle.mp4").symlink_to("circle.mp4")
    for path in ("file.mp4", "folder/secret.mp4"):
        with pytest.raises(VideoError, match="outside of the data folder"):
            read_frames(path, [0], root=data)
        assert read_frames(data / path, [0]).indices == (0,)  # a person may name any file
    with pytest.raises(VideoError, match=r"circle\.mp4: cannot be reached"):
        read_frames("circle.mp4", [0], root=data)


def test_names_with_a_meaning_elsewhere_are_ordinary_files(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        "-i.mp4",
        "concat:a|b.mp4",
        "http:video.mp4",
        "50%.mp4",
        "%d.mp4",
        "日本 (1) űnï.mp4",
        "a\nb.mp4",
        "#1?.mp4",
    ]
    for name in names:
        (data / name).write_bytes((data / "clip.mp4").read_bytes())
    monkeypatch.chdir(data)
    for name in names:
        assert read_frames(name, [4]).indices == read_frames(name, [4], root=data).indices == (4,)
    name = os.fsdecode(b"\xff\xfe.mp4")
    (data / name).write_bytes((data / "clip.mp4").read_bytes())
    assert count_frames(name) == 5


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="is not a regular file"):
        probe(tmp_path / "pipe.mp4")


@pytest.mark.parametrize("name", ["list.avi", "list.mp4", "list.m3u8", "list.ts"])
@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile clip.mp4\n",
        "ffconcat version 1.0\nfile '{private}/secret.mp4'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{private}/secret.ts\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>http://127.0.0.1:{port}/</BaseURL></MPD>',
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
    ],
)
def test_playlists_open_nothing(text: str, name: str, data: Path) -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)

        def serve() -> None:
            try:
                connection, _ = server.accept()
            except TimeoutError:
                return
            asked.append(connection.recv(100))
            connection.close()

        waiting = threading.Thread(target=serve)
        waiting.start()
        port = server.getsockname()[1]
        (data / name).write_text(text.format(private=data.parent / "data_private", port=port))
        try:
            with pytest.raises(VideoError, match=rf"{name}: is text, not a video"):
                read_frames(name, [0], root=data)
        finally:
            waiting.join()
    assert not asked


def test_a_playlist_behind_bytes_that_are_no_text_opens_nothing(data: Path) -> None:
    (data / "bom.avi").write_bytes(b"\xef\xbb\xbfffconcat version 1.0\nfile clip.mp4\n")
    with pytest.raises(VideoError, match="is not a readable video in an accepted format"):
        probe("bom.avi", root=data)


@pytest.mark.parametrize("file", ["bomb.mp4", "bomb.mkv", "bomb.ts", "bomb.h264", "bomb.avi"])
def test_too_many_pixels_are_refused_before_decoding(file: str, tmp_path: Path) -> None:
    fast = {"preset": "ultrafast"}
    path = write_video(tmp_path / file, np.zeros((1, 1088, 1920, 3), np.uint8), codec_options=fast)
    small = Limits(max_pixels=1920 * 1088 - 1)
    for use in (
        lambda: probe(path, limits=small),
        lambda: count_frames(path, limits=small),
        lambda: read_clip(path, ClipSpec(FrameSampling(num_frames=1), limits=small)),
    ):
        with pytest.raises(VideoError, match=rf"{file}: has frames of 1920x1088, over the limit of 2088959 pixels"):
            use()
    assert count_frames(path, limits=Limits(max_pixels=1920 * 1088)) == 1


def test_frames_that_grow_after_the_header_are_refused(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.h264", num_frames=400)  # more than opening looks at
    large = write_video(tmp_path / "large.h264", num_frames=2, size=(480, 640))
    path = tmp_path / "grows.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    assert count_frames(path) == 402
    with pytest.raises(VideoError, match="damaged: it does not decode"):
        read_frames(path, [0, 401], limits=Limits(max_pixels=300 * 300))


@pytest.mark.parametrize("file", ["long.mp4", "long.mkv", "long.avi", "long.ts", "long.h264"])
def test_too_long_videos_are_refused(file: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / file, num_frames=50, codec="mpeg4" if file == "long.avi" else "libx264")
    with pytest.raises(
        VideoError, match=r"has 50 frames or more, over the limit of 49; .*--window.* data\.max_seconds"
    ):
        read_frames(path, [0], limits=Limits(max_frames=49))
    with pytest.raises(VideoError, match=r"lasts 2 s, over the limit of 1\.5 s"):
        read_frames(path, [0], limits=Limits(max_seconds=1.5))
    assert read_frames(path, [49], limits=Limits(max_frames=50, max_seconds=2.1)).indices == (49,)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html>\n<html><body>Not found</body></html>", r"is a web page \(HTML\), not the video behind it$"),
        (b"password=hunter2 and more of it\n", "is text, not a video$"),
        (b"\0\0\0\x20ftypisom" + bytes(2000), "is an incomplete mp4"),
        (np.random.default_rng(0).bytes(3000), "is not a readable video in an accepted format"),
        (b"\xff\xfb\x90\x00" * 2000, "is not a readable video in an accepted format"),
    ],
)
def test_what_is_no_video_is_named(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "what.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=f"{re.escape(str(path))}: {reason}"):
        probe(path)


@pytest.mark.parametrize(("cover", "kinds"), [(False, "audio"), (True, "audio, still picture")])
def test_sound_without_film_is_named(cover: bool, kinds: str, tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as output:
        audio = output.add_stream("aac", rate=48000, layout="mono")
        if cover:
            picture = output.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            output.mux(picture.encode(av.VideoFrame(64, 64, "yuvj420p")))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 48000
        output.mux(audio.encode(sound))
        output.mux(audio.encode())
    with pytest.raises(VideoError, match=rf"has no video stream \(it holds: {kinds}\)"):
        probe(path)


def test_text_fields_that_are_no_unicode_do_not_matter(tmp_path: Path) -> None:
    path = write_video(tmp_path / "latin.avi", num_frames=5, codec="mpeg4")
    content = path.read_bytes()
    assert b"Lavf" in content
    path.write_bytes(content.replace(b"Lavf", b"L\xe4\xff\xfe"))
    assert count_frames(path) == 5


def test_flipped_bits_never_raise_anything_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for file, codec in (("a.avi", "mpeg4"), ("a.mp4", "libx264"), ("a.mkv", "libvpx-vp9"), ("a.ts", "libx264")):
        content = np.frombuffer(write_video(tmp_path / file, num_frames=8, codec=codec).read_bytes(), np.uint8)
        for attempt in range(60):
            damaged = content.copy()
            reach = min(600, len(content)) if attempt % 2 else len(content)  # headers hit as often as the rest
            for position in rng.integers(0, reach, 6):
                damaged[position] ^= np.uint8(1 << rng.integers(8))
            (tmp_path / f"x{file}").write_bytes(damaged.tobytes())
            try:
                read_clip(tmp_path / f"x{file}", ClipSpec(FrameSampling(num_frames=4)))
                probe(tmp_path / f"x{file}")
            except VideoError as error:
                assert f"x{file}" in str(error) and error.reason


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_probe(rotation: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=30, size=(96, 128), fps=10, bframes=2, rotation=rotation)
    info = probe("a.mp4", root=tmp_path)
    assert (info.path, info.codec, info.orientation.rotation) == ("a.mp4", "h264", rotation)
    assert (info.width, info.height) == ((96, 128) if rotation % 180 else (128, 96))
    assert "mp4" in info.container
    assert (info.fps, info.declared_frames, info.duration, info.start) == (10.0, 30, 3.0, 0.0)
    assert probe(path).path == str(path)


def test_probe_of_what_the_header_does_not_say(tmp_path: Path) -> None:
    late = probe(write_video(tmp_path / "a.mkv", num_frames=5, times=np.arange(5) / 25 + 3.2))
    assert (late.declared_frames, late.start) == (0, pytest.approx(3.2))
    raw = probe(write_video(tmp_path / "a.h264", num_frames=5))
    assert (raw.declared_frames, raw.duration, raw.start) == (0, 0.0, 0.0)


def test_stumbling_at_the_end_of_a_file_is_the_end() -> None:
    # The library does so, depending on what lies in memory, if a stream turns up that was not there at opening.
    class Container:
        def demux(self, _: object) -> Iterator[av.Packet]:
            yield av.Packet(b"picture")
            raise IndexError("list index out of range")

    video = OpenVideo("a.ts", cast(InputContainer, Container()), cast(VideoStream, None), Limits())
    assert [bytes(packet) for packet in video.packets()] == [b"picture"]


@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
def test_one_thread(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=5, size=(480, 640))
    before = threading.active_count(), len(os.listdir("/proc/self/task"))  # noqa: PTH208
    with open_video(path) as video:
        next(video.container.decode(video.stream))
        assert (threading.active_count(), len(os.listdir("/proc/self/task"))) == before  # noqa: PTH208
