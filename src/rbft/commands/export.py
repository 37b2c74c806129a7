"""`rbft export`: a finished run as a folder that plain transformers loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from rbft.arguments import Parser
from rbft.errors import ConfigError
from rbft.files import require_writable


def parser() -> Parser:
    """The command's flags."""
    parser = Parser(
        prog="rbft export", allow_abbrev=False, description="A finished run as a folder that plain transformers loads."
    )
    parser.advice = "Say --run RUN_FOLDER --to FOLDER."
    parser.add_argument("--run", required=True, help="the run's folder")
    parser.add_argument("--to", type=Path, required=True, help="the folder to make; must not be there yet")
    parser.add_argument(
        "--form",
        choices=("adapter", "merged"),
        help="adapter (peft) or all weights; the adapter where nothing else was trained",
    )
    parser.add_argument("--videos", help="folder of videos to compare answers on, where the run's own are gone")
    parser.add_argument("--push", metavar="NAME/REPOSITORY", help="upload it to the Hugging Face Hub; needs HF_TOKEN")
    parser.add_argument("--public", action="store_true", help="open a new repository to everybody; else it is private")
    return parser


def run(args: Sequence[str]) -> int:
    """Carry out the command.

    Raises:
        RBFTError: The run cannot be exported; nothing was written at the target.
    """
    parsed, flags = parser().parse_known_args(list(args))

    from rbft.export.build import build, comparison_clips, require_shareable
    from rbft.export.push import push, require_pushable
    from rbft.export.weights import choose_form
    from rbft.predict.classifier import check_flags
    from rbft.predict.model import WarmModel
    from rbft.predict.run_settings import read_run
    from rbft.terminal import make_console, quieten

    check_flags(flags)
    if parsed.public and parsed.push is None:
        raise ConfigError("--public: says who sees what is pushed, so it needs --push NAME/REPOSITORY.")
    target: Path = parsed.to
    if target.exists() or target.is_symlink():
        raise ConfigError(f"--to {target}: it exists already, and nothing is overwritten; name another folder.")
    require_writable(target, "--to", folder=True)
    token = None if parsed.push is None else require_pushable(parsed.push)
    console = make_console()
    quieten()
    recorded = read_run(parsed.run)
    model = WarmModel(recorded, flags)
    form = choose_form(model, parsed.form)
    require_shareable(model, form, pushed=parsed.push is not None)
    clips = comparison_clips(recorded, model, parsed.videos, console)
    build(recorded, model, form, clips, target, console)
    if token is not None:
        where = push(target, parsed.push, token, public=parsed.public)
        console.print(f"pushed to {escape(where)}")
    return 0
