"""Files beside clips that look as if they listed labels, and why they cannot be read as they are.

What a person has written down must not be passed over for the names of folders. So a file is looked at as text: whether
its lines name clips, and whether what stands beside them could be classes.
"""

from __future__ import annotations

import codecs
import csv
import html
import json
import re
import shlex
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rbft.data.formats.columns import LABEL_COLUMNS, PATH_COLUMNS, usual_column
from rbft.data.formats.on_disk import VIDEO_SUFFIXES, is_video, sequences_below, walk
from rbft.data.formats.rows import TABLE_SUFFIXES
from rbft.data.labels import names_split
from rbft.files import NOT_JSON

_OBJECTS = (".jsonl", ".json")
_TEXTS = (".csv", ".tsv", ".txt", *_OBJECTS)
_SHEETS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "'|'"}
_MEANT = {".csv": ",", ".tsv": "\t"}
_ANSWER = "last answer's class"  # column of what a conversation ends in
_NO_COLUMN = "no column of it is known to hold"
_MOST_BYTES = 1 << 24  # that are looked at

# parts of a column's name that speak for classes, in English, German, French and Spanish
_CLASSES = ("label", "class", "klass", "clase", "categor", "catégor", "kategor", "annot", "target", "action", "étiquet")
# words of names of columns that repeat, and tell facts about a file
_FACTS = frozenset(
    [
        "fps",
        "rate",
        "width",
        "height",
        "w",
        "h",
        "duration",
        "length",
        "seconds",
        "frames",
        "size",
        "bytes",
        "codec",
        "bitrate",
        "resolution",
        "date",
        "time",
        "start",
        "end",
        "format",
        "version",
        "md5",
        "sha256",
        "license",
        "licence",
        "author",
        "url",
    ]
)
_ENCRYPTED = 0x1  # of the flags of a file in a zip file
_HASH = re.compile(r"[0-9a-f]{32,}", re.IGNORECASE)
# names of columns that say what a clip is for or of, and not what it shows
_NO_CLASSES = frozenset(["split", "subset", "partition", "fold", "group"])


@dataclass(frozen=True)
class Look:
    """What a file looks like from outside.

    Args:
        names_clips: whether its lines name clips.
        lists_labels: whether it looks like a list of their labels.
        fault: why it cannot be read as it is, with what to do, in a clause; empty where its form and columns are right.
        named: whether it can be read where it is named itself.
    """

    names_clips: bool = False
    lists_labels: bool = False
    fault: str = ""
    named: bool = False


@dataclass(frozen=True)
class _Grid:
    """The lines of a file as cells.

    Args:
        header: names of the columns; empty where the first line names a clip.
        rows: cells of the lines below, as many in each as the longest line has.
        place: column that names clips.
        separator: what stands between two cells; empty for JSON.
    """

    header: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    place: int
    separator: str

    def classes(self) -> list[int]:
        """The columns that could be classes, those first that are called so."""
        columns = list(map(list, zip(*self.rows, strict=True)))
        names = [name.casefold() for name in self.header] or [""] * len(columns)
        called = [place for place, name in enumerate(names) if any(part in name for part in _CLASSES)]
        others = [place for place, cells in enumerate(columns) if place not in called and _repeats(names[place], cells)]
        return [place for place in (*called, *others) if place != self.place and columns and any(columns[place])]

    def agrees(self, place: int, clips: ClipNames) -> bool:
        """Whether what stands in a column is the name of a folder in which the clip of the row lies."""
        rows = [row for row in self.rows if row[place]]
        return bool(rows) and all(row[place].casefold() in clips.folders(row[self.place]) for row in rows)


