"""How fast and how exact are frames read? `rbft.video.reader.read_frames` beside the readers that people use.

All readers take turns in one run on one core, one thread each, and processor time counts; every figure is a ratio.

- speed: processor time of the naive reader (decode all frames, convert all, pick, scale) over that of each reader, for
  frames taken uniformly and scaled to what a vision-language model with cells of 28 pixels takes within 336x252.
- exactness: frames that are not those asked for, by comparison with a decode of the whole file, over generated files
  that trap readers and over every file of `--media` that decodes. `opencv seek` takes part in this only, because
  seeking to every frame is its slower way.
- cpu over ffmpeg floor: processor time of rbft, colours and scaling included, over that of
  `ffmpeg -threads 1 -skip_frame noref -f null`, which decodes what has to be decoded of the whole file and converts
  nothing, less what that program takes to start. What is below 1 came by seeking or stopping early.
- speedup of a cached clip: decoding a clip over reading it from a warm `ClipCache`, every pixel touched in both.
- growth in MiB: resident memory after 5,000 reads beyond that after the first 500, with what descriptors and threads
  came up meanwhile.
- speedup of two workers: wall clock of one `DataLoader` worker over that of two. It takes two idle cores; the load
  average of the minute before stands beside it.

A reader that cannot be imported or does not deliver has a row that says so. The peers are installed by
`pip install 'rbft[bench]'`; torchcodec also needs the libraries of an installed ffmpeg.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

# a script knows its own folder only
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import (
    Row,
    describe,
    make_parser,
    median_ratio,
    on_one_core,
    print_table,
    say,
    time_in_turns,
    write_record,
)
from benchmarks.decode_upkeep import UPKEEP, ffmpeg_contestants, floor_row
from benchmarks.exactness import Reference, decode_reference
from benchmarks.media import AWKWARD, TIMED, Coding, write_video
from benchmarks.readers import NAIVE, OURS, PEER_PACKAGES, Reader, first_line, load_readers

from rbft.errors import VideoError
from rbft.video.budget import fit_size
from rbft.video.container import MEDIA_ERRORS
from rbft.video.sampling import FrameSampling, Timeline

_COUNTS = (8, 16, 32)
_EXACT_COUNT = _FLOOR_COUNT = 16
_NOT_TIMED = ("opencv seek",)
_MAX_PIXELS, _CELL = 336 * 252, 28


def make_row(case: str, measure: str, reader: str, frames: int | None = None) -> Row:
    """A row with every field of the record, to be filled."""
    return {
        "case": case,
        "measure": measure,
        "frames": frames,
        "reader": reader,
        "speedup_vs_naive": None,
        "wrong_frames": None,
        "value": None,
        "available": True,
        "reason": None,
    }


def main(args: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 0 if rbft gave every frame that it was asked for."""
    given = list(sys.argv[1:] if args is None else args)
    parser = make_parser("decode", __doc__, repeats=5)
    parser.add_argument("--media", type=Path, metavar="FOLDER", help="videos to add to the exactness matrix")
    parser.add_argument("--cases", nargs="+", metavar="WORD", help="only cases whose name contains one of these words")
    flags = parser.parse_args(given)
    if flags.media and not flags.media.is_dir():
        parser.error(f"--media {flags.media}: no such folder")
    files = sorted(path for path in flags.media.rglob("*") if path.is_file()) if flags.media else []
    media = {str(path.relative_to(flags.media)): path for path in files}
    words = flags.cases or [""]

    def chosen(names: Mapping[str, object]) -> list[str]:
        return [name for name in names if any(word in name for word in words)]

    if not any(chosen(names) for names in (TIMED, AWKWARD, media, UPKEEP)):
        known = "; ".join((*TIMED, *AWKWARD, *UPKEEP))
        parser.error(f"--cases {' '.join(words)}: no case is called like that; there are: {known}")

    torch.set_num_threads(1)
    environment = describe(PEER_PACKAGES, given)
    readers, gaps = load_readers()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="rbft-decode-") as name:
        folder = Path(name)
        for case in chosen(AWKWARD):
            rows += _exactness(case, write_video(folder, case, AWKWARD[case]), readers, gaps)
        for case in chosen(media):
            rows += _exactness(case, media[case], readers, gaps)
        _print_exactness(rows)
        for case in chosen(TIMED):
            rows += _speed(case, write_video(folder, case, TIMED[case]), TIMED[case], readers, gaps, flags.repeats)
        for case in chosen(UPKEEP):
            say(f"upkeep: {case}")
            row = make_row(case, UPKEEP[case].measure, OURS)
            rows.append(row | UPKEEP[case].run(folder, flags.repeats))
    _print_speed(rows)
    write_record(flags.json, "decode", environment, rows)
    read = [row for row in rows if row["reader"] == OURS and row["measure"] in ("exactness", "speed")]
    return int(any(row["wrong_frames"] or not row["available"] for row in read))


