"""`rbft predict`: classify videos with a finished run."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.markup import escape

from rbft.arguments import Parser
from rbft.errors import ConfigError
from rbft.files import expanded, require_writable

if TYPE_CHECKING:
    from rbft.evaluation.thresholds import Threshold
    from rbft.predict.answers import Answer, Rule
    from rbft.predict.classifier import Classifier
    from rbft.predict.windows import Windows

_CHANGES = 12  # of a timeline that are shown


def parser() -> Parser:
    """The command's flags."""
    parser = Parser(
        prog="rbft predict",
        allow_abbrev=False,
        description="Classify videos with a finished run.",
        epilog="Settings of speed and device may be given too, for example --data.num_workers 4, "
        "--data.eval_batch_size 16 or --trainer.accelerator cpu.",
    )
    parser.advice = "Say --run RUN_FOLDER and videos, folders or a table."
    parser.add_argument("--run", required=True, help="the run's folder")
    parser.add_argument("--to", type=Path, help="file for the answers, .jsonl or .csv; the terminal without it")
    parser.add_argument("--rationale", action="store_true", help="let the model explain each answer")
    parser.add_argument("--window", type=float, metavar="SECONDS", help="look at long videos in windows of this length")
    parser.add_argument(
        "--stride", type=float, metavar="SECONDS", help="from one window to the next; the window itself"
    )
    parser.add_argument(
        "--frame-rate",
        type=float,
        metavar="FPS",
        help="take folders of numbered images for videos of so many frames a second; without it as the run's "
        "data.format says",
    )
    parser.add_argument(
        "--best-only",
        action="store_true",
        help="score the five likeliest classes exactly and bound the others: faster with hundreds of classes",
    )
    parser.add_argument("--alarm", metavar="CLASS", help="a video has this class as soon as one window shows it")
    parser.add_argument("--min-confidence", type=float, metavar="P", help="abstain below this probability")
    parser.add_argument(
        "--precision",
        action="append",
        default=[],
        metavar="CLASS=P",
        help="answer the class only where validation bounds its precision by P",
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="most time to read a video, or a window of it (default %(default)g)",
    )
    parser.add_argument(
        "--watch", type=Path, metavar="FOLDER", help="answer the videos of this folder as they come, until Ctrl-C"
    )
    parser.add_argument(
        "--every",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="with --watch: time between two looks, and without a change after which a file is whole "
        "(default %(default)g)",
    )
    parser.add_argument("videos", nargs="*", help="videos, folders of videos, or a table with a column path")
    return parser


def run(args: Sequence[str]) -> int:
    """Carry out the command.

    Returns:
        1 where a video could not be read.

    Raises:
        Interrupted: It watched a folder, and was asked to stop.
    """
    parsed, flags = parser().parse_known_args(list(args))
    if parsed.to is not None and parsed.to.suffix not in (".jsonl", ".csv"):
        raise ConfigError(f"--to {parsed.to}: name a .jsonl or a .csv file.")
    if parsed.to is not None:
        require_writable(parsed.to, "--to")
        if parsed.watch is None:
            from rbft.data.own_tables import refuse_other_than_answers

            refuse_other_than_answers(parsed.to, "--to")
    _check_watch(parsed)
    if parsed.window is None and parsed.stride is not None:
        raise ConfigError("--stride: needs --window, the length of what is looked at.")
    from rbft.data.formats.on_disk import checked_rate, left_out
    from rbft.predict.answers import Rule, write_answers
    from rbft.predict.classifier import Classifier
    from rbft.predict.inputs import expand
    from rbft.predict.windows import Windows
    from rbft.terminal import make_console, quieten

    windows = None if parsed.window is None else Windows(parsed.window, parsed.stride)
    if parsed.precision and windows is not None:
        raise ConfigError(
            "--precision: its threshold holds for whole clips and not for windows; leave out "
            "--window, or use --min-confidence."
        )
    console = make_console()
    quieten()
    classifier = Classifier(parsed.run, flags, parsed.time_limit)
    rate = checked_rate(parsed.frame_rate, "--frame-rate") or classifier.recorded.frame_rate
    paths = [expanded(name) for name in parsed.videos]
    videos = [video for path in paths for video in expand(path, rate)]
    for path in paths:
        if path.is_dir() and (rest := left_out(path, frame_rate=rate)):
            console.print(escape(f"{path}: left out are {rest}"))
    root = classifier.recorded.data_root
    elsewhere = parsed.watch is not None or any(
        not Path(video.root or ".", video.path).resolve().is_relative_to(root) for video in videos
    )
    for caution in classifier.recorded.cautions(own_videos=elsewhere):
        console.print(f"[bold]warning:[/] {escape(caution)}")
    rule = Rule(parsed.min_confidence, _thresholds(classifier, parsed.precision))
    if parsed.best_only:
        classifier.check_best_only(windows, rule)
    for threshold in rule.thresholds:
        console.print(escape(threshold.describe()))
    calibration = classifier.recorded.calibration
    if calibration.temperature is None:
        console.print(escape(calibration.describe()))
    if parsed.watch is not None:
        _watch(parsed, classifier, windows, rule, console)
    answers = classifier.predict(
        videos,
        console,
        rationale=parsed.rationale,
        windows=windows,
        alarm=parsed.alarm,
        rule=rule,
        best_only=parsed.best_only,
    )
    if parsed.to is not None:
        try:
            old = write_answers(parsed.to, answers)
        except OSError:
            # nothing of the work is lost, whatever became of the place meanwhile
            for answer in answers:
                _show(console, answer)
            raise
        rest = f"; what was there is now {escape(str(old))}" if old is not None else ""
        console.print(f"{len(answers)} answers written to {escape(str(parsed.to))}{rest}")
    else:
        for answer in answers:
            _show(console, answer)
    abstained = sum(answer.abstained for answer in answers)
    if abstained:
        console.print(f"{abstained} of {len(answers)} videos: no class is confident enough")
    bad = [answer for answer in answers if answer.error is not None]
    if bad:
        console.print(f"{len(bad)} of {len(answers)} videos cannot be read completely, first {escape(bad[0].video)}")
    return 1 if bad else 0


