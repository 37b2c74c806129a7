"""The video files of a data set: walking its folders, finding a clip by its name, and telling which are missing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from rbft.data.formats.spelling import hint_of_spelling
from rbft.data.records import VideoRecord, found_path, relative_path
from rbft.errors import ConfigError, DataError, printable, warn
from rbft.video.content import is_there
from rbft.video.image_sequence import SUFFIXES, is_sequence, sequence_name, split_rate

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mj2", ".f4v", ".mkv", ".webm", ".avi", ".divx", ".mpg", ".mpeg"),
    *(".mpe", ".vob", ".ts", ".mts", ".m2ts", ".m2t", ".flv", ".wmv", ".asf", ".ogv", ".gif"),
    *(".h264", ".264", ".hevc", ".h265", ".265"),
)
"""What counts as a video file, by lower-case extension; of each the reader has the demuxer."""

MissingPolicy = Literal["error", "drop"]
FRAME_RATE_HINT = (
    "to take each for a video, say their frames a second (data.format.frame_rate; predict and label: --frame-rate)"
)
_SHOWN = 5
_FASTEST = 1000
_SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"})
_TEXTS = frozenset([".csv", ".tsv", ".jsonl", ".parquet", ".json", ".txt", ".md", ".yaml", ".yml"])


def require_folder(root: Path) -> None:
    """Refuse a data root that is not a folder.

    Raises:
        DataError: The file is missing; names it.
    """
    if not root.is_dir():
        raise DataError(f"the data root {root} is no folder; set the path of the data set.")


def is_video(name: str) -> bool:
    """Whether a file of this name is taken for a video: it is not hidden and has a video's extension."""
    return _is_visible(name) and Path(name).suffix.lower() in VIDEO_SUFFIXES


def _is_visible(name: str) -> bool:
    """Whether a file or folder is a person's: neither hidden nor put there by a system or an archive program."""
    return not name.startswith(".") and name not in _SYSTEM_FOLDERS


