"""`rbft suggest`: which clips to label next, and which labels look wrong."""

from __future__ import annotations

import shlex
import warnings
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from rbft.arguments import Parser
from rbft.errors import ConfigError
from rbft.files import expanded, require_writable

if TYPE_CHECKING:
    from rbft.predict import Classifier
    from rbft.suggest.clips import Seen
    from rbft.suggest.suggestions import DoubtedClip, NextClip

_METHODS = ("diverse", "badge", "margin", "typiclust")
_PRINTED = 5


def parser() -> Parser:
    """The command's flags."""
    made = Parser(
        prog="rbft suggest",
        allow_abbrev=False,
        description="Say which clips to label next, and which labels look wrong.",
        epilog="For example: rbft suggest --run runs/clips/rbft/seed0 clips --count 20",
    )
    made.advice = "Say --run RUN_FOLDER and a folder of clips without labels."
    made.add_argument("--run", required=True, type=Path, help="the run's folder")
    made.add_argument(
        "--data.root",
        dest="root",
        type=Path,
        metavar="FOLDER",
        help="where the run's labelled videos are now, where they were moved (default: as the run recorded it)",
    )
    made.add_argument(
        "--to", type=Path, default=Path("suggestions"), help="folder for the page and tables (default %(default)s)"
    )
    made.add_argument("--count", type=int, default=20, help="number of clips to label next (default %(default)s)")
    made.add_argument(
        "--method",
        default="diverse",
        choices=_METHODS,
        help="how they are chosen: unsure and unlike each other (diverse, badge), unsure (margin), or typical of what "
        "has no label yet (typiclust), for the first labels (default %(default)s)",
    )
    made.add_argument("--seed", type=int, default=0, help="seed of the choice, and of draws (default %(default)s)")
    made.add_argument(
        "--simulate",
        type=int,
        metavar="DRAWS",
        help="measure instead, on the run's labelled clips, how many labels each method saves",
    )
    made.add_argument(
        "--time-limit",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="most time to read a video (default %(default)g)",
    )
    made.add_argument("videos", nargs="*", help="videos, folders of videos, or a table with a column path")
    return made


def run(args: Sequence[str]) -> int:
    """Carry out the command.

    Args:
        args: command line; unknown flags are settings of speed, as with `rbft predict`.

    Returns:
        1 where a video cannot be read.

    Raises:
        ConfigError: A flag is wrong.
        StageError: The folder is not a finished run.
    """
    parsed, flags = parser().parse_known_args(list(args))
    if parsed.count < 1:
        raise ConfigError(f"--count {parsed.count}: must be at least 1.")
    if parsed.seed < 0:
        raise ConfigError(f"--seed {parsed.seed}: must not be negative.")
    if parsed.simulate is not None and parsed.simulate < 2:
        raise ConfigError(f"--simulate {parsed.simulate}: at least 2 draws make an interval; 20 or more are better.")
    if parsed.simulate is not None and parsed.videos:
        raise ConfigError("--simulate: it looks at the run's labelled clips alone; name no videos.")
    require_writable(parsed.to, "--to", folder=True)

    from rbft.predict.classifier import check_flags
    from rbft.suggest.page import refuse_other_than_suggestions

    check_flags(flags)
    if parsed.simulate is None:
        refuse_other_than_suggestions(parsed.to, "--to")
    from rbft.predict import Classifier, expand
    from rbft.suggest.clips import labelled_clips, see, unlabelled_clips
    from rbft.terminal import make_console, quieten

    console = make_console()
    quieten()
    classifier = Classifier(parsed.run, flags, parsed.time_limit)
    videos = [video for name in parsed.videos for video in expand(expanded(name), classifier.recorded.frame_rate)]
    for caution in classifier.recorded.cautions(own_videos=bool(videos)):
        console.print(f"[bold]warning:[/] {escape(caution)}")
    labelled = labelled_clips(classifier, parsed.root)
    console.print(f"{len(labelled)} labelled clips in the run's data set")
    free, known, refused = unlabelled_clips(videos, labelled)
    if videos:
        rest = f"; {known} more have a label, or are copies of clips that have" if known else ""
        console.print(f"{len(free)} clips without a label{rest}")
    seen = see(classifier, labelled, console, ask=False)
    if parsed.simulate is not None:
        _simulate(seen, parsed, console)
        return 0
    unseen = see(classifier, free, console, ask=True)
    _suggest(classifier, seen, unseen, known, parsed, console)
    bad = {**refused, **seen.unreadable, **unseen.unreadable}
    if bad:
        console.print(f"{len(bad)} videos cannot be read, first {escape(next(iter(bad.values())))}")
    return 1 if bad else 0


