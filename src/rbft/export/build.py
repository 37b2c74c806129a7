"""Making an export: clips to compare on, and the folder, built beside its target and named when it is right."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape

from rbft.data.formats.on_disk import left_out
from rbft.errors import ConfigError, StageError, VideoError
from rbft.evaluation.predictions import read_predictions
from rbft.export.card import card, script
from rbft.export.program import ANSWERED, PROGRAM, check_program, probabilities_of_program
from rbft.export.settings import describe_run
from rbft.export.weights import Form, write_weights
from rbft.files import expanded, no_room, write_atomic, write_json
from rbft.predict.inputs import expand
from rbft.predict.model import WarmModel
from rbft.predict.run_settings import Recorded
from rbft.runs.names import PREDICTIONS, VALIDATION
from rbft.terminal import steps_shown
from rbft.video.clip import Clip
from rbft.video.container import resolve_inside
from rbft.vlm.loading import model_source

_UNFINISHED, _LOCK = ".unfinished", ".lock"
_YOUNG_SECONDS = 60.0
CLIPS = 32
"""Videos that the exported weights are compared with the run's on, at most."""


def require_shareable(model: WarmModel, form: Form, *, pushed: bool) -> None:
    """Refuse what nobody else could use.

    Raises:
        ConfigError: The run is a control, or its adapter belongs to a folder of this machine.
    """
    if model.data.spec.control != "none":
        raise ConfigError(
            "the run's test takes something from every clip (data.clip_control: "
            f"{model.data.spec.control}); it is a control and no classifier to export."
        )
    if pushed and form == "adapter" and Path(model_source(model.module.name)).exists():
        raise ConfigError(
            f"--push: the adapter needs the base model in {model.module.name}, a folder that only this "
            "machine has; export it with --form merged."
        )


def comparison_clips(recorded: Recorded, model: WarmModel, folder: str | None, console: Console) -> list[Clip]:
    """Clips to compare on: of the folder that is named, else the run's own test and validation videos.

    Raises:
        StageError: There are none.
    """
    data = model.data.at(model.recorded_root if folder is None else expanded(folder))
    if folder is not None:
        if not data.root.is_dir():
            raise ConfigError(f"--videos {folder}: no such folder.")
        names = [video.path for video in expand(data.root, recorded.frame_rate)]
        if rest := left_out(data.root, frame_rate=recorded.frame_rate):
            console.print(escape(f"--videos {folder}: left out are {rest}"))
        missing = f"--videos {folder}: no video in it can be read."
    else:
        rows = [recorded.folder / name for name in (PREDICTIONS, VALIDATION)]
        names = [prediction.video for path in rows if path.is_file() for prediction in read_predictions(path)]
        missing = (
            f"the videos of the run are gone (data.root: {data.root}), and without any the exported weights "
            "cannot be compared with the run's. Name a folder of videos, any that show your domain: --videos "
            "FOLDER."
        )
        # whole recordings in the place of parts: that is what the program of the export is given
        names = data.files_there(names)
    # taken evenly from all of them, so that all classes are met
    few = min(CLIPS, len(names))
    chosen = [names[place * len(names) // few] for place in range(few)]
    clips: list[Clip] = []
    with steps_shown(console) as report:
        for number, name in enumerate(chosen, start=1):
            try:
                # under its whole path: the program of the export is run on it, too
                clips.append(replace(data.clip(name), path=str(resolve_inside(data.root, name))))
            except VideoError as error:
                console.print(f"not compared on: {escape(str(error))}")
            report("videos read", number, len(chosen))
    if not clips:
        raise StageError(missing)
    return clips


def _lock_of(folder: Path) -> FileLock:
    """Held while an export is made in a folder; it stands beside it, as no system but Unix locks folders."""
    return FileLock(folder.with_name(f"{folder.name}{_LOCK}"))


def _release(lock: FileLock) -> None:
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)


def _remove_abandoned(target: Path) -> None:
    """Remove what exports to the same place left beside it that were killed; those that are at work hold a lock."""
    for folder in target.parent.glob(f".{glob.escape(target.name)}.*{_UNFINISHED}"):
        # one that was made this moment may not hold its lock yet
        if time.time() - folder.stat().st_mtime < _YOUNG_SECONDS:
            continue
        lock = _lock_of(folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        shutil.rmtree(folder)
        _release(lock)


def build(
    recorded: Recorded, model: WarmModel, form: Form, clips: Sequence[Clip], target: Path, console: Console
) -> None:
    """Make the folder beside its target, and name it so when all of it is there and right."""
    description = describe_run(recorded, model, form)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=_UNFINISHED))
    held = _lock_of(made)
    held.acquire()
    try:
        parity, scores = write_weights(model, form, clips, made)
        description["base_model"]["dtype"] = parity.dtype
        code = script(description, parity.dtype)
        write_atomic(made / PROGRAM, code)
        write_json(made / "rbft.json", description)
        names = recorded.labels.names
        expected = probabilities_of_program(scores, description)
        # weights in 4 bits are not what the program loads
        wanted = min(ANSWERED, len(clips)) if model.module.quantize == "none" else 0
        answered = check_program(made, clips, expected, names, parity.tolerance, wanted)
        parity = replace(parity, answered=answered)
        description["parity"] = parity.to_json()
        write_json(made / "rbft.json", description)
        write_atomic(made / "README.md", card(recorded, model, description, parity, code))
        # made private; the finished folder is as open as any that the person makes
        umask = os.umask(0)
        os.umask(umask)
        for path in (made, *made.rglob("*")):
            path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
        if target.exists():
            raise StageError(f"--to {target}: something else was put there meanwhile; name another folder.")
        made.rename(target)
    except BaseException as error:
        full = no_room(target, error)
        shutil.rmtree(made, ignore_errors=True)
        if full is not None:
            raise full from error
        raise
    finally:
        _release(held)
    size = sum(path.stat().st_size for path in target.rglob("*")) / 1e6
    console.print(f"{form} of {escape(str(recorded.run))}, {size:.1f} MB: {escape(str(target))}")
    console.print(f"  compared on {parity.clips} clips: largest difference of a {parity.measure} {parity.reloaded:.2g}")
    console.print(f"  {PROGRAM} was run: it sees the run's pixels of all of them, and answers {parity.answered} alike")
    if not parity.answered:
        why = "weights in 4 bits are not what it loads" if model.module.quantize != "none" else "not enough memory"
        console.print(f"  [bold]warning:[/] its answers were not compared: {why}")
    console.print(f"  {escape(str(target / 'README.md'))} says how to use it")
