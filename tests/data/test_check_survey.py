"""Every video is decoded once, whole; what was found is remembered by content; a fatal file costs itself alone."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tests.support.scenes import scene, write_scene
from tests.support.videos import write_video

from rbft import files
from rbft.data import survey as module
from rbft.data.survey import CACHE_FILE, decode_in_processes, survey
from rbft.data.video_facts import VideoFacts, inspect_video
from rbft.errors import ConfigError, DataError
from rbft.files import file_digest
from rbft.video.sampling import FrameSampling


@pytest.fixture
def root(tmp_path):
    for number in range(3):
        write_scene(tmp_path / "root" / f"v{number}.mp4", number)
    return tmp_path / "root"


@pytest.fixture
def decoded(monkeypatch):
    """The paths that are decoded in this process, in order."""
    paths = []

    def count(path, root, digest, time_limit, **settings):
        paths.append(path)
        return inspect_video(path, root, digest, time_limit, **settings)

    monkeypatch.setattr(module, "inspect_video", count)
    return paths


def look(root, *paths, **options):
    quiet = Console(file=io.StringIO())
    paths = paths or sorted(p.name for p in root.iterdir())
    return survey(root, paths, cache=root.parent / "cache", console=quiet, **{"workers": 1} | options)


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def test_facts_of_a_sound_video(tmp_path):
    path = write_video(tmp_path / "turned.mp4", num_frames=30, size=(48, 64), fps=10, rotation=90)
    facts = look(tmp_path, "turned.mp4")["turned.mp4"]
    assert facts.readable and not facts.blank and facts.reason is None
    assert (facts.declared_frames, facts.decoded_frames, facts.codec) == (30, 30, "h264")
    assert (facts.height, facts.width, facts.rotation) == (64, 48, 90)
    assert (facts.fps, facts.duration) == (10.0, 3.0)
    assert (facts.bytes, facts.digest) == (path.stat().st_size, file_digest(path))
    assert VideoFacts(**json.loads(json.dumps(facts.to_json()))) == facts


def test_another_shape_on_the_way_is_told_and_another_size_is_not(tmp_path):
    parts = {name: write_video(tmp_path / name, num_frames=10, size=size) for name, size in SHAPES.items()}
    for name in ("standing.h264", "small.h264"):
        (tmp_path / f"to_{name}").write_bytes(parts["lying.h264"].read_bytes() + parts[name].read_bytes())
    facts = look(tmp_path, "to_standing.h264", "to_small.h264")
    assert facts["to_standing.h264"].reshaped == "of 64x96 from 0.40 s on"
    assert facts["to_small.h264"].reshaped == "" and facts["to_small.h264"].readable


SHAPES = {"lying.h264": (64, 96), "standing.h264": (96, 64), "small.h264": (32, 48)}


def test_every_kind_of_bad_file(root):
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("404 not found")
    (root / "folder.mp4").mkdir()
    (root.parent / "secret.mp4").write_bytes((root / "v0.mp4").read_bytes())
    (root / "link.mp4").symlink_to(root.parent / "secret.mp4")
    write_video(root / "half.mkv", num_frames=60)
    write_video(root / "half.avi", num_frames=60, codec="mpeg4")
    write_video(root / "web.mp4", num_frames=60, container_options={"movflags": "faststart"})
    for name in ("half.mkv", "half.avi", "web.mp4"):
        cut(root / name, 0.5)
    facts = look(root, *sorted(p.name for p in root.iterdir()), "gone.mp4")
    assert {path: one.problem for path, one in facts.items() if one.problem} == {
        "empty.mp4": "empty",
        "text.mp4": "unreadable",
        "folder.mp4": "missing",
        "link.mp4": "missing",
        "half.mkv": "damaged",
        "half.avi": "damaged",
        "web.mp4": "damaged",
        "gone.mp4": "missing",
    }
    assert "is text" in facts["text.mp4"].reason and "outside" in facts["link.mp4"].reason
    assert facts["half.avi"].declared_frames == 60 and 0 < facts["half.avi"].decoded_frames < 60


def test_a_broken_frame_in_the_middle_is_found(root):
    """The file is whole by its header, and the decoder conceals the damage: as many frames as promised come out."""
    path = write_video(root / "hole.mp4", num_frames=60, gop=60, codec="mpeg4")
    data = bytearray(path.read_bytes())
    start = len(data) * 4 // 10
    data[start : start + 20] = bytes(20)
    path.write_bytes(data)
    with av.open(str(path)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 60
    facts = look(root, "hole.mp4")["hole.mp4"]
    assert facts.problem == "damaged" and facts.declared_frames == 60 and 0 < facts.decoded_frames < 60
    assert "of 60 frames decode undamaged; frame" in facts.reason


@pytest.mark.parametrize("level", [0, 16, 128, 255])
def test_blank_clips_are_told(root, level):
    write_video(root / "blank.mp4", np.full((16, 64, 64, 3), level, np.uint8))
    fading = np.linspace(0, 255, 16).astype(np.uint8)[:, None, None, None]
    write_video(root / "fading.mp4", np.broadcast_to(fading, (16, 64, 64, 3)).copy())
    facts = look(root)
    assert {path for path, one in facts.items() if one.blank} == {"blank.mp4", "fading.mp4"}
    assert facts["blank.mp4"].signature == ""


def test_second_survey_decodes_nothing(root, decoded):
    first = look(root)
    assert decoded == ["v0.mp4", "v1.mp4", "v2.mp4"]
    assert look(root) == first and len(decoded) == 3


def test_changed_bytes_are_decoded_again(root, decoded):
    look(root)
    times = (root / "v1.mp4").stat()
    write_scene(root / "other.mp4", 9, crf=30)
    data = (root / "other.mp4").read_bytes()
    (root / "v1.mp4").write_bytes(data + bytes(max(0, times.st_size - len(data))))
    os.utime(root / "v1.mp4", ns=(times.st_atime_ns, times.st_mtime_ns))
    files._digest.cache_clear()  # as in a new process: within one, size and time stand for the content
    changed = look(root, "v0.mp4", "v1.mp4")
    assert decoded[3:] == ["v1.mp4"]
    assert changed["v1.mp4"].digest == file_digest(root / "v1.mp4")


def test_copies_and_moved_files_are_known_by_content(root, decoded, monkeypatch):
    first = look(root)
    shutil.move(root, root.with_name("moved"))
    moved = root.with_name("moved")
    (moved / "copy.mp4").write_bytes((moved / "v0.mp4").read_bytes())
    found = look(moved)
    assert len(decoded) == 3
    assert found["copy.mp4"] == replace(first["v0.mp4"], path="copy.mp4")
    # the new places are remembered too: from now on the files are not even read
    monkeypatch.setattr(module, "content_digest", lambda path: pytest.fail(f"{path} is read"))
    assert look(moved) == found


def test_another_schema_is_not_believed(root, decoded, monkeypatch):
    look(root)
    monkeypatch.setattr(module, "SCHEMA", "2")
    look(root)
    assert len(decoded) == 6


def test_torn_line_of_a_killed_writer(root, decoded):
    look(root)
    file = root.parent / "cache" / CACHE_FILE
    cut(file, 0.9)
    look(root)
    assert decoded[3:] == ["v2.mp4"]
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [Path(row["file"]).name for row in rows] == ["v0.mp4", "v1.mp4", "v2.mp4"]


def test_interrupted_survey_keeps_what_it_found(root, decoded, monkeypatch):
    def interrupt(path, *rest, **settings):
        if path == "v2.mp4":
            raise KeyboardInterrupt
        return inspect_video(path, *rest, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(module, "inspect_video", interrupt)
        with pytest.raises(KeyboardInterrupt):
            look(root)
    look(root)
    assert decoded == ["v2.mp4"]


def test_time_limit(root, decoded):
    facts = look(root, "v0.mp4", time_limit=0)["v0.mp4"]
    assert facts.problem == "gave_up" and "takes more than 0 s" in facts.reason
    assert look(root, "v0.mp4")["v0.mp4"].readable  # slowness is not remembered
    assert decoded == ["v0.mp4", "v0.mp4"]


def test_no_workers_are_refused(root):
    with pytest.raises(ConfigError, match="workers"):
        look(root, workers=0)


@pytest.mark.parametrize("how", ["a file is in the way", "full", "read-only"])
def test_a_cache_that_cannot_be_used_is_gone_without(root, how, monkeypatch):
    cache = root.parent / "cache"
    if how == "a file is in the way":
        cache.write_text("")
    elif how == "full":
        monkeypatch.setattr(module, "append_jsonl", raising(OSError(errno.ENOSPC, "No space left on device")))
    else:
        monkeypatch.setattr(module.FileLock, "acquire", raising(PermissionError(errno.EACCES, "Permission denied")))
    with pytest.warns(UserWarning, match=r"facts about videos cannot be kept in .*cache .*data\.cache_dir"):
        facts = look(root)
    assert all(fact.readable for fact in facts.values()) and len(facts) == 3


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def test_processes_find_the_same(root):
    for number in range(3, 9):
        write_scene(root / f"v{number}.mp4", number)
    alone = look(root)
    shutil.rmtree(root.parent / "cache")
    assert look(root, workers=2) == alone


def dangerous(path, root, digest, time_limit):
    """Stands for the media library: what it does to its process is written in the file's name."""
    if path == "crash":
        os._exit(1)
    if path == "hang":
        time.sleep(600)
    return VideoFacts(path, bytes=1, digest=digest)


