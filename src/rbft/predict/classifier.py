"""A finished run as a classifier that is loaded once and asked often, by nothing but what its folder recorded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from rbft.answering.choice import answer
from rbft.data.records import VideoRecord, part_name, split_part
from rbft.errors import ConfigError, VideoError
from rbft.evaluation.predictions import Prediction, probabilities
from rbft.files import expanded
from rbft.predict.answers import TOP, Answer, Moment, Rule, likeliest
from rbft.predict.inputs import VideoInput, named
from rbft.predict.model import Report, WarmModel
from rbft.predict.run_settings import read_run
from rbft.predict.windows import Windows, alarm, log_probabilities, merge
from rbft.terminal import steps_shown
from rbft.video.container import PART_LIMITS, reading_within
from rbft.video.reader import open_reader

_FREE = (
    "data.eval_batch_size",
    "data.num_workers",
    "data.cache_",
    "data.feature_cache_gb",
    "data.max_seconds",
    "trainer.accelerator",
    "trainer.devices",
)
_EVERYTHING = Rule()
_Asked = tuple[Path, tuple[float, float] | None]
TIME_LIMIT = 600.0
"""Seconds to read a video, unless something else is said: hours of decoding are not started unawares."""


class Classifier:
    """A finished run as a classifier: its weights, frames, prompts, way of answering and calibration.

    The weights are loaded with the first videos and kept.

    Args:
        run: The run's folder.
        flags: Settings that decide how fast and where it computes: `data.eval_batch_size`, `data.num_workers`,
            `data.cache_*`, `trainer.accelerator` and `trainer.devices`. What shapes an answer cannot be changed.
        time_limit: Seconds that reading one video, or one window of it, may take; one that takes longer cannot be read.

    Raises:
        ConfigError: A flag is none of these, or the time is not above 0.
        StageError: The folder is no finished run with a test stage, or its weights were changed.
    """

    def __init__(self, run: str | Path, flags: Sequence[str] = (), time_limit: float = TIME_LIMIT) -> None:
        self.run = expanded(run)
        check_flags(flags)
        if not time_limit > 0:
            raise ConfigError(f"--time-limit {time_limit:g}: must be above 0.")
        self.time_limit = time_limit
        self.recorded = read_run(self.run)
        self.labels = self.recorded.labels
        self._flags = tuple(flags)
        self._model: WarmModel | None = None
        self._best_only = False

    @property
    def model(self) -> WarmModel:
        """The model, loaded when it is first asked for."""
        if self._model is None:
            self._model = WarmModel(self.recorded, self._flags)
        return self._model

    def predict(
        self,
        videos: str | Path | VideoInput | Sequence[str | Path | VideoInput],
        console: Console | None = None,
        *,
        rationale: bool = False,
        windows: Windows | None = None,
        alarm: str | None = None,
        rule: Rule = _EVERYTHING,
        best_only: bool = False,
    ) -> list[Answer]:
        """Classify videos, each by the frames that the run's test took of its videos.

        Args:
            videos: Paths of videos, wherever they are, or what `rbft.predict.expand` makes of a folder or a table, out
                of which nothing is read; one video may stand by itself.
            console: console to show progress on; None shows none.
            rationale: whether the model explains its answers, even where the run answers directly.
            windows: Look at each video in windows of so many seconds; None: at the whole video at once.
            alarm: A class that a video has as soon as one window shows it; None: the windows' mean decides.
            rule: When a class is said.
            best_only: whether only the likeliest classes are scored exactly, which is faster where there are many:
                their order is exact, and their probabilities are lower bounds.

        Returns:
            One answer a video, in their order.

        Raises:
            ConfigError: There is no such class, the run has no second question to ask for a rationale, or `best_only`
                does not go with how the run answers or with what else is asked.
        """
        if best_only:
            self.check_best_only(windows, rule)
        if alarm is not None and (windows is None or alarm not in self.labels.names):
            what = "needs --window" if windows is None else f"no class of the run: {', '.join(self.labels.names[:10])}"
            raise ConfigError(f"--alarm {alarm}: {what}.")
        several = [videos] if isinstance(videos, str | Path | VideoInput) else videos
        inputs = [video if isinstance(video, VideoInput) else named(video) for video in several]
        if windows is not None and any(video.part is not None for video in inputs):
            raise ConfigError("--window: the table names parts of videos by start and end; leave one of the two out.")
        files, refused = _resolve(inputs)
        self._best_only = best_only
        with reading_within(self.time_limit):
            answers = self._answers(files, console or Console(quiet=True), rationale, windows, alarm)
        refusals = {number: Answer("", None, None, error=error) for number, error in refused.items()}
        return [
            self._decided(replace(refusals.get(number) or answers[files[number]], video=video.name), rule)
            for number, video in enumerate(inputs)
        ]

    def check_best_only(self, windows: Windows | None, rule: Rule) -> None:
        """Refuse to score the likeliest classes alone where all are needed.

        Raises:
            ConfigError: Says what needs them.
        """
        if windows is not None or rule != _EVERYTHING or self.recorded.choice.mode != "direct":
            raise ConfigError(
                "--best-only: has no probabilities of all classes, which --window, --min-confidence, --precision and "
                "answers after a rationale are made of; leave it out, or them."
            )

    def _answers(
        self, files: Mapping[int, _Asked], console: Console, rationale: bool, windows: Windows | None, alarm: str | None
    ) -> dict[_Asked, Answer]:
        """The answer about each file, or part of one; links have been followed."""
        if not files:
            return {}
        self.model.module.scoring.score_best(TOP if self._best_only else None)
        root = Path(os.path.commonpath([file.parent for file, _ in files.values()]))
        names = {asked: part_name(asked[0].relative_to(root).as_posix(), asked[1]) for asked in files.values()}
        with steps_shown(console) as report:
            answered = (
                self._whole(list(names.values()), root, rationale, report)
                if windows is None
                else self._in_windows(list(names.values()), root, windows, alarm, rationale, report)
            )
        return {asked: answered[name] for asked, name in names.items()}

    def _decided(self, said: Answer, rule: Rule) -> Answer:
        if not said.raw:
            return said
        chances = said.calibrated or said.raw
        predicted, probability = rule.decide(dict(zip(self.labels.names, chances, strict=True)))
        return replace(said, predicted=predicted, probability=probability, abstained=predicted is None)

    def answered(self, prediction: Prediction) -> Prediction:
        """The prediction as the run's test answers, with calibrated probabilities where it has them."""
        said = answer(prediction, self.recorded.choice, self.labels.names)
        return self.recorded.calibration.apply([said])[0]

    def _whole(self, names: Sequence[str], root: Path, rationale: bool, report: Report) -> dict[str, Answer]:
        parts = [(name, *split_part(name)) for name in names]
        records = [VideoRecord(name, path, self.labels.names[0], part=part) for name, path, part in parts]
        predictions, errors = self.model.ask(records, root, report=report, rationale=rationale)
        answers = {name: Answer(name, None, None, error=error) for name, error in errors.items()}
        for name, prediction in predictions.items():
            said = self.answered(prediction)
            answers[name] = self._answer(name, said.probabilities, said.calibrated, said.rationale)
        return answers

    def _answer(
        self, name: str, raw: tuple[float, ...], calibrated: tuple[float, ...], rationale: str | None
    ) -> Answer:
        top = likeliest(self.labels.names, calibrated or raw)
        return Answer(
            name,
            *top[0],
            top,
            rationale,
            is_calibrated=bool(calibrated),
            raw=raw,
            calibrated=calibrated,
            at_least=self._best_only and len(raw) > TOP,
        )

    # -- long videos

    def _in_windows(
        self, names: Sequence[str], root: Path, windows: Windows, alarm: str | None, rationale: bool, report: Report
    ) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        spans: dict[str, list[VideoRecord]] = {}
        lost: dict[str, str] = {}
        for name in names:
            try:
                with open_reader(name, root, PART_LIMITS, often=True) as reader:
                    index = reader.index
                if not index.duration:
                    raise VideoError(name, "does not say how long it is, which windows need")
                if index.loss and index.intact < windows.seconds:
                    raise VideoError(name, index.loss)
            except VideoError as error:
                answers[name] = Answer(name, None, None, error=str(error))
                continue
            if index.loss:
                lost[name] = f"{name}: {index.loss}; answered from its first {index.intact:.2f} s"
            spans[name] = [
                VideoRecord(f"{name}#{start}-{end}", name, self.labels.names[0], part=(start, end))
                for start, end in windows.spans(index.intact)
            ]
        # windows that do not overlap one after the other: where a video can be decoded from its start alone, they cost
        # one pass together
        turns = windows.overlapping
        records = [record for parts in spans.values() for turn in range(turns) for record in parts[turn::turns]]
        report_windows = _counting(report, "windows answered")
        predictions, errors = self.model.ask(records, root, report=report_windows)
        said = {record: self.answered(prediction) for record, prediction in predictions.items()}
        if rationale and not self.model.writes:
            said |= self._reasons(spans, said, root, alarm, report)
        for name, parts in spans.items():
            merged = self._merged(name, parts, said, errors, alarm)
            told = "; ".join(filter(None, (lost.get(name), merged.error)))
            answers[name] = replace(merged, error=told or None)
        return answers

    def _reasons(
        self,
        spans: Mapping[str, Sequence[VideoRecord]],
        said: Mapping[str, Prediction],
        root: Path,
        alarm: str | None,
        report: Report,
    ) -> dict[str, Prediction]:
        """The answers about the windows that speak the most for each video's class, with the model's words."""
        asked = []
        for name, parts in spans.items():
            read = [record for record in parts if record.id in said]
            if read:
                place = self._place(self._merged(name, parts, said, {}, alarm))
                asked.append(max(read, key=lambda record: said[record.id].probabilities[place]))
        predictions, _ = self.model.ask(asked, root, report=_counting(report, "rationales written"), rationale=True)
        return {name: replace(said[name], rationale=prediction.rationale) for name, prediction in predictions.items()}

    def _place(self, said: Answer) -> int:
        chances = said.calibrated or said.raw
        return chances.index(max(chances))

    def _merged(
        self,
        name: str,
        parts: Sequence[VideoRecord],
        said: Mapping[str, Prediction],
        errors: Mapping[str, str],
        rung: str | None,
    ) -> Answer:
        read = [said[record.id] for record in parts if record.id in said]
        timeline = tuple(self._moment(record, said.get(record.id), errors.get(record.id)) for record in parts)
        bad = [moment for moment in timeline if moment.predicted is None]
        error = f"{len(bad)} of {len(parts)} windows cannot be read, first {bad[0].error}" if bad else None
        if not read:
            return Answer(name, None, None, error=error, timeline=timeline)
        scores = merge([log_probabilities(prediction.log_likelihoods) for prediction in read])
        (whole,) = self.recorded.calibration.apply(
            [replace(read[0], probabilities=probabilities(scores), log_likelihoods=scores, calibrated=())]
        )
        raw, calibrated = whole.probabilities, whole.calibrated
        if rung is not None:
            place, rang = self.labels.index(rung), any(prediction.predicted == rung for prediction in read)
            raw = alarm(raw, max(prediction.probabilities[place] for prediction in read), place, shown=rang)
            if calibrated:
                highest = max(prediction.calibrated[place] for prediction in read)
                calibrated = alarm(calibrated, highest, place, shown=rang)
        made = self._answer(name, raw, calibrated, None)
        place = self._place(made)
        shown = max(read, key=lambda prediction: prediction.probabilities[place])
        return replace(made, rationale=shown.rationale, error=error, timeline=timeline)

    def _moment(self, record: VideoRecord, said: Prediction | None, error: str | None) -> Moment:
        assert record.part is not None
        if said is None:
            return Moment(*record.part, None, None, error=error)
        top = likeliest(self.labels.names, said.calibrated or said.probabilities)
        return Moment(*record.part, *top[0], top, said.rationale)


def _resolve(inputs: Sequence[VideoInput]) -> tuple[dict[int, _Asked], dict[int, str]]:
    """The files that may be opened, and why the others may not, by place."""
    files: dict[int, _Asked] = {}
    refused: dict[int, str] = {}
    for number, video in enumerate(inputs):
        try:
            files[number] = (video.resolve(), video.part)
        except VideoError as error:
            refused[number] = str(error)
    return files, refused


def _counting(report: Report, what: str) -> Report:
    return lambda _, done, total: report(what, done, total)


def check_flags(flags: Sequence[str]) -> None:
    """Refuse settings that would shape an answer.

    Raises:
        ConfigError: A flag is unknown; names it and those there are.
    """
    for flag in flags:
        if flag.startswith("--") and not flag[2:].startswith(_FREE):
            raise ConfigError(
                f"{flag.split('=')[0]}: a run is predicted with as it was tested; only "
                f"{', '.join(_FREE)} may be changed."
            )
