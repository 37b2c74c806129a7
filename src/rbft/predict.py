"""`rbft predict`: classify videos with a finished run, by nothing but what its folder recorded."""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape

from rbft.cli import StageCLI
from rbft.data.labels import LabelSet
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError, DataError, StageError, VideoError
from rbft.evaluation.answering import Choice, answer
from rbft.evaluation.predictions import Prediction
from rbft.experiment import Experiment, Stage, read_experiment
from rbft.files import read_json, read_jsonl, set_aside, write_atomic, write_jsonl
from rbft.lineage import read_record, verify_outputs
from rbft.rationales.prompts import PromptBook
from rbft.stages.conclude import LABELS
from rbft.terminal import make_console, quieten, steps_shown
from rbft.training.checkpoint import AtomicCheckpointIO
from rbft.vlm.processing import ClipProcessor

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".gif", ".3gp")


@dataclass(frozen=True)
class Answer:
    """What the classifier says of a video.

    Args:
        video: Its path, as it was given.
        predicted: The likeliest class; None for a video that cannot be read.
        probability: Of that class.
        top: The likeliest classes with their probabilities, at most five.
        rationale: The model's own words, where the run answers behind a rationale.
        error: Why the video cannot be read.
    """

    video: str
    predicted: str | None
    probability: float | None
    top: tuple[tuple[str, float], ...] = ()
    rationale: str | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As a line of the output; what does not apply is left out."""
        row: dict[str, Any] = {"video": self.video, "predicted": self.predicted, "probability": self.probability}
        row |= {"top": [list(pair) for pair in self.top]} if self.top else {}
        row |= {"rationale": self.rationale} if self.rationale is not None else {}
        return row | ({"error": self.error} if self.error is not None else {})


class Classifier:
    """A finished run as a classifier: its weights, frames, prompts and way of answering.

    Args:
        run: The run's folder.
        flags: Settings that decide how fast and where it computes: `data.eval_batch_size`, `data.num_workers`,
            `data.cache_*`, `trainer.accelerator` and `trainer.devices`. What shapes an answer cannot be changed.

    Raises:
        StageError: The folder is no finished run with a test stage, or its weights were changed.
    """

    def __init__(self, run: str | Path, flags: Sequence[str] = ()) -> None:
        self.run = Path(run)
        _check_flags(flags)
        experiment, stage = _last_test(self.run)
        self._stage, self._args = stage, [*experiment.arguments(stage), *flags]
        names = read_json(self.run / LABELS)
        self.labels = LabelSet(tuple(names))
        self._choice = _choice(self.run / stage.name)
        self._weights = None if stage.weights_from is None else self.run / stage.weights_from
        if self._weights is not None:
            record = read_record(self._weights)
            if record is None:
                raise StageError(f"{self._weights} holds no finished stage, so there are no weights to predict with.")
            verify_outputs(self._weights, record)

    def predict(self, videos: Sequence[str | Path], console: Console | None = None) -> list[Answer]:
        """Classify videos, each by the frames that the run's test took of its videos.

        Args:
            videos: Paths of videos.
            console: Where to show how far it is; None is silent.

        Returns:
            One answer a video, in their order.
        """
        paths = [str(video) for video in videos]
        if not paths:
            return []
        resolved = [Path(path).expanduser().resolve() for path in paths]
        root = Path(os.path.commonpath([path.parent for path in resolved]))
        cli = StageCLI([*self._args, "--data.root", str(root)])
        data, module = cli.datamodule, cli.model
        processor = ClipProcessor(module.name, module.revision)
        seed = int(cli.resolved()["seed_everything"])
        module.connect(processor, PromptBook(module.prompts, self.labels), seed)
        names = [path.relative_to(root).as_posix() for path in resolved]
        errors = _unreadable(cli, processor, names, console)
        good = [name for name in dict.fromkeys(names) if name not in errors]
        records = [VideoRecord(name, name, self.labels.names[0]) for name in good]
        found: dict[str, Prediction] = {}
        if records:
            rows = module.scoring.examples(records, reasoned=module.answering.writes)
            data.connect(processor, seed, 1, test=rows)
            keep = module.answering.strength != 1
            module.start_from(None if self._weights is None else self._weights / "adapter", "", keep_base=keep)
            module.strength = self._choice.strength
            trainer = cli.make_trainer(callbacks=[], logger=False, plugins=[AtomicCheckpointIO()],
                                       enable_checkpointing=False, enable_model_summary=False,
                                       use_distributed_sampler=False, num_sanity_val_steps=0,
                                       enable_progress_bar=console is not None and console.is_terminal)  # fmt: skip
            trainer.test(module, datamodule=data, verbose=False)
            found = {prediction.id: prediction for prediction in module.predictions}
        return [self._answer(path, found.get(name), errors.get(name)) for path, name in zip(paths, names, strict=True)]

    def _answer(self, path: str, prediction: Prediction | None, error: str | None) -> Answer:
        if prediction is None:
            return Answer(path, None, None, error=error)
        names = self.labels.names
        said = answer(prediction, self._choice.mode, self._choice.mixture_weight, names)
        ranked = sorted(zip(names, said.probabilities, strict=True), key=lambda pair: -pair[1])
        return Answer(path, said.predicted, ranked[0][1], tuple(ranked[:5]), said.rationale)


def _last_test(run: Path) -> tuple[Experiment, Stage]:
    """The run's experiment and the stage that its figures are of."""
    if not (run / "experiment.yaml").is_file() or not (run / LABELS).is_file():
        raise StageError(f"--run {run}: no run folder; name the folder that holds experiment.yaml and {LABELS}.")
    root = run.resolve().parents[2]
    experiment = read_experiment(["--config", str(run / "experiment.yaml"), "--run_root", str(root)])
    tests = [stage for stage in experiment.stages if stage.kind == "test"]
    if not tests or read_record(run / tests[-1].name) is None:
        raise StageError(f"--run {run}: its test is not finished; run `rbft fit` to the end first.")
    return experiment, tests[-1]