def visible(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, without what is hidden or a system's own."""
    return sorted(path for path in folder.iterdir() if _is_visible(path.name))


def walk(folder: Path, hidden: list[str] | None = None) -> Iterator[Path]:
    """Every visible file below a folder, sorted; linked folders are followed, each at most once.

    Args:
        folder: where to look.
        hidden: gets the names of the files and folders that are passed over.
    """
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if hidden is not None:
            hidden += sorted(name for name in (*folders, *files) if not _is_visible(name))
        folders[:] = sorted(filter(_is_visible, folders))
        yield from (Path(parent, name) for name in sorted(files) if _is_visible(name))


def checked_rate(rate: float | None, setting: str = "data.format.frame_rate") -> float | None:
    """A frame rate of folders of images as it is.

    Args:
        rate: frames a second; None where there is none.
        setting: what a person sets it by, for the message.

    Raises:
        ConfigError: It is no number above 0.
    """
    if rate is not None and not 0 < rate <= _FASTEST:
        raise ConfigError(f"{setting}: {rate:g} must be frames a second, above 0 and at most {_FASTEST}.")
    return rate


def sequences_below(folder: Path) -> list[Path]:
    """The folders of numbered images that lie in a folder, it among them; none of them holds a video file."""
    files = list(walk(folder))
    videos = {file.parent for file in files if is_video(file.name)}
    images = dict.fromkeys(file.parent for file in files if file.suffix.lower() in SUFFIXES)
    return [path for path in images if path not in videos and is_sequence(path)]


def videos_below(folder: Path, frame_rate: float | None = None) -> list[Path]:
    """Every video below a folder, sorted: files, and folders of numbered images where their frame rate is known.

    Args:
        folder: where to look.
        frame_rate: frames a second of such folders, with which they are named; None: they are no videos.
    """
    found = [file for file in walk(folder) if is_video(file.name)]
    if frame_rate is not None:
        found += [Path(sequence_name(str(path), frame_rate)) for path in sequences_below(folder)]
    return sorted(found)


def left_out(
    folder: Path, taken: Collection[str] | None = None, *, texts: bool = True, frame_rate: float | None = None
) -> str:
    """What a folder holds beside the videos that are taken, counted and named, as a clause; empty if nothing.

    Args:
        folder: where to look.
        taken: paths of the videos that are taken, and of other files that were read, relative to `folder`; None: all
            videos there are.
        texts: whether tables and notes count, which belong beside videos.
        frame_rate: as for `videos_below`, where `taken` does not name them.
    """
    hidden: list[str] = []
    unnamed: list[str] = []
    others: Counter[str] = Counter()
    named = {folder / split_rate(path)[0] for path in taken or ()}
    if taken is None and frame_rate is not None:
        named.update(sequences_below(folder))
    for path in walk(folder, hidden):
        if path in named or path.parent in named:
            continue
        if not is_video(path.name):
            suffix = path.suffix.lower()
            others[suffix or "no suffix"] += texts or suffix not in _TEXTS
        elif taken is not None:
            unnamed.append(path.relative_to(folder).as_posix())
    kinds = ", ".join(f"{suffix} {count}" for suffix, count in others.most_common(_SHOWN) if count)
    clauses = [
        f"{_counted(unnamed, 'video')} that the data set does not name ({listing(unnamed)})" if unnamed else "",
        f"{_counted(others.total(), 'file')} without a video's suffix ({kinds})" if kinds else "",
        f"{_counted(hidden, 'hidden file or folder', 'hidden files or folders')} ({listing(hidden)})" if hidden else "",
    ]
    return "; ".join(filter(None, clauses))


def listing(names: Sequence[str]) -> str:
    """The first few names, or that there is none."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "") if names else "nothing"


def _counted(what: Sequence[str] | int, singular: str, several: str = "") -> str:
    count = what if isinstance(what, int) else len(what)
    return f"{count} {singular if count == 1 else several or singular + 's'}"


def no_video(folder: Path) -> str:
    """Why a folder counts as one without videos, as a clause that says what would."""
    names = [path.name for path in walk(folder)]
    sequences = len(sequences_below(folder))
    hint = f"; {_counted(sequences, 'folder')} of numbered images: {FRAME_RATE_HINT}" if sequences else ""
    return f"holds no video (found {listing(names)}; videos end in {', '.join(VIDEO_SUFFIXES)}{hint})"


class VideoIndex:
    """Finds a clip by its file name, wherever below a folder it lies and whatever its container.

    Args:
        root: The data root.
        folder: Where to look, relative to the root; empty looks everywhere.

    Raises:
        DataError: The folder does not exist.
    """

    def __init__(self, root: Path, folder: str = "") -> None:
        require_folder(root)
        self._top = root / relative_path(folder, "the folder of the videos") if folder else root
        if not self._top.is_dir():
            raise DataError(f"the folder of the videos {self._top} does not exist; put them there, or set `videos`.")
        self._by_name: dict[str, list[str]] = {}
        for path in walk(self._top):
            if is_video(path.name):
                self._by_name.setdefault(path.stem.casefold(), []).append(found_path(path, root))

    def find(self, name: str, prefer: str | None = None) -> str | None:
        """The path of a clip relative to the data root, None if there is none.

        Args:
            name: File name without extension; upper and lower case are the same.
            prefer: The end of the path to take where several files have that name.

        Raises:
            DataError: Several files have that name.
        """
        paths = self._by_name.get(name.casefold(), [])
        if len(paths) > 1 and prefer:
            paths = [path for path in paths if f"/{path}".endswith(f"/{prefer}")] or paths
        if len(paths) > 1:
            raise DataError(
                f"{self._top}: {paths[0]} and {paths[1]} could both be the clip {name!r}; "
                "remove one, or set `videos` to the folder that holds the right ones."
            )
        return paths[0] if paths else None


def report_missing(
    missing: Sequence[tuple[str, str]], listed: int, source: str, policy: MissingPolicy, hint: str = ""
) -> None:
    """Say which listed clips are not on disk.

    Args:
        missing: (clip, label) of each.
        listed: How many clips the data set lists.
        source: The file that lists them.
        policy: `error` refuses; `drop` warns with the number of each class.
        hint: a sentence more for who is refused, with a space before it.

    Raises:
        DataError: Clips are missing and the policy is `error`; names the first five.
    """
    if not missing:
        return
    if policy == "error" or len(missing) == listed:
        names = ", ".join(name for name, _ in missing[:_SHOWN])
        more = ", ..." if len(missing) > _SHOWN else ""
        raise DataError(
            f"{source}: {len(missing)} of {listed} listed videos are not on disk ({names}{more}). "
            f"Put them under the data root, or take them off the list.{hint}"
        )
    counts = ", ".join(f"{label} {count}" for label, count in sorted(Counter(label for _, label in missing).items()))
    warn(
        f"{source}: {len(missing)} of {listed} listed videos are not on disk and are left out, by class: "
        f"{printable(counts)}. Results are not comparable with those on the whole data set.",
    )


def require_on_disk(root: Path, records: Sequence[VideoRecord], source: str) -> None:
    """Refuse records whose file does not exist.

    Raises:
        DataError: Clips are missing; names the first five and their number.
    """
    require_folder(root)
    missing = [(record.path, record.label) for record in records if not is_there(root / record.path)]
    hint = hint_of_spelling(root, [path for path, _ in missing[:_SHOWN]], is_video)
    report_missing(missing, len(records), source, "error", hint)


def warn_if_not_official(where: str, listed: Mapping[str, int], official: Mapping[str, int]) -> None:
    """Say that lists do not hold as many videos as the official ones: cut short, edited, or of another release.

    Args:
        where: The lists, for the message.
        listed: Videos by split.
        official: numbers of clips of the official lists.
    """
    if dict(listed) != dict(official):
        counts = ", ".join(
            f"{listed.get(side, 0):,} {side} videos (official: {count:,})" for side, count in official.items()
        )
        warn(f"{where}: {counts}; results cannot stand beside published ones.")
