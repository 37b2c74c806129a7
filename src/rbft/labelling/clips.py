"""The clips of a page: what a folder or table holds, their labels, and the order in which they are shown."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from rbft.data.formats import ClassFolders
from rbft.data.formats.columns import LABEL_COLUMNS, PATH_COLUMNS, part_columns, paths_column, row_part
from rbft.data.formats.on_disk import is_video, no_video, videos_below, visible
from rbft.data.formats.rows import read_table
from rbft.data.formats.spelling import hint_of_spelling
from rbft.data.labels import UNLABELLED
from rbft.data.own_tables import columns_of, is_own
from rbft.data.records import found_path, part_name
from rbft.errors import ConfigError, DataError
from rbft.labelling.table import TABLES, Labelled, LabelTable, Part
from rbft.video.content import is_there
from rbft.video.image_sequence import is_sequence, sequence_name, split_rate

_USUAL = "labels.csv"
_TRIED = 5  # rows whose file is not there, to find one of another spelling


@dataclass(frozen=True)
class Clip:
    """A clip to show.

    Args:
        path: path of the video, relative to the root.
        part: seconds of the video; None: all of it.
    """

    path: str
    part: Part

    @property
    def name(self) -> str:
        """Path, and part where there is one."""
        return part_name(self.path, self.part)


@dataclass(frozen=True)
class Found:
    """What a person named.

    Args:
        root: folder of the clips.
        table: table of their labels; new, or as it stands.
        clips: clips, by name.
        said: what was recognised, in a clause.
        missing: rows of the table whose file is not there.
    """

    root: Path
    table: LabelTable
    clips: tuple[Clip, ...]
    said: str
    missing: int = 0


def find_clips(
    source: Path, table: Path | None = None, *, folders_are_classes: bool = True, frame_rate: float | None = None
) -> Found:
    """Find the clips of a folder or of a table, and the table that holds, or will hold, their labels.

    Args:
        source: folder of clips, or a table of them.
        table: table of the labels, in the folder; None: the one that is there, or else `labels.csv`.
        folders_are_classes: whether a folder for each class gives the first labels where there is no table yet.
        frame_rate: frames a second of folders of numbered images, each of which then is a clip.

    Raises:
        DataError: There is no clip, or the table cannot be read.
        ConfigError: The table lies elsewhere, or both a table and `--table` were named.
    """
    if source.is_file():
        if table is not None:
            raise ConfigError(f"--table {table}: {source} is a table already; name its folder, or leave --table out.")
        labels = LabelTable(source, frame_rate=frame_rate)
        return _listed(source.parent, labels, f"the table {source.name}", None)
    if not source.is_dir():
        raise DataError(f"{source}: there is no such folder or file. Name a folder of clips, or a table of them.")
    files = videos_below(source, frame_rate)
    if frame_rate is not None and Path(sequence_name(str(source), frame_rate)) in files:
        raise DataError(
            f"{source} holds images itself; each video needs a folder of its own. Name the folder above it."
        )
    chosen = _table_of(source, frame_rate, folders_are_classes=folders_are_classes) if table is None else table
    if chosen.resolve().parent != source.resolve():
        raise ConfigError(f"--table {chosen}: paths in it are relative to its folder; put it into {source}.")
    if chosen.is_file():
        return _listed(source, LabelTable(chosen, frame_rate=frame_rate), f"the table {chosen.name}", files)
    if not files:
        raise DataError(f"{source} {no_video(source)}.")
    begin, said = _from_folders(source, frame_rate) if folders_are_classes else ([], "")
    return _listed(source, LabelTable(chosen, begin, frame_rate), said or "a folder without labels", files)


def _table_of(root: Path, frame_rate: float | None, *, folders_are_classes: bool) -> Path:
    if (root / _USUAL).is_file():
        return root / _USUAL
    tables = [entry for entry in visible(root) if entry.is_file() and entry.suffix.lower() in TABLES]
    columns = {path: names for path in tables if (names := _columns_of_clips(path))}
    chosen = [path for path, names in columns.items() if names & set(LABEL_COLUMNS)]
    if not chosen and not (folders_are_classes and _are_classes(root, frame_rate)):
        chosen = list(columns)
    if len(chosen) > 1:
        listed = ", ".join(path.name for path in chosen)
        raise DataError(f"{root} holds several tables of clips ({listed}); name the one to use with --table.")
    return chosen[0] if chosen else root / _USUAL


def _columns_of_clips(path: Path) -> set[str]:
    """The columns of a person's table of clips, in lower case; none of other tables, which lie beside clips, too."""
    try:
        columns = columns_of(path)
    except DataError:
        return set()
    names = {name.casefold() for name in columns}
    return names if names & set(PATH_COLUMNS) and not is_own(columns) else set()


