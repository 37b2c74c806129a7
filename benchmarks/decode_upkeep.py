"""What is measured of rbft's reader by itself: its distance from the floor, its cache, its leaks and its workers."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import load_average, median_ratio, on_one_core, time_in_turns
from benchmarks.media import AWKWARD, TIMED, write_video
from benchmarks.readers import OURS
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rbft.data.survey import survey
from rbft.files import file_digest
from rbft.video.clip import Clip, read_clip
from rbft.video.clip_cache import ClipCache
from rbft.video.clip_prefetch import ClipRequest
from rbft.video.clip_spec import ClipSpec
from rbft.video.reader import open_reader, read_frames
from rbft.video.sampling import FrameSampling

_FFMPEG, _FFMPEG_START = "ffmpeg", "ffmpeg start"
_SMALL = "h264 340x256, 10 s"
_SAMPLING = FrameSampling(num_frames=16)
_SPEC = ClipSpec(_SAMPLING, max_pixels=252 * 336)
_READS, _SETTLED = 5000, 500
_LEAK_CASES = ("edit list", "open gop ts", "mkv without duration", "raw h264", "b-frame avi mpeg4", "webm vp9")
_CLIPS = 32


@dataclass(frozen=True)
class Upkeep:
    """One measurement.

    Args:
        measure: What its value is.
        run: Gives the fields of its row for a folder to write to and a number of repeats.
    """

    measure: str
    run: Callable[[Path, int], dict[str, Any]]


def ffmpeg_contestants(path: Path) -> dict[str, Callable[[], object]]:
    """The ffmpeg program decoding a whole video, and only starting; none if it is not installed."""
    program = shutil.which("ffmpeg")
    if program is None:
        return {}
    decode = [program, "-nostdin", "-v", "error", "-threads", "1", "-skip_frame", "noref", "-i", f"file:{path}"]
    decode += ["-map", "0:v:0", "-f", "null", "-"]
    return {
        _FFMPEG: partial(subprocess.run, decode, check=True),
        _FFMPEG_START: partial(subprocess.run, [program, "-version"], check=True, stdout=subprocess.DEVNULL),
    }


def floor_row(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The fields of a row for the durations of our reader over those of decoding with ffmpeg alone."""
    if _FFMPEG not in seconds or OURS not in seconds:
        return {"available": False, "reason": "there is no ffmpeg program" if OURS in seconds else "rbft did not read"}
    floor = [whole - start for whole, start in zip(seconds[_FFMPEG], seconds[_FFMPEG_START], strict=True)]
    return {"value": median_ratio(seconds[OURS], floor)}


def _cached_clip(folder: Path, repeats: int) -> dict[str, Any]:
    path = write_video(folder, _SMALL, TIMED[_SMALL])
    cache = ClipCache(folder / "clips", 2**30, file_digest)

    def touch(clip: Clip) -> int:
        return int(clip.frames.numpy().max())

    with on_one_core():
        seconds = time_in_turns(
            {
                "decode": lambda: touch(read_clip(path, _SPEC)),
                "cache": lambda: touch(cache.read(path, _SPEC)),
            },
            repeats,
        )
    return {"frames": _SAMPLING.num_frames, "value": median_ratio(seconds["decode"], seconds["cache"])}


def _leaks(folder: Path, repeats: int) -> dict[str, Any]:
    """Growth of memory, descriptors and threads; the clips are small, as it is the number of files that tells."""
    process = Path("/proc/self")
    if not process.is_dir():
        return {"available": False, "reason": "the system does not show a process its own memory in /proc"}

    def held() -> tuple[int, int, int]:
        gc.collect()
        pages = int((process / "statm").read_text(encoding="ascii").split()[1])
        descriptors, threads = (sum(1 for _ in (process / part).iterdir()) for part in ("fd", "task"))
        return pages * os.sysconf("SC_PAGE_SIZE"), descriptors, threads

    paths = [write_video(folder, case, AWKWARD[case]) for case in _LEAK_CASES]
    indices = []
    for path in paths:
        with open_reader(path) as reader:
            indices.append(_SAMPLING.indices(reader.index.timeline(0, reader.index.num_frames)))
    settled = held()
    for number in range(_READS):
        if number == _SETTLED:
            settled = held()
        read_frames(paths[number % len(paths)], indices[number % len(paths)], (84, 112))
    memory, descriptors, threads = (now - then for now, then in zip(held(), settled, strict=True))
    reason = f"{descriptors:+d} descriptors, {threads:+d} threads"
    return {"frames": _SAMPLING.num_frames, "value": round(memory / 2**20, 1), "reason": reason}


def _first_look(folder: Path, repeats: int) -> dict[str, Any]:
    """All that a run does before it has a video's clip, once for each of some videos that it never saw."""
    (root := folder / "looked-at").mkdir()
    paths = [write_video(root, case, AWKWARD[case]).name for case in _LEAK_CASES] + [
        write_video(root, _SMALL, TIMED[_SMALL]).name
    ]

    def look(keep: bool) -> None:
        with tempfile.TemporaryDirectory() as name:
            cache = ClipCache(Path(name), 2**30, file_digest)
            requests = [ClipRequest(cache.folder, cache.max_bytes, _SPEC)] if keep else []
            survey(
                root, paths, cache=cache.folder / "survey", console=Console(quiet=True), workers=1, requests=requests
            )
            for path in paths:
                cache.read(path, _SPEC, root)

    with on_one_core():
        seconds = time_in_turns({"apart": partial(look, False), "together": partial(look, True)}, repeats)
    return {"frames": _SAMPLING.num_frames, "value": median_ratio(seconds["apart"], seconds["together"])}


class _Clips(Dataset[Tensor]):
    """The same clip again and again, decoded every time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return _CLIPS

    def __getitem__(self, index: int) -> Tensor:
        return read_clip(self._path, _SPEC).frames


def _two_workers(folder: Path, repeats: int) -> dict[str, Any]:
    clips = _Clips(write_video(folder, _SMALL, TIMED[_SMALL]))
    load = load_average()
    loaders = {
        workers: DataLoader(clips, batch_size=None, num_workers=workers, persistent_workers=True) for workers in (1, 2)
    }
    seconds = time_in_turns(
        {str(workers): partial(list, loader) for workers, loader in loaders.items()},
        repeats,
        clock=time.perf_counter,
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    reason = f"{cores} cores, load average {load} before"
    return {"frames": _SAMPLING.num_frames, "value": median_ratio(seconds["1"], seconds["2"]), "reason": reason}


UPKEEP: dict[str, Upkeep] = {
    "clip cache, 16 frames of 340p": Upkeep("speedup of a cached clip", _cached_clip),
    "first look, 16 frames": Upkeep("speedup of keeping clips while looking", _first_look),
    "5000 reads": Upkeep("growth in MiB", _leaks),
    "two workers, 16 frames of 340p": Upkeep("speedup of two workers", _two_workers),
}
