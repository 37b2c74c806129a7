"""`rbft label`: a local page on which a person gives clips their classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from rbft.arguments import Parser
from rbft.commands.serve import require_server
from rbft.errors import ConfigError
from rbft.files import expanded, require_writable

if TYPE_CHECKING:
    from rbft.labelling.clips import Clip, Found
    from rbft.predict import Classifier

_BY_NAME = "name"
_SUGGESTED = 50  # clips; after them a new run knows more than this one


def parser() -> Parser:
    """The command's flags."""
    made = Parser(
        prog="rbft label",
        allow_abbrev=False,
        description="Give clips their classes, by keyboard, on a local page.",
        epilog="For example: rbft label clips --classes fall,no_fall; then: rbft fit clips",
    )
    made.advice = "Say a folder of clips or a table of them."
    made.add_argument("clips", type=Path, metavar="CLIPS", help="folder of clips, or a table of them")
    made.add_argument("--classes", metavar="A,B", help="classes to begin with; more can be added on the page")
    made.add_argument("--table", type=Path, help="table of the labels in that folder (default labels.csv)")
    made.add_argument(
        "--order",
        metavar="FILE.csv",
        help="table of clips to show first, such as `rbft suggest` leaves; or name. By default by name, and with --run "
        "the clips first that are most worth a label",
    )
    made.add_argument("--run", type=Path, help="folder of a run whose answers are shown beside each clip")
    made.add_argument(
        "--ignore-folders", action="store_true", help="folders are no classes: begin without labels where none are kept"
    )
    made.add_argument(
        "--frame-rate",
        type=float,
        metavar="FPS",
        help="take folders of numbered images for clips of so many frames a second, where the table has no column fps",
    )
    made.add_argument("--port", type=int, default=8421, help="port to listen on (default %(default)s; 0: any free one)")
    return made


def run(args: Sequence[str]) -> int:
    """Carry out the command.

    Args:
        args: command line; with --run, unknown flags are settings of speed, as with `rbft predict`.

    Raises:
        ConfigError: A flag is wrong, or the packages of the extra `serve` are missing.
        DataError: There are no clips, or the table cannot be read.
        Interrupted: It was asked to stop, and has.
    """
    parsed, flags = parser().parse_known_args(list(args))
    if flags and parsed.run is None:
        raise ConfigError(f"rbft label: {flags[0]} is no flag of it; see rbft label --help.")
    if not 0 <= parsed.port < 65536:
        raise ConfigError("--port lies between 0 and 65535.")
    require_server("label")

    from rbft.data.formats.on_disk import checked_rate
    from rbft.labelling.clips import find_clips, read_order
    from rbft.labelling.server import serve
    from rbft.labelling.session import Session
    from rbft.terminal import make_console

    console = make_console(alone=True)
    found = find_clips(
        parsed.clips,
        parsed.table,
        folders_are_classes=not parsed.ignore_folders,
        frame_rate=checked_rate(parsed.frame_rate, "--frame-rate"),
    )
    require_writable(found.table.path, "--table")
    wanted = [] if parsed.order in (None, _BY_NAME) else read_order(expanded(parsed.order), found)
    classes = [] if parsed.classes is None else [name.strip() for name in parsed.classes.split(",") if name.strip()]
    console.print(escape(f"{len(found.clips)} clips, from {found.said}"))
    if found.missing:
        console.print(f"{found.missing} rows of the table name files that are not there; they are kept as they are")
    console.print(escape(f"labels: {found.table.path}"))

    def make_session() -> Session:
        opinions = None
        if parsed.run is not None:
            from rbft.labelling.opinions import Opinions
            from rbft.predict import Classifier
            from rbft.terminal import quieten

            quieten()
            classifier = Classifier(parsed.run, [*flags, "--data.num_workers", "0"])
            for caution in classifier.recorded.cautions(own_videos=True):
                console.print(f"[bold]warning:[/] {escape(caution)}")
            classes.extend(name for name in classifier.labels.names if name not in classes)
            opinions = Opinions(classifier, found.root)
            if parsed.order is None:
                wanted.extend(_suggested(classifier, found, console))
        return Session(found, wanted, classes, opinions)

    serve(make_session, parsed.port, console)
    return 0


def _suggested(classifier: Classifier, found: Found, console: Console) -> list[Clip]:
    """The clips that are most worth a label, of those that have none."""
    from rbft.predict import VideoInput
    from rbft.suggest.clips import see, unlabelled_clips
    from rbft.suggest.suggestions import choose_next

    labelled = {(row.path, row.part) for row in found.table.read() if row.label}
    free = [clip for clip in found.clips if (clip.path, clip.part) not in labelled]
    if not free:
        return []
    console.print(f"the run looks at {len(free)} clips without a label, to begin with those most worth one")
    by_name = {clip.name: clip for clip in free}
    inputs = [VideoInput(clip.name, clip.path, found.root, part=clip.part) for clip in free]
    seen = see(classifier, unlabelled_clips(inputs, ())[0], console, ask=True)
    chosen = choose_next(seen, seen.features[:0], classifier.labels.names, _SUGGESTED, "diverse")
    return [by_name[entry.clip.name] for entry in chosen]