class ClipNames:
    """Names of clips, by which a cell of a file is told to name one: a path, a file name, or that without its suffix.

    Args:
        root: folder of the clips; it is not looked at before a cell is.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @cached_property
    def _paths(self) -> dict[str, list[str]]:
        """Paths below the root by file name and by name without a suffix; all folded."""
        found: dict[str, list[str]] = {}
        for path in (*filter(lambda file: is_video(file.name), walk(self._root)), *sequences_below(self._root)):
            stated = path.relative_to(self._root).as_posix().casefold()
            for name in {Path(stated).name, _stem(Path(stated).name)}:
                found.setdefault(name, []).append(stated)
        return found

    def __contains__(self, cell: str) -> bool:
        return bool(self._named(cell))

    def folders(self, cell: str) -> tuple[str, ...]:
        """Names of the folders, folded, in which the clip lies that a cell names; none where it may be several."""
        stated = _folded(cell)
        named = self._named(cell)
        exact = [path for path in named if path == stated or _stem(path) == _stem(stated)]
        if exact or len(named) == 1:
            return tuple((exact or named)[0].split("/")[:-1])
        return ()

    def _named(self, cell: str) -> list[str]:
        name = _folded(cell).rpartition("/")[2]
        # a number of one or two digits may be anything
        if not name or (name.isdigit() and len(name) < 3):
            return []
        return self._paths.get(name) or (self._paths.get(_stem(name), []) if name != _stem(name) else [])


def _folded(cell: str) -> str:
    return cell.strip().strip("\"'").casefold().replace("\\", "/").removeprefix("./")


def _stem(name: str) -> str:
    """A name without a video's suffix."""
    return name.rpartition(".")[0] if name.endswith(VIDEO_SUFFIXES) else name


def is_called_labels(path: Path) -> bool:
    """Whether a file has the name of a list of labels."""
    return path.stem.casefold() in ("label", "labels")


def look_at(path: Path, clips: ClipNames) -> Look:
    """What a file beside clips looks like; it need not be one that can be read."""
    suffix = path.suffix.lower()
    if suffix in _SHEETS and not path.name.startswith("~$"):  # which Excel leaves while a file is open
        listing = any(part in path.stem.casefold() for part in (*_CLASSES, "metadata"))
        return Look(
            _sheet_names_clips(path, clips), listing, f"{suffix} cannot be read; save it as CSV in UTF-8, with commas"
        )
    if suffix not in _TEXTS:
        return Look()
    called = is_called_labels(path) and _is_table(path)
    text = _text(path)
    grid = _of_objects(text, suffix, clips) if suffix in _OBJECTS else _of_lines(text, suffix, clips)
    if grid is None:
        return Look(
            lists_labels=called and bool(text.strip()), fault=f"{_NO_COLUMN} paths and classes" if called else ""
        )
    classes = grid.classes()
    # to say again what the folders say is no other list, unless it says more: the split, or what must stay together
    says_more = called or names_split(path.stem) or {"split", "group"} & {name.casefold() for name in grid.header}
    if not says_more and any(grid.agrees(place, clips) for place in classes):
        return Look(True)
    if _can_be_named(path, grid):
        fault = f"a list of this kind must be named itself ({shlex.quote(str(path))} in place of its folder)"
        return Look(True, called or bool(classes), fault, True)
    return Look(True, called or bool(classes), _fault(path, grid, classes, text))


def _sheet_names_clips(path: Path, clips: ClipNames) -> bool:
    """Whether some cells of an Excel file name clips (ECMA-376: a zip file whose texts stand in elements `t`)."""
    cells: list[str] = []
    left = _MOST_BYTES  # however many sheets there are, and however little room they take packed
    try:
        with zipfile.ZipFile(path) as sheets:
            for sheet in sheets.infolist():
                texts_in = re.fullmatch(r"xl/(sharedStrings|worksheets/[^/]+)\.xml", sheet.filename)
                if left and texts_in and not sheet.flag_bits & _ENCRYPTED:
                    with sheets.open(sheet) as opened:
                        content = opened.read(left)
                    left -= len(content)
                    texts = re.findall(r"<t(?:\s[^>]*)?>([^<]*)</t>", content.decode(errors="replace"))
                    cells += map(html.unescape, texts)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        return False  # damaged, or packed as Excel does not: its name alone says what it may be
    return sum(cell in clips for cell in cells) > 1


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLE_SUFFIXES


def _can_be_named(path: Path, grid: _Grid) -> bool:
    """Whether it is a list of conversations, or of paths and numbers of classes."""
    suffix = path.suffix.lower()
    numbered = all(row[-1].isdigit() for row in grid.rows)
    answers = suffix in _OBJECTS and bool({_ANSWER, "response"} & {*grid.header})
    return answers or (suffix == ".txt" and grid.separator == " " and numbered)


