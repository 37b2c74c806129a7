"""Looking at every video before anything is trained: for a run to start, and as the command `rbft check`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from rbft.data.check import check_dataset
from rbft.data.check_report import CheckReport
from rbft.data.datamodule import VideoDataModule
from rbft.data.findings import Finding
from rbft.data.formats.on_disk import left_out
from rbft.data.labels import LabelSet
from rbft.data.records import VideoRecord
from rbft.data.splits import Splits
from rbft.data.survey import survey
from rbft.data.unlabelled import refuse_leaks
from rbft.data.video_facts import VideoFacts
from rbft.errors import DataError
from rbft.experiment import Experiment
from rbft.pipeline.model_check import ModelCheck, check_models
from rbft.pipeline.requirements import require_videos
from rbft.pipeline.stage_cli import read_stages
from rbft.video.clip_prefetch import ClipRequest

_SHOWN = 5
_BAD_FILES = ("missing", "empty", "unreadable", "damaged", "gave_up")


def _survey(
    data: VideoDataModule, records: Sequence[VideoRecord], console: Console, requests: Sequence[ClipRequest] = ()
) -> dict[str, VideoFacts]:
    paths = [record.path for record in records]
    limits = data.spec.limits
    return survey(
        data.root,
        paths,
        cache=data.cache_folder / "survey",
        console=console,
        time_limit=max(300.0, limits.max_seconds / 12),
        requests=requests,
        limits=limits,
    )


def _requests(datas: Sequence[VideoDataModule]) -> dict[Path, list[ClipRequest]]:
    """The clips that the stages will read from every video, by data root; none where not every video is read."""
    by_root: dict[Path, list[ClipRequest]] = {}
    for data in datas:
        # of what may stand in for a bad video, hardly any is read; of a part, others read other frames
        rare = data.on_bad_video == "replace_same_class" or any(record.part is not None for record in data.used)
        if data.cache is None or rare:
            continue
        request = ClipRequest(data.cache.folder, data.cache.max_bytes, replace(data.spec, control="none"))
        known = by_root.setdefault(data.root, [])
        if request not in known:
            known.append(request)
    return by_root


def _every(data: VideoDataModule) -> list[VideoRecord]:
    """All videos of a stage, each once: an unlabelled one may be there to stand in for a bad one as well."""
    return list({record.path: record for record in [*data.used, *data.unlabelled_videos]}.values())


def _left_out(data: VideoDataModule, unlabelled: Sequence[VideoRecord], *, texts: bool) -> list[str]:
    """What the data root holds beside the data set's videos, as a note; none if nothing."""
    taken = {record.path for record in (*data.records, *unlabelled)}
    # the tables that the format was told to read
    taken |= {setting for setting in vars(data.format).values() if isinstance(setting, str)}
    rest = left_out(data.root, taken, texts=texts)
    return [f"{data.root}: left out are {rest}"] if rest else []


def inspect_videos(
    datas: Sequence[VideoDataModule], console: Console, label_texts: Sequence[Mapping[str, str]] = ()
) -> None:
    """Decode every video once, refuse what would spoil a result, and take bad videos out as configured.

    Args:
        datas: data modules of the stages, which know the clips they will read: the clip cache gets them now.
        console: where warnings and progress are shown.
        label_texts: for each of them how classes are written in prompts, where their names are not what is read; none:
            all are written as they are named.

    Raises:
        DataError: Videos are wrong; names the first few problems and what to do.
    """
    requests = _requests(datas)
    facts: dict[tuple[Path, str], VideoFacts] = {}
    warnings_given: set[str] = set()
    checked: dict[tuple[object, ...], CheckReport] = {}
    for data, texts in zip(datas, label_texts or [{}] * len(datas), strict=True):
        every = _every(data)
        new = [record for record in every if (data.root, record.path) not in facts]
        surveyed = _survey(data, new, console, requests.get(data.root, ()))
        facts |= {(data.root, path): fact for path, fact in surveyed.items()}
        video_facts = {record.path: facts[data.root, record.path] for record in every}
        splits = data.splits
        sides = [tuple((r.id, r.path, r.label) for r in part) for part in (splits.train, splits.val, splits.test)]
        same = (data.root, data.shots, *sides, tuple(video_facts))
        if same not in checked:  # stages mostly share their videos
            checked[same] = check_dataset(
                data.root, data.records, splits, data.labels, video_facts, shots=data.shots, label_texts=texts
            )
        report = checked[same]
        # bad files are the policy's to judge, and so is what a class is short of because of them
        errors = [finding for finding in report.errors if finding.kind not in (*_BAD_FILES, "too_few")]
        if errors:
            shown = "\n  ".join(finding.message for finding in errors[:_SHOWN])
            more = f"\n  ... and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
            raise DataError(
                f"the data set would give a result that cannot be trusted:\n  {shown}{more}\n"
                "`rbft check` with the same arguments shows everything."
            )
        data.take_out_bad(video_facts)
        warned = [finding.message for finding in report.findings if finding.severity == "warning"]
        warned += [*_left_out(data, data.unlabelled_videos, texts=False), *_inspect_unlabelled(data)]
        warned = [message for message in warned if message not in warnings_given]
        for message in warned[:_SHOWN]:
            console.print(f"warning: {escape(message)}")
        if len(warned) > _SHOWN:
            console.print(f"... and {len(warned) - _SHOWN} more warnings; `rbft check` shows all")
        warnings_given |= set(warned)
        for record in data.unreadable:
            if record.path not in warnings_given:
                warnings_given.add(record.path)
                console.print(f"warning: {escape(record.path)} cannot be read; in the test it counts as wrong")