def _are_classes(root: Path, frame_rate: float | None) -> bool:
    try:
        return bool(_from_folders(root, frame_rate)[0])
    except DataError:
        return False


def _from_folders(root: Path, frame_rate: float | None) -> tuple[list[Labelled], str]:
    """The labels that a folder for each class gives; none where the folders are no classes."""
    entries = visible(root)
    folders = [entry for entry in entries if entry.is_dir() and videos_below(entry, frame_rate)]
    classes = [entry for entry in folders if entry.name.casefold() not in UNLABELLED]
    loose = any(entry.is_file() and is_video(entry.name) for entry in entries)
    if len(classes) < 2 or loose or (frame_rate is not None and any(map(is_sequence, folders))):
        return [], ""
    skip = tuple(entry.name for entry in entries if entry.is_dir() and entry not in classes)
    records = ClassFolders(skip, frame_rate).read(root)
    counts = dict.fromkeys(sorted({record.label for record in records}), 0)
    for record in records:
        counts[record.label] += 1
    listed = ", ".join(f"{label} {count}" for label, count in counts.items())
    begin = [Labelled(record.path, None, record.label, record.split or "") for record in records]
    return begin, f"a folder for each class ({listed}); if the folders are no classes, say --ignore-folders"


def _listed(root: Path, table: LabelTable, said: str, files: Sequence[Path] | None) -> Found:
    """The clips of a table, and of files below its folder that it does not name; None: of the table alone."""
    rows = table.read()
    there = [row for row in rows if is_there(root / row.path)]
    clips = {Clip(row.path, row.part) for row in there}
    known = {split_rate(clip.path)[0] for clip in clips}
    others = (found_path(file, root) for file in files or ())
    clips |= {Clip(path, None) for path in others if split_rate(path)[0] not in known}
    if not clips:
        hint = hint_of_spelling(root, [row.path for row in rows[:_TRIED]], is_video)
        raise DataError(f"{table.path}: none of its {len(rows)} clips is on the disk below {root}.{hint}")
    ordered = sorted(clips, key=lambda clip: (clip.path, clip.part or (0.0, 0.0)))
    return Found(root, table, tuple(ordered), said, len(rows) - len(there))


def in_order(clips: Sequence[Clip], labelled: Collection[Clip], wanted: Sequence[Clip]) -> list[int]:
    """Places of the clips in the order in which they are shown: those that are wanted, those without a label, the rest.

    Args:
        clips: all clips.
        labelled: clips that have a label.
        wanted: clips to show first, in this order.
    """
    places = {clip: place for place, clip in enumerate(clips)}
    first = list(dict.fromkeys(places[clip] for clip in wanted if clip in places))
    rest = [place for place in range(len(clips)) if place not in set(first)]
    return [*first, *(p for p in rest if clips[p] not in labelled), *(p for p in rest if clips[p] in labelled)]


def read_order(path: Path, found: Found) -> list[Clip]:
    """The clips of a table with a column of paths, such as `rbft suggest` leaves, in the order of its rows.

    Raises:
        DataError: The table cannot be read, or names none of the clips.
    """
    rows = read_table(path)
    column, times = paths_column(rows[0].names, rows[0].header), part_columns(rows)
    # a folder of images is the same clip whatever rate is said with it
    there = {(split_rate(clip.path)[0], clip.part): clip for clip in found.clips}
    wanted = []
    for row in rows:
        stated = Path(row.filled(column))
        # relative to the clips, as in a table beside them; or to where the command was given
        for name in (stated, _below(stated, found.root)):
            key = None if name is None else (split_rate(name.as_posix())[0], row_part(row, times))
            if key in there:
                wanted.append(there[key])
                break
    if not wanted:
        raise DataError(f"--order {path}: it names none of the {len(there)} clips of {found.root}.")
    return wanted


def _below(path: Path, root: Path) -> Path | None:
    whole = path.resolve()
    return whole.relative_to(root.resolve()) if whole.is_relative_to(root.resolve()) else None
