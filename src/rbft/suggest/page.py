"""What `rbft suggest` leaves: a page with the frames of every clip, and tables that `rbft label --order` takes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from rbft.data import own_tables
from rbft.data.formats.on_disk import listing
from rbft.data.records import part_name
from rbft.errors import ConfigError, VideoError
from rbft.evaluation.figures import frames_jpeg
from rbft.files import archive, write_atomic, write_csv
from rbft.report.templates import render
from rbft.suggest.clips import Clip
from rbft.suggest.suggestions import DoubtedClip, NextClip
from rbft.video.clip import read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.sampling import FrameSampling

PAGE, NEXT, DOUBTED, SIMULATION = "suggestions.html", "label_next.csv", "look_again.csv", "simulation.json"
_OWN = {PAGE, NEXT, DOUBTED, SIMULATION}
_OF_SYSTEMS = {".DS_Store", "Thumbs.db", "desktop.ini"}
_FRAMES, _PIXELS, _SHOWN = 8, 160 * 160, 100


def refuse_other_than_suggestions(folder: Path, flag: str) -> None:
    """Refuse a folder that holds anything but earlier suggestions, with which it would be set aside.

    Args:
        folder: the folder, which need not be there.
        flag: flag that names it, for the message.

    Raises:
        ConfigError: It holds something else; names some of it. Or it is the one in which the command was given.
    """
    if folder.resolve() == Path.cwd():
        raise ConfigError(f"{flag} {folder}: is the folder you are in; name one for the suggestions alone.")
    others = sorted({path.name for path in folder.iterdir()} - _OWN - _OF_SYSTEMS) if folder.is_dir() else []
    if others:
        raise ConfigError(
            f"{flag} {folder}: holds something else than earlier suggestions ({listing(others)}); name a new folder."
        )


def set_aside(folder: Path) -> Path | None:
    """Rename a folder of earlier suggestions; the new name, or None where there are none."""
    if not folder.is_dir() or not any((folder / name).exists() for name in _OWN):
        return None
    return archive(folder)


def write_suggestions(
    folder: Path,
    title: str,
    chosen: Sequence[NextClip],
    doubted: Sequence[DoubtedClip],
    notes: Sequence[str],
    judges: Sequence[str],
    method: str,
) -> None:
    """Write the page and both tables.

    Args:
        folder: new folder for them.
        title: heading of the page.
        chosen: clips to label next.
        doubted: clips whose label looks wrong. The page shows the first hundred of each kind, the tables have all.
        notes: sentences on what was looked at.
        judges: sentences on who doubts labels.
        method: how the clips were chosen.
    """
    rows = [[*own_tables.NEXT]]
    rows += [
        [*_place(entry.clip), entry.top[0][0], f"{entry.top[0][1]:.6g}", f"{entry.margin:.6g}"] for entry in chosen
    ]
    write_csv(folder / NEXT, rows)
    rows = [[*own_tables.DOUBTED]]
    rows += [
        [
            *_place(entry.clip),
            entry.label,
            entry.other,
            f"{entry.label_probability:.6g}",
            f"{entry.other_probability:.6g}",
            entry.judged_by,
        ]
        for entry in doubted
    ]
    write_csv(folder / DOUBTED, rows)
    page = render(
        "suggestions.html.j2",
        title=title,
        notes=notes,
        method=method,
        judges=judges,
        chosen=[(entry, *_frames(entry.clip)) for entry in chosen[:_SHOWN]],
        doubted=[(entry, *_frames(entry.clip)) for entry in doubted[:_SHOWN]],
        counts=(len(chosen), len(doubted)),
        next_table=NEXT,
        doubted_table=DOUBTED,
    )
    write_atomic(folder / PAGE, page)


def _place(clip: Clip) -> list[str]:
    path = clip.name if clip.part is None else clip.name.removesuffix(part_name("", clip.part))
    return [path, *(["", ""] if clip.part is None else [f"{time:.10g}" for time in clip.part])]


def _frames(clip: Clip) -> tuple[str | None, str]:
    """Frames of a clip side by side as a `data:` URL, or why there are none."""
    spec = ClipSpec(FrameSampling(num_frames=_FRAMES), _PIXELS).of_part(clip.part)
    try:
        frames = read_clip(clip.file.name, spec, clip.file.parent).frames
    except VideoError as error:
        return None, error.reason
    return "data:image/jpeg;base64," + base64.b64encode(frames_jpeg(frames)).decode(), ""
