"""`rbft fetch`: a folder of clips from remote storage, copied to this machine once a person has agreed."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from rich.markup import escape

from rbft.arguments import Parser
from rbft.errors import ConfigError
from rbft.files import require_writable


def parser() -> Parser:
    """The command's flags."""
    parser = Parser(
        prog="rbft fetch",
        allow_abbrev=False,
        description="Copy clips from s3://, gs:// or hf:// to this machine.",
        epilog="For example: rbft fetch s3://bucket/clips --to clips",
    )
    parser.advice = "Say an address such as s3://bucket/clips."
    parser.add_argument("url", help="folder of clips: s3://..., gs://... or hf://datasets/OWNER/NAME/...")
    parser.add_argument("--to", type=Path, help="folder for the copy; the last part of the address by default")
    parser.add_argument("--yes", action="store_true", help="copy without being asked")
    return parser


def run(args: Sequence[str]) -> int:
    """Carry out the command: say what is there and how large it is, ask, and copy what is not here yet.

    Raises:
        RBFTError: The folder cannot be read or copied, or nobody agreed.
    """
    parsed = parser().parse_args(list(args))

    from rbft.data.formats.on_disk import listing
    from rbft.starter.remote import changed_here, copy_files, described, kinds, list_remote, still_to_copy
    from rbft.terminal import make_console, steps_shown

    console = make_console()
    folder: Path = parsed.to or Path(PurePosixPath(parsed.url).name)
    require_writable(folder, "--to", folder=True)
    remote = list_remote(parsed.url)
    files = still_to_copy(remote, folder)
    console.print(escape(f"{parsed.url}: {described(remote.files)}"))
    if rest := kinds(remote.left_out):
        console.print(escape(f"left out are {remote.left_out.total()} other files ({rest})"))
    names = {file.path for file in files}
    if kept := [path for path in changed_here(folder) if path not in names]:
        console.print(escape(f"{len(kept)} files were changed here since they were copied, and stay: {listing(kept)}"))
    if files:
        _agree(described(files), sum(file.size for file in files), folder, yes=parsed.yes)
        with steps_shown(console) as report:
            archived = copy_files(remote, files, folder, report)
        for old in archived:
            console.print(escape(f"{old.name.rpartition('.old-')[0]} was changed here and there; yours is now {old}"))
    else:
        console.print("all of it is here already")
    console.print(escape(f"copy: {folder}; go on with rbft fit {shlex.quote(str(folder))}"))
    return 0


def _agree(what: str, size: int, folder: Path, *, yes: bool) -> None:
    """Ask a person, unless they said yes beforehand.

    Raises:
        ConfigError: They did not agree, nobody could be asked, or there is no room.
    """
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if (free := shutil.disk_usage(above).free) < size:
        raise ConfigError(f"--to {folder}: {size:,} bytes are needed and {free:,} are free there; name another place.")
    if yes or (sys.stdin.isatty() and input(f"Copy {what} to {folder}? [y/N] ").strip().lower() in ("y", "yes")):
        return
    raise ConfigError(f"nothing was copied. Say --yes to copy {what} to {folder}.")