def _inspect_unlabelled(data: VideoDataModule) -> list[str]:
    """Take out the unlabelled videos that cannot be read or have become training videos, as configured.

    Returns:
        Warnings.

    Raises:
        DataError: One cannot be read and `data.on_bad_video` is `error`, or validation or test know one.
    """
    trains = {record.path for record in data.splits.train}
    videos = [record for record in data.unlabelled_videos if record.path not in trains]
    bad = [record.path for record in videos if not data.facts[record.path].readable]
    if bad and data.on_bad_video == "error":
        raise DataError(
            f"data.unlabelled: {len(bad)} of {len(videos)} videos cannot be read, first {bad[0]} "
            f"({data.facts[bad[0]].reason}). Take them off, or set data.on_bad_video to skip."
        )
    data.unlabelled_videos = tuple(record for record in videos if record.path not in bad)
    left_out = [f"data.unlabelled: {len(bad)} videos cannot be read and are left out, first {bad[0]}"] if bad else []
    return left_out + refuse_leaks(data.unlabelled_videos, data.splits, data.facts)


def check_experiment(experiment: Experiment, console: Console) -> tuple[CheckReport, ModelCheck | None]:
    """Find everything that is wrong with an experiment's data set, and what a run will cost.

    Nothing is trained and no weights are loaded.

    Args:
        experiment: experiment that will run.
        console: console to show progress on.

    Returns:
        What was found, and what the models make of it; None where there are no splits yet.
    """
    stages = read_stages(experiment)
    data = stages[-1].datamodule
    records = data.records
    labels: LabelSet | DataError
    splits: Splits | DataError
    try:
        labels = data.labels
    except DataError as error:
        labels = splits = error
    else:
        try:
            splits = data.splits
        except DataError as error:
            splits = error
    if isinstance(splits, DataError):
        # known without a look at the videos, which may take long
        console.print(f"[red]error[/] {escape(str(splits))}\nLooking at the videos all the same; Ctrl-C stops.")
    facts = _survey(data, records, console)
    texts = stages[-1].module.prompts.label_texts
    report = check_dataset(
        data.root,
        records,
        splits,
        labels,
        facts,
        shots=data.shots,
        sampling=data.spec.sampling,
        label_texts=texts,
    )
    unlabelled = data.unlabelled_videos if isinstance(splits, Splits) else ()
    report = report.with_more((), _left_out(data, unlabelled, texts=True))
    if isinstance(splits, Splits):
        report = report.with_more((), data.split_notes)
    model: ModelCheck | None = None
    if isinstance(splits, Splits):
        findings: dict[str, Finding] = {}
        for entry in stages:
            try:
                require_videos(entry)
            except DataError as error:
                findings[str(error)] = Finding("splits", str(error), ())
            # survey remembers: a stage over the same videos costs nothing
            entry.datamodule.facts = _survey(entry.datamodule, _every(entry.datamodule), console)
            try:
                findings |= {
                    message: Finding("near_duplicate", message, ()) for message in _inspect_unlabelled(entry.datamodule)
                }
            except DataError as error:
                findings[str(error)] = Finding("splits", str(error), ())
        report = report.with_more(tuple(findings.values()), ())
        model = check_models(stages)
        report = report.with_more(model.findings, model.notes)
    else:
        report = report.with_more((), ["what a run will cost was not estimated, as there are no splits yet."])
    return report, model