@pytest.mark.slow
def test_a_file_that_kills_its_process_costs_itself_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.0)
    names = ["a", "crash", "b", "c", "hang", "d"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    found = list(decode_in_processes(tmp_path, [(name, "") for name in names], 2, 3.0, dangerous))
    facts = {one.path: one for one in found}
    assert len(found) == len(names)
    assert {path for path, one in facts.items() if one.problem} == {"crash", "hang"}
    assert "crashes" in facts["crash"].reason and "takes more than 3 s" in facts["hang"].reason


def test_processes_that_cannot_start_are_no_verdict_on_videos(tmp_path):
    """A script without the main guard starts itself again in every process."""
    for number in range(8):
        write_scene(tmp_path / f"v{number}.mp4", number, num_frames=2)
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom rich.console import Console\nfrom rbft.data.survey import survey\n"
        f"root = Path({str(tmp_path)!r})\n"
        "survey(root, [f'v{i}.mp4' for i in range(8)], cache=root / 'cache', console=Console(), workers=2)\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert ended.returncode != 0
    assert "no process for decoding videos can be started" in ended.stderr
    assert not (tmp_path / "cache" / CACHE_FILE).exists()


def test_a_damaged_cache_is_named(root):
    look(root)
    file = root.parent / "cache" / CACHE_FILE
    file.write_text("nonsense\n" + file.read_text())
    with pytest.raises(DataError, match=rf"{CACHE_FILE}, line 1"):
        look(root)


def test_plain_lines_without_a_terminal(root, monkeypatch):
    monkeypatch.setattr(module, "_REPORT_SECONDS", -1.0)
    out = io.StringIO()
    survey(root, ["v0.mp4", "v1.mp4"], cache=root.parent / "cache", console=Console(file=out), workers=1)
    assert out.getvalue().splitlines() == ["decoding videos: 1 of 2", "decoding videos: 2 of 2"]


def test_a_progress_bar_on_a_terminal(root):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    survey(root, ["v0.mp4", "v1.mp4"], cache=root.parent / "cache", console=console, workers=1)
    assert "decoding videos" in out.getvalue() and "100%" in out.getvalue()


@pytest.mark.parametrize(("files", "processes"), [(4, 0), (9, 3), (40, 5)])
def test_all_cores_decode_where_there_is_enough_to_do(root, monkeypatch, files, processes):
    asked = []

    def decode(root, jobs, workers, time_limit, task):
        asked.append(workers)
        return (VideoFacts(path, bytes=1, digest=digest) for path, digest in jobs)

    monkeypatch.setattr(module, "decode_in_processes", decode)
    monkeypatch.setattr(module, "_cores", lambda: 5)
    for number in range(files):
        shutil.copy(root / "v0.mp4", root / f"copy{number}.mp4")
        (root / f"copy{number}.mp4").open("ab").write(bytes([number]))  # another content
    look(root, *(f"copy{number}.mp4" for number in range(files)), workers=None)
    assert asked == ([processes] if processes else [])


def test_no_torch_in_decoding_processes():
    """It would cost every process seconds and half a gigabyte."""
    code = "import sys, rbft.data.survey, rbft.data.check; assert 'torch' not in sys.modules, 'torch'"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


@pytest.mark.media
def test_real_files_that_break_readers(media_root, tmp_path):
    """Bad is what decodes to nothing or to less than declared, and all else can be read."""
    from rbft.video.clip import read_clip  # with torch, which the processes of other tests here need not wait for
    from rbft.video.clip_spec import ClipSpec

    root = media_root / "hard"
    with (media_root / "hard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    facts = survey(root, [row["file"] for row in rows], cache=tmp_path, console=Console(quiet=True), workers=1)
    bad = {
        row["file"]
        for row in rows
        if int(row["decoded_frames"] or 0) == 0 or int(row["decoded_frames"]) < int(row["declared_frames"])
    }
    assert {path for path, one in facts.items() if not one.readable} == bad
    for row in rows:
        one = facts[row["file"]]
        if one.readable:
            assert one.decoded_frames == int(row["decoded_frames"])
            assert (one.height * one.width) == int(row["height"]) * int(row["width"])
            clip = read_clip(row["file"], ClipSpec(FrameSampling(num_frames=4), 4096), root)
            assert clip.total_num_frames == one.decoded_frames


def test_folders_of_images_are_surveyed_as_videos_are(tmp_path):
    for name in ("sound", "gap", "spoilt"):
        (tmp_path / name).mkdir()
        for number, frame in enumerate(scene(3)):
            Image.fromarray(frame).save(tmp_path / name / f"{number}.png")
    (tmp_path / "gap/4.png").unlink()
    (tmp_path / "spoilt/4.png").write_bytes((tmp_path / "spoilt/4.png").read_bytes()[:300])
    names = [f"{name}#fps=8" for name in ("sound", "gap", "spoilt")]
    console = Console(quiet=True)
    facts = survey(tmp_path, names, cache=tmp_path / "cache", console=console)
    assert [facts[name].problem for name in names] == [None, "unreadable", "damaged"]
    assert "4 is missing" in facts[names[1]].reason and "15 of 16 frames" in facts[names[2]].reason
    sound = facts[names[0]]
    assert (sound.decoded_frames, sound.duration, sound.fps, sound.codec) == (16, 2.0, 8.0, "png")
    assert sound.bytes == sum(path.stat().st_size for path in (tmp_path / "sound").iterdir())
    (tmp_path / "gap/4.png").write_bytes((tmp_path / "gap/5.png").read_bytes())
    assert survey(tmp_path, names, cache=tmp_path / "cache", console=console)[names[1]].problem is None


def test_nothing_is_read_for_no_videos(root):
    look(root)
    (root.parent / "cache" / CACHE_FILE).write_text("not JSON\n")
    assert survey(root, [], cache=root.parent / "cache", console=Console(file=io.StringIO())) == {}
