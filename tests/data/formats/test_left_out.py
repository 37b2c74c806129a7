"""What counts as a video is one thing everywhere, and what does not is counted and named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.runs import REPOSITORY
from tests.support.videos import write_video

from rbft.data.formats import ClassFolders
from rbft.data.formats.on_disk import VIDEO_SUFFIXES, is_video, left_out
from rbft.errors import DataError
from rbft.predict import expand
from rbft.video.reader import count_frames

FROM_A_MAC = (
    "a.mp4",
    "sub.mp4/e.MTS",
    "._a.mp4",
    ".trash/del.mp4",
    "__MACOSX/._a.mp4",
    "@eaDir/a.mp4/thumb.jpg",
    "notes.txt",
    "labels.csv",
    "cover.jpg",
    "README",
)


def test_hidden_and_system_files_are_no_videos():
    assert is_video("a.M2TS") and is_video("x/y.wmv".rpartition("/")[2])
    assert not any(map(is_video, ("._a.mp4", ".a.mp4", "a.txt", "mp4", "a.mp4.part")))


def test_what_is_left_out_is_counted_and_named(put):
    root = put(*FROM_A_MAC)
    rest = left_out(root)
    assert rest.startswith("4 files without a video's suffix (no suffix 1, .jpg 1, .csv 1, .txt 1); ")
    assert rest.endswith("4 hidden files or folders (._a.mp4, .trash, @eaDir, __MACOSX)")
    beside_tables = left_out(root, {"a.mp4"}, texts=False)
    assert beside_tables.startswith("1 video that the data set does not name (sub.mp4/e.MTS); 2 files without")
    assert left_out(put("other/a.mp4") / "other") == ""


def test_predict_takes_what_fit_takes(put):
    root = put(*(f"class/{name}" for name in FROM_A_MAC), *(f"class/x{suffix.upper()}" for suffix in VIDEO_SUFFIXES))
    taken = sorted(record.path for record in ClassFolders().read(root))
    assert sorted(video.path for video in expand(root)) == taken
    assert len(taken) == len(VIDEO_SUFFIXES) + 2


def test_predict_follows_linked_folders_as_fit_does(put):
    root = put("class/below/1.mp4")
    (root / "class" / "linked").symlink_to("below", target_is_directory=True)
    (root / "class" / "below" / "round").symlink_to("..", target_is_directory=True)
    taken = [record.path for record in ClassFolders().read(root)]
    assert sorted(video.path for video in expand(root)) == sorted(taken) and len(taken) == 1


def test_a_folder_without_videos_says_what_would_be_one(put):
    root = put("a/c.xyz")
    for find in (lambda: expand(root), lambda: ClassFolders().read(root)):
        with pytest.raises(DataError, match=r"holds no video \(found c\.xyz; videos end in \.mp4, .*\.mts, .*\.wmv"):
            find()


def test_the_documents_name_every_suffix():
    row = next(
        line for line in (REPOSITORY / "docs" / "videos.md").read_text().splitlines() if line.startswith("| suff")
    )
    assert tuple(re.findall(r"`(\.[a-z0-9]+)`", row.partition(". Hidden")[0])) == VIDEO_SUFFIXES


@pytest.mark.parametrize(
    ("suffix", "codec", "container"),
    [
        (".wmv", "wmv2", "asf"),
        (".asf", "wmv2", "asf"),
        (".flv", "flv", "flv"),
        (".f4v", "libx264", "mp4"),
        (".mts", "libx264", "mpegts"),
        (".m2ts", "libx264", "mpegts"),
        (".m2t", "libx264", "mpegts"),
        (".vob", "mpeg2video", "vob"),
        (".mpe", "mpeg1video", "mpeg"),
        (".3g2", "libx264", "mp4"),
        (".qt", "libx264", "mov"),
        (".ogv", "libvpx", "ogg"),
        (".divx", "mpeg4", "avi"),
        (".265", "libx265", "hevc"),
        (".264", "libx264", "h264"),
    ],
)
def test_videos_of_every_suffix_are_read(suffix: str, codec: str, container: str, tmp_path: Path):
    path = write_video(tmp_path / f"a{suffix.upper()}", num_frames=6, codec=codec, container=container)
    assert [video.path for video in expand(tmp_path)] == [path.name]
    assert count_frames(path) == 6
