"""`rbft predict`: classify videos with a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from rbft.arguments import Parser
from rbft.errors import ConfigError
from rbft.files import require_writable

if TYPE_CHECKING:
    from rbft.evaluation.thresholds import Threshold
    from rbft.predict.answers import Answer
    from rbft.predict.classifier import Classifier

_CHANGES = 12  # of a timeline that are shown


def parser() -> Parser:
    """The command's flags."""
    parser = Parser(
        prog="rbft predict",
        allow_abbrev=False,
        description="Classify videos with a finished run.",
        epilog="Settings of speed and place may be said too, for example --data.num_workers 4, "
        "--data.eval_batch_size 16 or --trainer.accelerator cpu.",
    )
    parser.advice = "Say --run RUN_FOLDER and videos, folders or a table."
    parser.add_argument("--run", required=True, help="the run's folder")
    parser.add_argument("--to", help="file for the answers, .jsonl or .csv; the terminal without it")
    parser.add_argument("--rationale", action="store_true", help="let the model say why")
    parser.add_argument("--window", type=float, metavar="SECONDS", help="look at long videos in windows of this length")
    parser.add_argument(
        "--stride", type=float, metavar="SECONDS", help="from one window to the next; the window itself"
    )
    parser.add_argument("--alarm", metavar="CLASS", help="a video has this class as soon as one window shows it")
    parser.add_argument("--min-confidence", type=float, metavar="P", help="say no class below this probability")
    parser.add_argument(
        "--precision",
        action="append",
        default=[],
        metavar="CLASS=P",
        help="say the class only where validation bounds its precision by P",
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="most time to read a video, or a window of it (default %(default)g)",
    )
    parser.add_argument("videos", nargs="+", help="videos, folders of videos, or a .csv or .jsonl with a column path")
    return parser


def run(args: Sequence[str]) -> int:
    """Carry out the command.

    Returns:
        1 where a video could not be read.
    """
    own, flags = parser().parse_known_args(list(args))
    if own.to is not None and Path(own.to).suffix not in (".jsonl", ".csv"):
        raise ConfigError(f"--to {own.to}: name a .jsonl or a .csv file.")
    if own.to is not None:
        require_writable(Path(own.to), "--to")
    if own.window is None and own.stride is not None:
        raise ConfigError("--stride: needs --window, the length of what is looked at.")
    from rbft.data.formats.on_disk import left_out
    from rbft.predict.answers import Rule, write_answers
    from rbft.predict.classifier import Classifier
    from rbft.predict.inputs import expand
    from rbft.predict.windows import Windows
    from rbft.terminal import make_console, quieten

    windows = None if own.window is None else Windows(own.window, own.stride)
    if own.precision and windows is not None:
        raise ConfigError(
            "--precision: its threshold is of whole clips and says nothing about windows; leave out "
            "--window, or use --min-confidence."
        )
    console = make_console()
    quieten()
    videos = [video for name in own.videos for video in expand(Path(name))]
    for name in own.videos:
        if Path(name).is_dir() and (rest := left_out(Path(name))):
            console.print(escape(f"{name}: left out are {rest}"))
    classifier = Classifier(own.run, flags, own.time_limit)
    root = classifier.recorded.data_root
    elsewhere = any(not Path(video.root or ".", video.path).resolve().is_relative_to(root) for video in videos)
    for caution in classifier.recorded.cautions(own_videos=elsewhere):
        console.print(f"[bold]warning:[/] {escape(caution)}")
    rule = Rule(own.min_confidence, _thresholds(classifier, own.precision))
    for threshold in rule.thresholds:
        console.print(escape(threshold.describe()))
    calibration = classifier.recorded.calibration
    if calibration.temperature is None:
        console.print(escape(calibration.describe()))
    answers = classifier.predict(videos, console, rationale=own.rationale, windows=windows, alarm=own.alarm, rule=rule)
    if own.to is not None:
        try:
            write_answers(Path(own.to), answers)
        except OSError:
            # nothing of the work is lost, whatever became of the place meanwhile
            for found in answers:
                _show(console, found)
            raise
        console.print(f"{len(answers)} answers written to {escape(own.to)}")
    else:
        for found in answers:
            _show(console, found)
    abstained = sum(found.abstained for found in answers)
    if abstained:
        console.print(f"{abstained} of {len(answers)} videos: no class is sure enough")
    bad = [found for found in answers if found.error is not None]
    if bad:
        console.print(f"{len(bad)} of {len(answers)} videos cannot be read whole, first {escape(bad[0].video)}")
    return 1 if bad else 0


def _thresholds(classifier: Classifier, wanted: Sequence[str]) -> tuple[Threshold, ...]:
    from rbft.evaluation.thresholds import choose_threshold

    found = []
    for entry in wanted:
        name, equals, text = entry.rpartition("=")
        try:
            precision = float(text)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ConfigError(f"--precision {entry}: say a class and a precision, for example --precision fall=0.9.")
        found.append(choose_threshold(classifier.recorded.validation(), classifier.labels.names, name, precision))
    if len({threshold.name for threshold in found}) < len(found):
        raise ConfigError("--precision: a class is named twice.")
    return tuple(found)


def _show(console: Console, found: Answer) -> None:
    """An answer in the terminal: probability, class and video, then why, and how it changes over a long video."""
    if found.predicted is not None:
        said = f"{found.probability:6.1%}  {found.predicted}"
    elif found.abstained:
        said = f"{found.probability:6.1%}  not sure, {found.top[0][0]}?"
    else:
        said = "unreadable"
    console.print(f"{escape(said)}  {escape(found.video)}" + (f"  {escape(found.error)}" if found.error else ""))
    if found.rationale:
        console.print(f"        {escape(found.rationale)}")
    changes = [
        moment
        for number, moment in enumerate(found.timeline)
        if not number or moment.predicted != found.timeline[number - 1].predicted
    ]
    for moment in changes[:_CHANGES]:
        what = "unreadable" if moment.predicted is None else f"{moment.predicted} {moment.probability:.1%}"
        console.print(f"        from {moment.start:g} s: {escape(what)}")
    if len(changes) > _CHANGES:
        console.print(f"        ... and {len(changes) - _CHANGES} more changes; --to FILE.jsonl has all")
