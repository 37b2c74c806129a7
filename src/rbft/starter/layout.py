"""How the labels of some clips are listed, recognised from what a person names: a folder, a table or a list."""

from __future__ import annotations

import inspect
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rbft.data import formats
from rbft.data.formats import ClassFolders, Conversations, DatasetFormat, MMAction, Table, VideoFolder
from rbft.data.formats.on_disk import is_video, listing, sequences_below, videos_below, visible
from rbft.data.formats.rows import TABLE_SUFFIXES, annotation_file, read_table, separator_hint
from rbft.data.formats.videofolder import METADATA
from rbft.data.labels import UNLABELLED, require_name
from rbft.data.records import SPLIT_NAMES, VideoRecord
from rbft.errors import ConfigError, DataError
from rbft.starter.beside import refuse_official, refuse_table_inside
from rbft.starter.label_lists import ClipNames, Look, look_at
from rbft.starter.tables import Settings, known_columns, lists_beside, other_columns, side_of, sort_tables

FORMATS: Mapping[str, type[DatasetFormat]] = {
    name: getattr(formats, name) for name in formats.__all__ if name not in ("DatasetFormat", "ShapesWorld")
}
"""Formats of files that a person may have, by name."""
_OF_ONE_FILE = (Table.__name__, MMAction.__name__, Conversations.__name__)
"""Formats that read no other file than the one that is named, unless settings say so."""
_LEAST_CLIPS = 2  # of a class: one to train on and one to test


@dataclass(frozen=True)
class Layout:
    """Labelled clips and how they are listed.

    Args:
        root: Data root.
        format: Name of the data set format.
        settings: Settings of the format that are not its defaults.
        records: The clips.
        description: What was recognised, in a clause.
        notes: What is left out, a clause each.
    """

    root: Path
    format: str
    records: tuple[VideoRecord, ...]
    description: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> dict[str, int]:
        """Number of clips by class, sorted by name."""
        return dict(sorted(Counter(record.label for record in self.records).items()))

    @property
    def suggested_groups(self) -> dict[str, int]:
        """Number of clips by the first word of their file names, where it may be a person or a camera; else empty.

        It is offered where every clip begins with a word and a number, several clips of more than one class share it,
        and no groups are stated.
        """
        if any(record.group for record in self.records):
            return {}
        words = [re.match(r"([A-Za-z]+\d+)[_\-. ]", Path(record.path).name) for record in self.records]
        names = [word.group(1) for word in words if word is not None]
        counts = Counter(names)
        classes = {(name, record.label) for name, record in zip(names, self.records, strict=False)}
        shared = Counter(name for name, _ in classes)
        whole = len(names) == len(self.records) and 2 <= len(counts) <= len(names) // 2
        return dict(sorted(counts.items())) if whole and max(shared.values()) > 1 else {}

    @property
    def shared_folders(self) -> tuple[str, ...]:
        """Names of folders that several class folders hold, sorted, where most clips lie in such folders; else none.

        Either these are people or cameras, or they are the classes and what lies above them is something else.
        """
        if self.format != ClassFolders.__name__:
            return ()
        classes: dict[str, set[str]] = {}
        names: list[str] = []
        for record in self.records:
            # below the class, and the split above it
            below = Path(record.path).parts[1 if record.split is None else 2 : -1]
            names += below[:1]
            for name in below[:1]:
                classes.setdefault(name, set()).add(record.label)
        shared = {name for name, labels in classes.items() if len(labels) > 1 and name.casefold() not in SPLIT_NAMES}
        most = 2 * sum(name in shared for name in names) > len(self.records)
        return tuple(sorted(shared)) if most else ()


def recognise(path: Path, settings: Settings | None = None, format: str | None = None) -> Layout:
    """Find out how labelled clips are listed.

    Args:
        path: A folder with a folder for each class, a folder with a table, a table, or a list of conversations or of
            MMAction.
        settings: What a person said of the data set format, by name, such as `frame_rate` or `label_column`.
        format: Name of the data set format of a folder, where a person said it; None: it is to be found.

    Raises:
        ConfigError: The data set format has not one of these settings, or not such a value.
        DataError: Nothing is recognised, a list of labels is not understood, or there are too few clips or classes;
            says what was found and what to do.
    """
    said = dict(settings or {})
    if not path.exists():
        raise DataError(f"{path}: there is no such folder or file. Name a folder of clips, or a table of them.")
    if format not in (None, "Table"):
        layout = _named(path, FORMATS[format], said)
    elif path.is_dir() and ("file" in said or format is not None):
        layout = _file(path, said.get("file", "labels.csv"), said)
    else:
        layout = _folder(path, said) if path.is_dir() else _file(path.parent, path.name, said)
    if path.is_file() and layout.format in _OF_ONE_FILE:
        note = lists_beside(path, layout.settings, is_table=layout.format == Table.__name__)
        layout = replace(layout, notes=(*layout.notes, *filter(None, [note])))
    _require_names(path, layout)
    _require_enough(path, layout)
    return layout