def _choice(folder: Path) -> Choice:
    """How the test answered; directly where nothing else is recorded."""
    path = folder / "answering.json"
    if not path.is_file():
        return Choice("direct", 0.0, 1.0)
    told = read_json(path)
    return Choice(told["mode"], float(told["mixture_weight"]), float(told["strength"]))


_FREE = ("data.eval_batch_size", "data.num_workers", "data.cache_", "data.feature_cache_gb", "trainer.accelerator",
         "trainer.devices")  # fmt: skip


def _check_flags(flags: Sequence[str]) -> None:
    for flag in flags:
        if flag.startswith("--") and not flag[2:].startswith(_FREE):
            raise ConfigError(f"{flag.split('=')[0]}: a run is predicted with as it was tested; only "
                              f"{', '.join(_FREE)} may be said anew.")  # fmt: skip


def _unreadable(
    cli: StageCLI, processor: ClipProcessor, names: Sequence[str], console: Console | None
) -> dict[str, str]:
    """Why videos cannot be read, by name; the others' clips are in the cache afterwards, if there is one."""
    data = cli.datamodule
    errors: dict[str, str] = {}
    bound = processor.frame_bound(data.max_pixels, data.max_visual_tokens)
    unique = list(dict.fromkeys(names))
    with steps_shown(console or Console(quiet=True)) as told:
        for done, name in enumerate(unique, 1):
            try:
                data.clip(name, bound)
            except VideoError as error:
                errors[name] = str(error)
            told("videos read", done, len(unique))
    return errors


# -- the command


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"rbft predict: {message}. Say --run RUN_FOLDER and videos, folders or a table.")


def command(args: Sequence[str]) -> bool:
    """`rbft predict --run RUN VIDEO_OR_FOLDER_OR_TABLE... [--to FILE.jsonl|FILE.csv]`.

    Returns:
        Whether every video could be read.
    """
    parser = _Parser(prog="rbft predict", allow_abbrev=False, description="Classify videos with a finished run.")
    parser.add_argument("--run", required=True, help="the run's folder")
    parser.add_argument("--to", help="file for the answers, .jsonl or .csv; the terminal without it")
    parser.add_argument("videos", nargs="+", help="videos, folders of videos, or a .csv or .jsonl with a column path")
    own, flags = parser.parse_known_args(list(args))
    if own.to is not None and Path(own.to).suffix not in (".jsonl", ".csv"):
        raise ConfigError(f"--to {own.to}: name a .jsonl or a .csv file.")
    console = make_console()
    quieten()
    videos = [video for name in own.videos for video in expand(Path(name))]
    if not videos:
        raise DataError(f"no video in {', '.join(own.videos)}.")
    answers = Classifier(own.run, flags).predict(videos, console)
    for found in answers if own.to is None else ():
        said = f"{found.probability:6.1%}  {found.predicted}" if found.predicted is not None else "unreadable"
        console.print(f"{said}  {escape(found.video)}" + (f"  {escape(found.error)}" if found.error else ""))
        if found.rationale:
            console.print(f"        {escape(found.rationale)}")
    if own.to is not None:
        _write(Path(own.to), answers)
        console.print(f"{len(answers)} answers written to {escape(own.to)}")
    bad = [found for found in answers if found.error is not None]
    if bad:
        console.print(f"{len(bad)} of {len(answers)} videos cannot be read, first {escape(bad[0].video)}")
    return not bad


def expand(path: Path) -> list[Path]:
    """The videos that a path stands for: itself, all in a folder, or the rows of a table.

    Raises:
        DataError: It does not exist, or a table has no column `path`.
    """
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES)
    if not path.is_file():
        raise DataError(f"{path} does not exist.")
    if path.suffix not in (".csv", ".jsonl"):
        return [path]
    if path.suffix == ".jsonl":
        rows = [row for _, row in read_jsonl(path)]
    else:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    if any(not isinstance(row.get("path"), str) for row in rows):
        raise DataError(f"{path}: every row needs a column path.")
    return [path.parent / row["path"] for row in rows]


def _write(path: Path, answers: Sequence[Answer]) -> None:
    """Write the answers; a file that is in the way is set aside."""
    set_aside(path)
    if path.suffix == ".jsonl":
        write_jsonl(path, [found.to_json() for found in answers])
        return
    lines = [["video", "predicted", "probability", "rationale", "error"]]
    lines += [[a.video, a.predicted or "", "" if a.probability is None else f"{a.probability:.6g}", a.rationale or "",
               a.error or ""] for a in answers]  # fmt: skip
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_atomic(path, text.getvalue())