def _fault(path: Path, grid: _Grid, classes: Sequence[int], text: str) -> str:
    suffix = path.suffix.lower()
    if not _is_table(path):
        return f"{suffix} of this kind cannot be read; save it as a .csv with commas and the columns path,label"
    if suffix in _MEANT and grid.separator != _MEANT[suffix]:
        return f"its cells are separated by {_SEPARATORS[grid.separator]}; .csv means commas, .tsv means tabs"
    if suffix in _MEANT and text.startswith("sep="):
        return "its first line is no header; delete 'sep='"
    if not grid.header or not grid.header[grid.place]:
        return "its first line names no columns; write path,label and the like above it"
    columns = f"(columns: {', '.join(map(repr, grid.header))})"
    path_column, label_column = (usual_column(grid.header, usual) for usual in (PATH_COLUMNS, LABEL_COLUMNS))
    if path_column is not None and label_column is not None:
        return ""
    names = [grid.header[place] for place in classes if grid.header[place].casefold() not in _NO_CLASSES]
    called = [shlex.quote(name) for name in names if name]
    if path_column is not None and classes and not called:
        return f"{_NO_COLUMN} classes {columns}; add one that is called label"
    if path_column is not None:
        told = called[0] if called else "COLUMN"
        return f"{_NO_COLUMN} classes {columns}; call it label, or say --data.format.label_column {told}"
    flags = f"--data.format.path_column {shlex.quote(grid.header[grid.place])}"
    flags += f" --data.format.label_column {called[0]}" if called else ""
    return f"{_NO_COLUMN} paths and classes {columns}; call them path and label, or say {flags}"


def _repeats(name: str, cells: Sequence[str]) -> bool:
    """Whether cells could be classes: each stands there twice or more often, and they tell no fact about a file."""
    filled = [cell for cell in cells if cell]
    if set(re.split(r"[\W_]+", name)) & _FACTS or any(re.fullmatch(r"-?\d*[.,]\d+", cell) for cell in filled):
        return False
    if filled and all(map(_HASH.fullmatch, filled)):
        return False
    return 2 <= len(set(filled)) <= len(filled) / 2


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        content = stream.read(_MOST_BYTES)
    if len(content) == _MOST_BYTES:  # without the line that was cut
        content = content[: content.rfind(b"\n") + 1]
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig", errors="replace")


def _of_lines(text: str, suffix: str, clips: ClipNames) -> _Grid | None:
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and lines[0].startswith("sep="):
        del lines[0]
    found: list[_Grid] = []
    for separator in (_MEANT.get(suffix, ","), *_SEPARATORS):
        found += _grid([row for row in _csv_rows(lines, separator) if row], separator, clips)
    if suffix == ".txt" and not any(grid.classes() for grid in found):
        found += _grid([line.rsplit(maxsplit=1) for line in lines], " ", clips)
    # with the right separator there is something beside the clips
    return max(found, key=lambda grid: bool(grid.classes()), default=None)


def _csv_rows(lines: Sequence[str], separator: str) -> list[list[str]]:
    try:
        return list(csv.reader((f"{line}\n" for line in lines), delimiter=separator))
    except csv.Error:
        return []


def _of_objects(text: str, suffix: str, clips: ClipNames) -> _Grid | None:
    try:
        content = json.loads(text) if suffix == ".json" else [json.loads(line) for line in text.splitlines() if line]
    except NOT_JSON:
        return None
    rows = list(_objects(content))
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return next(iter(_grid([columns, *([_cell(row.get(name)) for name in columns] for row in rows)], "", clips)), None)


def _objects(content: Any) -> Iterator[Mapping[str, Any]]:
    """The entries of a list, or of a mapping from names of clips, as objects."""
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list) and len(value) > 1]
        if lists and isinstance(lists[0][0], dict):
            content = lists[0]
        else:
            content = [
                {"": key} | (value if isinstance(value, dict) else {" ": value}) for key, value in content.items()
            ]
    for entry in content if isinstance(content, list) else ():
        if isinstance(entry, dict):
            turns = entry.get("conversations", entry.get("messages"))
            yield entry if not isinstance(turns, list) or not turns else entry | {_ANSWER: turns[-1]}
        elif isinstance(entry, list):
            yield {str(place): cell for place, cell in enumerate(entry)}


def _cell(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _grid(rows: Sequence[Sequence[str]], separator: str, clips: ClipNames) -> list[_Grid]:
    """The rows as a grid, if half of them or more name a clip in one column; else none."""
    width = max(map(len, rows), default=0)
    full = [[cell.strip() for cell in row] + [""] * (width - len(row)) for row in rows]
    counts = [sum(row[place] in clips for row in full) for place in range(width)]
    most = max(counts, default=0)
    if not most or most < len(rows) / 2:
        return []
    place = counts.index(most)
    if full[0][place] in clips:
        return [_Grid((), full, place, separator)]
    return [_Grid(tuple(full[0]), full[1:], place, separator)]