def _folder(root: Path, said: Settings) -> Layout:
    clips = ClipNames(root)
    tables = sort_tables([entry for entry in visible(root) if entry.is_file()], said, clips)
    if len(tables.usable) > 1:
        listed = ", ".join(table.name for table in tables.usable)
        also = ", or make one of them with a column split" if any(map(side_of, tables.usable)) else ""
        raise DataError(f"{root} holds several tables of clips ({listed}); name the one to use{also}.")
    if tables.usable:
        ((table, columns),) = tables.usable.items()
        read = _metadata if table.name in METADATA else _table
        layout = read(root, table.name, columns, said)
    else:
        refuse_official(root, said)
        # metadata of the whole beside that of the splits may be about anything
        if any(path.name not in METADATA for path in tables.refused):
            tables.require_understood()
        found = _split_metadata(root, said, clips)
        if found is None:
            tables.require_understood()
            found = _class_folders(root, said)
        layout = found
    return replace(layout, notes=(*layout.notes, *tables.notes()))


def _class_folders(root: Path, said: Settings) -> Layout:
    entries = visible(root)
    skipped = said.get("skip") or ()
    rate = said.get("frame_rate")
    folders = [entry for entry in entries if entry.is_dir() and entry.name not in skipped]
    found = {folder: len(videos) for folder in folders if (videos := videos_below(folder, rate))}
    apart = {folder: count for folder, count in found.items() if folder.name.casefold() in UNLABELLED}
    if len(apart) < len(found):
        refuse_table_inside(root, [folder for folder in folders if folder not in found], said)
        skip = [*skipped, *(folder.name for folder in apart)]
        layout = _read(root, ClassFolders, {**said, **({"skip": skip} if skip else {})}, "a folder for each class")
        if not apart:
            return layout
        counts = ", ".join(f"{folder.name} ({count} clips)" for folder, count in apart.items())
        return replace(
            layout,
            notes=(f"left out as without a class: {counts}; --data.format ClassFolders takes every folder for one",),
        )
    if rate is None and any(sequences_below(folder) for folder in folders):
        raise DataError(
            f"{root} holds folders of numbered images. Say their frames a second, and each is taken for a clip: "
            "--data.format.frame_rate 25"
        )
    loose = sum(entry.is_file() and is_video(entry.name) for entry in entries) + sum(apart.values())
    if loose:
        raise DataError(
            f"{root} holds {loose} videos and nothing that says their classes. Give them classes with "
            f"`rbft label {shlex.quote(str(root))}`, move them into a folder for each class, or write "
            f"{root / 'labels.csv'} with the columns path,label."
        )
    entries_found = ", ".join(entry.name for entry in entries[:5]) or "nothing"
    raise DataError(f"{root} holds no videos (found {entries_found}). Name the folder that holds your clips.")


def _named(path: Path, kind: type[DatasetFormat], said: Settings) -> Layout:
    """Clips that are listed as a person said."""
    if path.is_dir():
        return _read(path, kind, said, f"the format {kind.__name__}")
    if "train" not in inspect.signature(kind).parameters:
        raise ConfigError(f"{path}: the format {kind.__name__} reads a folder; name the folder.")
    return _read(path.parent, kind, {"train": path.name, **said}, f"{path.name} in the format {kind.__name__}")


def _file(root: Path, file: str, said: Settings) -> Layout:
    path = annotation_file(root, file)
    suffix = path.suffix.lower()
    if suffix in TABLE_SUFFIXES and (columns := known_columns(read_table(path)[0].names, said)) is not None:
        return _table(root, file, columns, said)
    # with settings of its own a person says how it is to be read
    look = look_at(path, ClipNames(root)) if suffix in (".json", ".jsonl", ".txt") and not said else Look()
    if look.fault and not look.named:
        raise DataError(f"{path}: {look.fault}.")
    if suffix in (".json", ".jsonl"):
        return _read(root, Conversations, {"train": file, **said}, "a list of conversations")
    if suffix == ".txt":
        if "classes" not in said and not (root / "classes.txt").is_file():
            raise DataError(
                f"{path}: the numbers of its classes need names. Write {root / 'classes.txt'}, a name a line in the "
                "order of the numbers from 0, or say --data.format.classes FILE."
            )
        return _read(root, MMAction, {"train": file, **said}, "a list of paths and class numbers")
    if suffix in TABLE_SUFFIXES:
        names = read_table(path)[0].names
        advice = separator_hint(names) or (
            " Call them path and label, or say --data.format.path_column COLUMN --data.format.label_column COLUMN."
        )
        listed = ", ".join(map(repr, names))
        raise DataError(f"{path}: no column of it is known to hold paths and classes (columns: {listed}).{advice}")
    raise DataError(
        f"{path}: no table ({', '.join(TABLE_SUFFIXES)}) and no list (.json, .txt) of clips, and no folder."
    )


