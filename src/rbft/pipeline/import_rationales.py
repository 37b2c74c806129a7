"""Rationales from elsewhere in the place of those that a run's model would write."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.markup import escape

from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError, DataError, StageError
from rbft.experiment import Experiment, Stage, read_experiment
from rbft.files import archive, write_json
from rbft.pipeline.prepare import prepare
from rbft.rationales.import_export import RationaleFile, read_rationale_file, refuse_untrusted
from rbft.rationales.store import Rationale, RationaleStore
from rbft.runs.lock import holding_run
from rbft.runs.names import EXPERIMENT, STARTED
from rbft.runs.stage_record import read_record
from rbft.terminal import quieten


def import_into_run(
    path: Path,
    to: Path,
    flags: Sequence[str],
    label_key: str | None,
    conclusion: str | None,
    console: Console,
    *,
    prompts: Prompts | None = None,
    skip: bool = False,
) -> None:
    """Put rationales into a run's write stage; the run then checks them, and writes those that are missing.

    Args:
        path: The file.
        to: The run's folder, or an experiment file.
        flags: flags of the experiment, as `rbft fit` takes them.
        label_key: see `read_rationale_file`.
        conclusion: see `read_rationale_file`.
        console: console to print on.
        prompts: Those the rationales were written for; None: for exported ones, those of the run.
        skip: whether texts of videos that are not trained on are left out instead of refused.

    Raises:
        ConfigError: The experiment writes no rationales.
        DataError: A rationale is of no training video, of another class, or holds what must not reach a model.
        StageError: The run has already trained on other rationales.
    """
    experiment = _experiment(to, flags)
    stage = next((stage for stage in experiment.stages if stage.kind == "write"), None)
    if stage is None:
        raise ConfigError(
            f"the method {experiment.method!r} has no stage that writes rationales; choose --method rbft."
        )
    _refuse_trained(experiment, stage)
    quieten()
    entry = next(entry for entry in prepare(experiment, console) if entry.stage.name == stage.name)
    file = read_rationale_file(
        path, prompts, label_key=label_key, conclusion=conclusion, run_prompts=entry.book.prompts
    )
    train = entry.datamodule.splits.train
    most = entry.module.writer.samples * len(entry.module.writer.attempts(entry.book.prompts.hint))
    rationales = assign(file, train, entry.datamodule.records, entry.book, most, str(path), skip=skip)
    if not rationales:
        raise DataError(f"{path}: no rationale is of one of the {len(train)} training videos of this run.")
    folder = experiment.run_dir / stage.name
    with holding_run(experiment.run_dir, wait=False, say=lambda text: console.print(escape(text))):
        if old := archive(folder):
            console.print(f"{escape(stage.name)}: what was there is now {escape(str(old))}")
        write_json(folder / STARTED, {"inputs": entry.inputs})
        RationaleStore(folder).append(rationales, rank=0)
    if left := len(file.rationales) - len(rationales):
        console.print(f"{left} rationales are of videos that this run does not train on, and are left out.")
    videos = len({rationale.id for rationale in rationales})
    console.print(
        f"{len(rationales)} rationales of {videos} of {len(train)} training videos are in {escape(str(folder))}; "
        "`rbft fit` with the same experiment checks them and goes on from here."
    )


def _experiment(to: Path, flags: Sequence[str]) -> Experiment:
    if not to.is_dir():
        return read_experiment(["--config", str(to), *flags])
    config, folder = to / EXPERIMENT, to.resolve()
    if not config.is_file():
        raise ConfigError(f"--to {to}: it holds no experiment.yaml, so it is no run folder.")
    experiment = read_experiment(["--config", str(config), "--run_root", str(folder.parent.parent.parent)])
    if experiment.run_dir.resolve() != folder:
        raise ConfigError(f"--to {to}: the run was moved; give its experiment file and --run_root instead.")
    return experiment


def _refuse_trained(experiment: Experiment, writer: Stage) -> None:
    for stage in experiment.stages:
        if stage.rationales_from == writer.name and read_record(experiment.run_dir / stage.name) is not None:
            raise StageError(
                f"the stage {stage.name!r} of {experiment.run_dir} has been trained on other rationales; give the "
                "experiment file and --variant NAME for a run of its own."
            )


def assign(
    file: RationaleFile,
    train: Sequence[VideoRecord],
    videos: Sequence[VideoRecord],
    book: PromptBook,
    samples: int,
    where: str,
    *,
    skip: bool = False,
) -> list[Rationale]:
    """The rationales as those of training videos, which are found by id, by path, or as `same_file` finds them.

    Args:
        file: rationales that were read.
        train: The training videos.
        videos: all videos of the data set, so that a text of a test video is not taken for one of a training video.
        book: The run's prompts.
        samples: Rationales of each video that the run writes at most; fewer are completed, more are refused.
        where: The file, for messages.
        skip: whether texts of videos that are not trained on are left out instead of refused.

    Raises:
        DataError: A rationale is of no training video or of another class, or a video has too many.
    """
    known = {record.video: record for record in videos} | {record.id: record for record in videos}
    named: dict[str, list[VideoRecord]] = {}
    for video in videos:
        named.setdefault(PurePosixPath(video.path).stem, []).append(video)
    trained = {record.id for record in train}
    spelled = {
        word.casefold(): name for name, text in zip(book.labels.names, book.texts, strict=True) for word in (name, text)
    }
    seen: Counter[str] = Counter()
    assigned = []
    for rationale in file.rationales:
        record = known.get(rationale.id) or known.get(rationale.video) or same_file(rationale.video, named)
        if (record is None or record.id not in trained) and skip:
            continue
        if record is None or record.id not in trained:
            raise DataError(
                f"{where}: {rationale.id!r} ({rationale.video}) is not a training video of this run, or several fit "
                "its path; only training videos may have rationales. Remove it, or leave out all such rows with --skip."
            )
        if spelled.get(rationale.label.casefold()) != record.label:
            raise DataError(
                f"{where}: {rationale.id!r} is of the class {rationale.label!r}, but {record.path} is "
                f"{record.label!r} in this run. Correct it, or take it out."
            )
        if seen[record.id] == samples:
            raise DataError(f"{where}: more than {samples} rationales of {record.path}; raise model.writer.samples.")
        stated = None if rationale.stated is None else spelled.get(rationale.stated.casefold())
        assigned.append(
            dataclasses.replace(
                rationale,
                id=record.id,
                sample=seen[record.id],
                video=record.video,
                label=record.label,
                stated=stated,
                scores={},
                weight=1.0,
                kept=bool(rationale.text),
                reason="" if rationale.text else "empty",
                labelled=True,
            )
        )
        seen[record.id] += 1
    refuse_untrusted(assigned, where)
    return assigned


def same_file(name: str, named: Mapping[str, Sequence[VideoRecord]]) -> VideoRecord | None:
    """The video that a path of another machine means: of the same file name, and of most of the same folders around it.

    Args:
        name: the path, with any suffix of the file.
        named: videos by their file name without its suffix.

    Returns:
        None where there is none, or where several fit alike.
    """
    path = PurePosixPath(name.replace("\\", "/"))

    def shared(record: VideoRecord) -> int:
        pairs = zip(path.parts[-2::-1], PurePosixPath(record.path).parts[-2::-1], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    fitting = sorted(named.get(path.stem, ()), key=shared)
    if len(fitting) > 1 and shared(fitting[-1]) == shared(fitting[-2]):
        return None
    return fitting[-1] if fitting else None