def _read(row: Row, path: Path, read: Callable[[], object], reference: Reference, indices: Sequence[int]) -> Row:
    """The row with what became of one reading."""
    try:
        wrong, unturned = reference.judge(read(), indices)
    except Exception as error:
        if row["reader"] == OURS and not isinstance(error, VideoError):
            raise  # a mistake of ours; what a peer raises, of whatever class, is its way of not delivering
        return row | {"available": False, "reason": _reason(error, path)}
    return row | {"wrong_frames": wrong, "reason": "not turned for display" if unturned else None}


def _reason(error: Exception, path: Path) -> str:
    return first_line(error).replace(f"{path.parent}/", "")


def _gap_rows(case: str, measure: str, frames: int, gaps: Mapping[str, str]) -> list[Row]:
    return [
        make_row(case, measure, name, frames) | {"available": False, "reason": reason} for name, reason in gaps.items()
    ]


def _exactness(case: str, path: Path, readers: Mapping[str, Reader], gaps: Mapping[str, str]) -> list[Row]:
    """Every reader but the naive one, which is the reference itself, on one file in its own size."""
    say(f"exactness: {case}")
    try:
        reference = decode_reference(path)
    except MEDIA_ERRORS as error:
        return [make_row(case, "exactness", "reference") | {"available": False, "reason": _reason(error, path)}]
    count = min(_EXACT_COUNT, reference.num_frames)
    indices = FrameSampling(num_frames=count).indices(Timeline(reference.num_frames, 0.0))
    rows = []
    for name, reader in readers.items():
        if name != NAIVE:
            row = make_row(case, "exactness", name, count)
            rows.append(_read(row, path, partial(reader, path, indices, None), reference, indices))
    return rows + _gap_rows(case, "exactness", count, gaps)


def _speed(
    case: str, path: Path, coding: Coding, readers: Mapping[str, Reader], gaps: Mapping[str, str], repeats: int
) -> list[Row]:
    """Every reader on one file, scaled, at each number of frames."""
    say(f"speed: {case}")
    reference = decode_reference(path)
    size = fit_size(coding.height, coding.width, _MAX_PIXELS, _CELL)
    rows: list[Row] = []
    for count in _COUNTS:
        indices = FrameSampling(num_frames=count).indices(Timeline(reference.num_frames, 0.0))
        calls = {
            name: partial(reader, path, indices, size) for name, reader in readers.items() if name not in _NOT_TIMED
        }
        found = {
            name: _read(make_row(case, "speed", name, count), path, call, reference, indices)
            for name, call in calls.items()
        }
        able = {name: call for name, call in calls.items() if found[name]["available"]}
        floor = ffmpeg_contestants(path) if count == _FLOOR_COUNT else {}
        with on_one_core():
            seconds = time_in_turns({**able, **floor}, repeats, warm_up=False)
        for name in able:
            found[name]["speedup_vs_naive"] = median_ratio(seconds[NAIVE], seconds[name])
        rows += [*found.values(), *_gap_rows(case, "speed", count, gaps)]
        if count == _FLOOR_COUNT:
            rows.append(make_row(case, "cpu over ffmpeg floor", OURS, count) | floor_row(seconds))
    return rows


def _print_exactness(rows: Sequence[Row]) -> None:
    judged = [row for row in rows if row["measure"] == "exactness"]
    totals = []
    for reader in dict.fromkeys(row["reader"] for row in judged):
        own = [row for row in judged if row["reader"] == reader]
        totals.append(
            {
                "reader": reader,
                "files": len(own),
                "frames": sum(row["frames"] or 0 for row in own if row["available"]),
                "wrong": sum(row["wrong_frames"] or 0 for row in own),
                "files with wrong frames": sum(bool(row["wrong_frames"]) for row in own),
                "files not read": sum(not row["available"] for row in own),
            }
        )
    if totals:
        print_table("exactness", list(totals[0]), totals)


def _print_speed(rows: Sequence[Row]) -> None:
    timed = [row for row in rows if row["measure"] == "speed"]
    if timed:
        readers = dict.fromkeys(row["reader"] for row in timed)
        lines: dict[tuple[str, int], Row] = {}
        for row in timed:
            line = lines.setdefault((row["case"], row["frames"]), {"case": row["case"], "frames": row["frames"]})
            line[row["reader"]] = _speed_cell(row)
        title = "speed: processor time of the naive reader over that of each"
        print_table(title, ("case", "frames", *readers), list(lines.values()))
    others = [row for row in rows if row["measure"] not in ("speed", "exactness")]
    if others:
        print_table("rbft by itself", ("case", "measure", "frames", "value", "reason"), others)


def _speed_cell(row: Row) -> str:
    if not row["available"]:
        return "not available"
    wrong = row["wrong_frames"]
    return f"{row['speedup_vs_naive']:.3g}" + (f" ({wrong} wrong)" if wrong else "")


if __name__ == "__main__":
    sys.exit(main())
