"""`rbft report`: one page, a Markdown table and event files over many finished runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from rbft.arguments import Parser
from rbft.errors import ConfigError
from rbft.files import archive, require_writable, write_atomic
from rbft.terminal import make_console

_OWN = '<meta name="generator" content="rbft report">'
_CLIPS, _HEAD, _PLAIN_WIDTH = 24, 2000, 120


def parser() -> Parser:
    """The command's flags."""
    parser = Parser(
        prog="rbft report",
        allow_abbrev=False,
        description="One page over many runs: methods, intervals, tests and videos.",
    )
    parser.add_argument("folders", nargs="+", help="Run folders, folders of runs, or a sweep's folder.")
    parser.add_argument("--to", type=Path, default=Path("report.html"), help="The page; report.html by default.")
    parser.add_argument("--markdown", type=Path, help="Write the table of methods here, too.")
    parser.add_argument(
        "--baseline", help="The method that others are compared with; by default the sweep's own baseline, else sft."
    )
    parser.add_argument(
        "--choose",
        action="append",
        default=[],
        metavar="KEY",
        help="Of runs that differ in this setting alone, such as model.optim.lr, report the one that "
        "its validation videos choose; repeat it for several.",
    )
    parser.add_argument(
        "--clips",
        type=int,
        default=_CLIPS,
        help=f"Most test videos of each experiment, {_CLIPS} by default; 0 for none.",
    )
    parser.add_argument("--tensorboard", type=Path, help="Write event files into this new folder, too.")
    parser.add_argument("--title", help="Heading of the page.")
    return parser


def run(args: Sequence[str]) -> int:
    """Carry out the command.

    Raises:
        RBFTError: Nothing can be reported; says why.
    """
    parsed = parser().parse_args(list(args))
    if parsed.clips < 0:
        raise ConfigError(f"--clips {parsed.clips}: it must not be negative; 0 shows none.")
    if parsed.to.suffix not in (".html", ".htm"):
        raise ConfigError(f"--to {parsed.to}: name a .html file.")
    if parsed.markdown is not None and parsed.markdown.suffix != ".md":
        raise ConfigError(f"--markdown {parsed.markdown}: name a .md file.")
    if parsed.tensorboard is not None and parsed.tensorboard.exists() and any(parsed.tensorboard.iterdir()):
        raise ConfigError(
            f"--tensorboard {parsed.tensorboard}: it is not empty, and older event files would be mixed "
            "with these; name a new folder."
        )
    for flag, path in (("--to", parsed.to), ("--markdown", parsed.markdown), ("--tensorboard", parsed.tensorboard)):
        if path is not None:
            require_writable(path, flag, folder=flag == "--tensorboard")
    # scipy takes a second, which an error above need not wait for
    from rbft.report.collection import choose_baseline, collect, planned_choice, planned_replicates
    from rbft.report.exports import markdown, write_tensorboard
    from rbft.report.groups_table import print_groups
    from rbft.report.overview import make_overview
    from rbft.report.overview_page import write_overview

    console = make_console(alone=True)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    entries = collect(parsed.folders)
    baseline = choose_baseline(entries, parsed.baseline, parsed.folders)
    if not any(entry.finished for entry in entries):
        raise ConfigError(f"none of {len(entries)} runs is finished; a finished run has a metrics.json.")
    choose = dict.fromkeys([*planned_choice(parsed.folders, entries), *parsed.choose])
    replicates = planned_replicates(parsed.folders)
    overview = make_overview(entries, baseline, parsed.clips, tuple(choose), replicates)
    title = parsed.title or " and ".join(dict.fromkeys(entry.run.experiment for entry in entries if entry.finished))
    console.print(f"[bold]{escape(title)}[/]: {overview.finished} of {overview.runs} runs are finished")
    print_groups(overview.groups, overview.baseline, title, console, replicates)
    _write(parsed.to, write_overview(overview, title), console)
    if parsed.markdown is not None:
        _write(parsed.markdown, markdown(overview), console)
    if parsed.tensorboard is not None:
        write_tensorboard(overview, parsed.tensorboard)
        folder = str(parsed.tensorboard)
        console.print(escape(f"written: event files in {folder}  (tensorboard --logdir {shlex.quote(folder)})"))
    return 0


def _write(path: Path, text: str, console: Console) -> None:
    """Write a file; an earlier page of this command is replaced, any other file in its place is archived."""
    old = None
    if path.is_file() and _OWN not in path.read_text(encoding="utf-8", errors="replace")[:_HEAD]:
        old = archive(path)
    write_atomic(path, text)
    console.print(f"written: {escape(str(path))}" + (f"; what was there is now {escape(str(old))}" if old else ""))
