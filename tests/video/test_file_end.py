"""A file that its container would have go on is refused; one that ends as it should, or says nothing, is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from tests.support.videos import numbered_frames, write_video

from rbft.errors import VideoError
from rbft.video.clip import Clip, read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.sampling import FrameSampling


def clip_of(path: Path, content: bytes) -> Clip:
    path.write_bytes(content)
    return read_clip(path, ClipSpec(FrameSampling(num_frames=4)))


@pytest.fixture(scope="module")
def gif(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Twenty pictures, each with colours of its own and extensions before it."""
    path = tmp_path_factory.mktemp("gif") / "a.gif"
    first, *others = (Image.fromarray(frame) for frame in numbered_frames(20))
    first.save(path, save_all=True, append_images=others, duration=40, loop=0, comment=b"numbered", disposal=2)
    return path.read_bytes()


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_a_gif_without_its_trailer(share: float, gif: bytes, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"a\.gif: is cut short: it ends without the trailer of a GIF"):
        clip_of(tmp_path / "a.gif", gif[: int(len(gif) * share) - 1])


@pytest.mark.parametrize("after", [b"", b"\0" * 100, b"left by an editor"])
def test_a_gif_with_its_trailer(after: bytes, gif: bytes, tmp_path: Path) -> None:
    assert clip_of(tmp_path / "a.gif", gif + after).total_num_frames == 20


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_wmv_whose_data_is_not_all_there(share: float, tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.wmv", num_frames=60, size=(240, 320), codec="wmv2").read_bytes()
    assert clip_of(tmp_path / "a.wmv", content).total_num_frames == 60
    with pytest.raises(VideoError, match=r"is cut short: [0-9]+ bytes of its data are missing"):
        clip_of(tmp_path / "a.wmv", content[: int(len(content) * share)])


@pytest.fixture(scope="module")
def fragments(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An mp4 of six fragments, with nothing that says how long it is."""
    flags = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    path = tmp_path_factory.mktemp("mp4") / "a.mp4"
    return write_video(path, num_frames=60, gop=10, container_options=flags).read_bytes()


@pytest.mark.parametrize(("box", "missing"), [(b"moof", 80), (b"mdat", 1)])
def test_an_mp4_that_ends_within_a_fragment(box: bytes, missing: int, fragments: bytes, tmp_path: Path) -> None:
    begin = [i for i in range(len(fragments)) if fragments[i : i + 4] == box][3] - 4
    end = begin + int.from_bytes(fragments[begin : begin + 4])
    with pytest.raises(VideoError, match=f"cut short: its last box, {box.decode()}, reaches beyond the end"):
        clip_of(tmp_path / "a.mp4", fragments[: end - missing])


@pytest.mark.parametrize("after", [b"", b"\0" * 100, b"left by an editor", b"\0\0\1\0free"])
def test_an_mp4_that_ends_after_its_last_fragment(after: bytes, fragments: bytes, tmp_path: Path) -> None:
    assert clip_of(tmp_path / "a.mp4", fragments + after).total_num_frames == 60