def _table(root: Path, file: str, columns: tuple[str, str], said: Settings) -> Layout:
    used = {"file": file, "path_column": columns[0], "label_column": columns[1]}
    empty = _unlabelled(root / file, columns[1])
    layout = _read(root, Table, {**said, **used, **_skipping(empty)}, f"the table {file}{_rest(empty)}")
    return replace(layout, notes=other_columns(read_table(root / file), columns, said))


def _metadata(root: Path, file: str, columns: tuple[str, str], said: Settings) -> Layout:
    used = {"path_column": columns[0], "label_column": columns[1]}
    empty = _unlabelled(root / file, columns[1])
    settings = {**said, **used, **_skipping(empty)}
    layout = _read(root, VideoFolder, settings, f"a folder of videos with {file}{_rest(empty)}")
    return replace(layout, notes=other_columns(read_table(root / file), columns, said))


def _split_metadata(root: Path, said: Settings, clips: ClipNames) -> Layout | None:
    """Clips that metadata files in the folders of the splits name; None where there are none."""
    folders = [entry for entry in visible(root) if entry.is_dir() and entry.name.casefold() in SPLIT_NAMES]
    tables = sort_tables([f / name for f in folders for name in METADATA if (f / name).is_file()], said, clips)
    tables.require_understood()
    if not tables.usable:
        return None
    if len(set(tables.usable.values())) > 1:
        raise DataError(f"{root}: the metadata files of its splits call their columns by different names; rename them.")
    columns = next(iter(tables.usable.values()))
    empty = sum(_unlabelled(table, columns[1]) for table in tables.usable)
    settings = {**said, "path_column": columns[0], "label_column": columns[1], **_skipping(empty)}
    bare = [folder.name for folder in folders if folder not in {table.parent for table in tables.usable}]
    names = ", ".join(table.relative_to(root).as_posix() for table in tables.usable)
    layout = _read(root, VideoFolder, settings, f"a folder of videos with {names}{_rest(empty)}")
    notes = (f"left out: {', '.join(bare)}, without a metadata file",) if bare else ()
    rows = [row for table in tables.usable for row in read_table(table)]
    # which split a video is in, its folder says
    return replace(layout, notes=(*notes, *other_columns(rows, columns, {"split_column": None, **said})))


def _unlabelled(table: Path, column: str) -> int:
    """Number of rows without a label."""
    return sum(not row.text(column) for row in read_table(table))


def _skipping(unlabelled: int) -> dict[str, bool]:
    return {"skip_unlabelled": True} if unlabelled else {}


def _rest(unlabelled: int) -> str:
    return f" ({unlabelled} rows without a label are left out; `rbft label` shows them)" if unlabelled else ""


def _read(root: Path, kind: type[DatasetFormat], settings: Settings, description: str) -> Layout:
    known = inspect.signature(kind).parameters
    for name in settings:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise ConfigError(f"--data.format.{name}: the format {kind.__name__} has no such setting ({listed}).")
    try:
        format = kind(**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--data.format: {kind.__name__} cannot take {dict(settings)} ({error}).") from error
    records = tuple(format.read(root))
    own = {name: value for name, value in settings.items() if value != known[name].default}
    return Layout(root, kind.__name__, records, description, own)


def _require_names(path: Path, layout: Layout) -> None:
    """Refuse a label that no class can have, as one that landed in the wrong column."""
    for label, record in {record.label: record for record in reversed(layout.records)}.items():
        try:
            require_name(label)
        except DataError as error:
            raise DataError(f"{path}: {error} It is that of {record.video}; give it another.") from error


def _require_enough(path: Path, layout: Layout) -> None:
    classes = layout.classes
    notes = "".join(f" ({note})" for note in layout.notes)
    if not classes:
        raise DataError(f"{path}: lists no clips.{notes}")
    if len(classes) < 2:
        (only,) = classes
        raise DataError(
            f"{path}: {len(layout.records)} clips of one class ({only!r}); a classifier needs at least two. Add clips "
            f"of what the class is not.{_or_inside(layout, only)}{notes}"
        )
    few = {name: count for name, count in classes.items() if count < _LEAST_CLIPS}
    if few:
        listed = ", ".join(f"{name!r} {count}" for name, count in few.items())
        raise DataError(
            f"{path}: too few clips of {listed}; each class needs at least {_LEAST_CLIPS}, to train and to test. Add "
            "clips of it, or leave it out."
        )


def _or_inside(layout: Layout, only: str) -> str:
    """Of a folder around the classes: to name that, as a sentence with a space before it; empty for all else."""
    top = layout.root / only
    inner = [] if layout.format != ClassFolders.__name__ or not top.is_dir() else visible(top)
    names = [entry.name for entry in inner if entry.is_dir() and videos_below(entry, layout.settings.get("frame_rate"))]
    if len(names) < 2:
        return ""
    return f" If its folders are the classes ({listing(names)}), name {shlex.quote(str(top))}."