def _check_watch(parsed: Namespace) -> None:
    """Refuse what does not go with watching, and neither videos nor a folder to watch."""
    if parsed.watch is None:
        if not parsed.videos:
            raise ConfigError("rbft predict: name videos, folders of videos or a table; or --watch FOLDER.")
        return
    if parsed.videos:
        raise ConfigError(f"--watch {parsed.watch}: it answers what comes into this folder; name no other videos.")
    if parsed.to is not None and parsed.to.suffix != ".jsonl":
        raise ConfigError(f"--to {parsed.to}: with --watch answers are appended; name a .jsonl file.")
    if not 0 < parsed.every < float("inf"):
        raise ConfigError(f"--every {parsed.every:g}: must be above 0.")
    if parsed.frame_rate is not None:
        raise ConfigError("--frame-rate: nothing says when a folder of images is whole; leave it or --watch out.")


def _watch(
    parsed: Namespace, classifier: Classifier, windows: Windows | None, rule: Rule, console: Console
) -> NoReturn:
    """Answer what comes into a folder; ends by an error or by being asked to stop."""
    from rbft.predict.watch import watch

    # now rather than with the first video, so that a model that cannot be loaded is told at once
    _ = classifier.model.vlm

    def begun(before: int) -> None:
        known = f"; {before} videos were answered before" if before else ""
        console.print(escape(f"watching {parsed.watch}{known}  (Ctrl-C stops)"))

    watch(
        parsed.watch,
        lambda videos: classifier.predict(
            videos,
            rationale=parsed.rationale,
            windows=windows,
            alarm=parsed.alarm,
            rule=rule,
            best_only=parsed.best_only,
        ),
        lambda answer: _show(console, answer),
        to=parsed.to,
        every=parsed.every,
        begun=begun,
    )


def _thresholds(classifier: Classifier, wanted: Sequence[str]) -> tuple[Threshold, ...]:
    from rbft.evaluation.thresholds import choose_threshold

    if not wanted:
        return ()
    tuned = classifier.recorded.weights is not None
    # of each of the epochs that validation chose from, all ways of answering could have been taken
    tried = classifier.model.module.answering.tried(tuned=tuned) * classifier.recorded.weights_chosen_from
    thresholds = []
    for entry in wanted:
        name, equals, text = entry.rpartition("=")
        try:
            precision = float(text)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ConfigError(f"--precision {entry}: say a class and a precision, for example --precision fall=0.9.")
        thresholds.append(
            choose_threshold(classifier.recorded.validation(), classifier.labels.names, name, precision, tried)
        )
    if len({threshold.name for threshold in thresholds}) < len(thresholds):
        raise ConfigError("--precision: a class is named twice.")
    return tuple(thresholds)


def _show(console: Console, answer: Answer) -> None:
    """An answer in the terminal: probability, class and video, then why, and how it changes over a long video."""
    if answer.predicted is not None:
        said = f"{answer.probability:6.1%}  {answer.predicted}" + ("  (at least)" if answer.at_least else "")
    elif answer.abstained:
        said = f"{answer.probability:6.1%}  not sure, {answer.top[0][0]}?"
    else:
        said = "unreadable"
    console.print(f"{escape(said)}  {escape(answer.video)}" + (f"  {escape(answer.error)}" if answer.error else ""))
    if answer.rationale:
        console.print(f"        {escape(answer.rationale)}")
    changes = [
        moment
        for number, moment in enumerate(answer.timeline)
        if not number or moment.predicted != answer.timeline[number - 1].predicted
    ]
    for moment in changes[:_CHANGES]:
        what = "unreadable" if moment.predicted is None else f"{moment.predicted} {moment.probability:.1%}"
        console.print(f"        from {moment.start:g} s: {escape(what)}")
    if len(changes) > _CHANGES:
        console.print(f"        ... and {len(changes) - _CHANGES} more changes; --to FILE.jsonl has all")