def _suggest(classifier: Classifier, seen: Seen, unseen: Seen, known: int, parsed: Namespace, console: Console) -> None:
    """Choose, print the first of each kind, and write the page and tables."""
    from rbft.suggest.page import DOUBTED, NEXT, PAGE, set_aside, write_suggestions
    from rbft.suggest.suggestions import choose_next, doubted_clips, held_out_answers

    names = classifier.labels.names
    chosen = choose_next(unseen, seen.features, names, parsed.count, parsed.method, parsed.seed)
    doubted, judges = doubted_clips(seen, held_out_answers(parsed.run), names)
    rest = f"; {known} more have one, or are copies of clips that have" if known else ""
    note = f"Run {parsed.run}: {len(seen.clips)} labelled clips, {len(unseen.clips)} without a label{rest}."
    if (old := set_aside(parsed.to)) is not None:
        console.print(f"what stood at {escape(str(parsed.to))} is now {escape(str(old))}")
    write_suggestions(
        parsed.to, "Suggestions", chosen, doubted, [note], [judge.describe() for judge in judges], parsed.method
    )
    _print(chosen, doubted, console)
    for judge in judges:
        console.print(escape(f"  {judge.describe()}"))
    console.print(f"written: {escape(str(parsed.to / PAGE))}, {NEXT} and {DOUBTED}")
    if chosen:
        rate = classifier.recorded.frame_rate
        images = "" if rate is None else f" --frame-rate {rate:g}"
        given = shlex.join(["--order", str(parsed.to / NEXT), "--run", str(parsed.run)])
        console.print(escape(f"label them: rbft label CLIPS{images} {given}"))


def _print(chosen: Sequence[NextClip], doubted: Sequence[DoubtedClip], console: Console) -> None:
    if chosen:
        console.print(f"{len(chosen)} clips to label next, first")
    for entry in chosen[:_PRINTED]:
        said = ", ".join(f"{name} {value:.0%}" for name, value in entry.top[:2])
        console.print(escape(f"  {entry.clip.name}  ({said})"))
    console.print(f"{len(doubted)} labels look wrong" + (", first" if doubted else ""))
    for doubt in doubted[:_PRINTED]:
        has, rather = f"{doubt.label} {doubt.label_probability:.0%}", f"{doubt.other} {doubt.other_probability:.0%}"
        console.print(escape(f"  {doubt.clip.name}: {has}, rather {rather}"))


def _simulate(seen: Seen, parsed: Namespace, console: Console) -> None:
    """Play the labelling of labelled clips through, and print what each method saves."""
    from rich.table import Table

    from rbft.files import archive, write_json
    from rbft.suggest.page import SIMULATION
    from rbft.suggest.simulation import RANDOM, measure
    from rbft.terminal import steps_shown

    # a fit to a handful of clips may end where double precision does, which is as good as it gets
    with steps_shown(console) as report, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(The line search|Line Search)")
        curves = measure(seen, parsed.count, parsed.simulate, report, parsed.seed)
    table = Table(box=None, pad_edge=False, title="accuracy of a linear probe, by labels", title_justify="left")
    table.add_column("labels", justify="right")
    for method in curves:
        table.add_column(method, justify="right")
    steps = curves[RANDOM].labels
    for place, number in enumerate(steps):
        table.add_row(str(number), *(f"{curve.means[place]:.1%}" for curve in curves.values()))
    console.print(table)
    document: dict[str, Any] = {"draws": parsed.simulate, "clips": len(seen.clips), "labels": list(steps)}
    for method, curve in curves.items():
        document[method] = {"accuracy": curve.accuracy.tolist()}
        if method != RANDOM:
            said = curve.against(curves[RANDOM])
            document[method] |= said.to_json()
            console.print(escape(f"{method}: {said.describe()}"))
    path = parsed.to / SIMULATION
    old = archive(path)
    write_json(path, document)
    rest = f"; what was there is now {escape(str(old))}" if old is not None else ""
    console.print(f"written: {escape(str(path))}{rest}")
