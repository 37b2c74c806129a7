"""What a person runs: an experiment file, one that ships with the package, or clips, for which a file is written."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rbft.arguments import Parser
from rbft.errors import ConfigError
from rbft.experiment import nearest
from rbft.files import archive, expanded, write_atomic

BUILTIN = "builtin:"
_YAML = (".yaml", ".yml")
_SUGGESTED = ("Qwen/Qwen2.5-VL-3B-Instruct", "7.5 GB")


def add_arguments(parser: Parser) -> None:
    """The arguments that only clips take, for the help of a command."""
    parser.add_argument("source", nargs="*", metavar="CLIPS", help="folder or table of labelled clips, or a FILE.yaml")
    parser.add_argument("--vlm", metavar="MODEL", help="model: a folder, a hub id, or builtin/tiny")
    parser.add_argument("--about", metavar="TEXT", help="what the videos are, in a few words; for the prompts")
    parser.add_argument("--preset", metavar="NAME", help="how much to spend: quick, good or best")


def experiment_arguments(args: Sequence[str]) -> tuple[list[str], str]:
    """The command line with an experiment file in the place of what a person named in front of the flags.

    For clips a file is written below the run root; one that stands there and differs is archived.

    Args:
        args: Command line of a command that runs experiments.

    Returns:
        The command line for `rbft.experiment.read_experiment`, and what to tell the person; empty for nothing.

    Raises:
        ConfigError: It is not clear what is meant.
        DataError: The clips cannot be used.
    """
    named, flags = _split(args)
    flags = [_located(flag) for flag in flags]
    files = [name for name in named if name.endswith(_YAML) or name.startswith(BUILTIN)]
    if len(files) == len(named):
        return [*(part for name in files for part in ("--config", _located(name))), *_plain_vlm(flags)], ""
    if len(named) > 1 or "--config" in flags:
        raise ConfigError(f"{named[0]}: name clips or experiment files, not both, and one folder or table of clips.")
    from rbft.starter.format_flags import format_of, split_format_flags
    from rbft.starter.layout import FORMATS

    text, name, said = write_text(named[0], flags, expanded(named[0]).resolve())
    _, rest = _own(flags)
    root = expanded(_value(rest, "run_root") or "runs")
    path = root / name / f"{name}.yaml"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        if (old := archive(path)) is not None:
            said += f"\nthe experiment file that stood there is now {old}"
        write_atomic(path, text)
    # what is known of the format stands in the file, with what was found beside it
    own, others = split_format_flags(rest)
    rest = others if format_of(own)[0] in (None, *FORMATS) else rest
    return ["--config", str(path), *rest], f"{said}\nexperiment file: {path}"


def write_text(named: str, flags: Sequence[str], absolute: Path | None = None) -> tuple[str, str, str]:
    """An experiment file for clips.

    Args:
        named: Folder, table or list of clips.
        flags: Command line after it.
        absolute: the source as an absolute path, where the file must be found from anywhere.

    Returns:
        Text of the file, name of the experiment, and what to tell the person.
    """
    from rbft.starter.experiment_file import Choices, experiment_text
    from rbft.starter.format_flags import format_of, split_format_flags
    from rbft.starter.layout import FORMATS, recognise
    from rbft.starter.remote import is_remote
    from rbft.sweep.launchers import visible_gpus

    if is_remote(named):
        raise ConfigError(f"{named}: clips are read from this machine. Copy them first: rbft fetch {named} --to FOLDER")
    own, rest = _own(flags)
    path = absolute or expanded(named)
    format, settings = format_of(split_format_flags(rest)[0])
    # a format of another package is for the experiment to make
    layout = recognise(path) if format not in (None, *FORMATS) else recognise(path, settings, format)
    gpus = visible_gpus()
    vlm = own.vlm or _value(rest, "model.vlm")
    said = [f"{len(layout.records)} clips of {len(layout.classes)} classes, from {layout.description}", *layout.notes]
    if vlm is None:
        vlm = _offered_model() if gpus else "builtin/tiny"
    choices = Choices(vlm, own.about or "", own.preset or "good", bool(gpus))
    if choices.rehearses:
        said.append(
            "this is a rehearsal with the built-in model, which knows moving shapes only: its answers about your "
            "videos are worth nothing. Say --vlm MODEL for a real one."
        )
    if all(name.isdecimal() for name in layout.classes):
        said.append(
            f"the classes are called by numbers ({', '.join([*layout.classes][:4])}), which tell a model nothing: say "
            "what they are in model.prompts.label_texts, or take names."
        )
    if groups := layout.suggested_groups:
        said.append(
            f"file names suggest {len(groups)} groups ({', '.join(list(groups)[:4])}, ...): if these are people or "
            "cameras, list the clips in a table with a column group, so that none is on both sides of the test."
        )
    if folders := layout.shared_folders:
        listed = ", ".join(folders[:4]) + (", ..." if len(folders) > 4 else "")
        said.append(
            f"several class folders hold folders of one name ({listed}). If these are the classes, list the clips in a "
            "table with the columns path,label; if they are people or cameras, add a column group, so that none is on "
            "both sides of the test."
        )
    name = re.sub(r"[^\w.+-]+", "_", layout.root.name if path.is_dir() or not path.stem else path.stem).strip("._")
    return experiment_text(layout, choices, str(layout.root)), name or "clips", "\n".join(said)


def builtin_experiments() -> dict[str, Path]:
    """The experiment files that ship with the package, by name."""
    folder = Path(__file__).parents[1] / "builtin_experiments"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _located(name: str) -> str:
    """The path of an experiment file of the package that is named by `builtin:`; all else as it is."""
    if not name.startswith(BUILTIN):
        return name
    known = builtin_experiments()
    if (path := known.get(name.removeprefix(BUILTIN).removesuffix(".yaml"))) is None:
        raise ConfigError(f"{name}: no experiment of the package; {nearest(name.removeprefix(BUILTIN), known)}")
    return str(path)


def _split(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands in front of the first flag, and the rest: after a flag a word may be its value."""
    named = list(itertools.takewhile(lambda word: not word.startswith("-"), args))
    return named, list(args[len(named) :])


def _own(flags: Sequence[str]) -> tuple[Any, list[str]]:
    parser = Parser(prog="rbft fit", add_help=False, allow_abbrev=False)
    for flag in ("--vlm", "--about", "--preset"):
        parser.add_argument(flag)
    return parser.parse_known_args(list(flags))


def _plain_vlm(flags: Sequence[str]) -> list[str]:
    """Flags for an experiment file: --vlm is a short name of --model.vlm; what prompts are made of needs clips."""
    own, rest = _own(flags)
    for flag, value in (("--about", own.about), ("--preset", own.preset)):
        if value is not None:
            raise ConfigError(f"{flag}: it shapes the file that is written for clips; set the keys of your own file.")
    return rest if own.vlm is None else [*rest, "--model.vlm", own.vlm]


def _value(flags: Sequence[str], key: str) -> str | None:
    value = None
    for place, flag in enumerate(flags):
        if flag == f"--{key}" and place + 1 < len(flags):
            value = flags[place + 1]
        elif flag.startswith(f"--{key}="):
            value = flag.split("=", 1)[1]
    return value


def _offered_model() -> str:
    """The model to take on a GPU where none was named: nothing is downloaded that nobody asked for.

    Raises:
        ConfigError: It is not on this machine, and nobody could be asked or the answer was no.
    """
    from huggingface_hub import try_to_load_from_cache

    name, size = _SUGGESTED
    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return name
    question = f"No --vlm was said. Take {name} ({size}), and download it? [y/N] "
    if sys.stdin.isatty() and input(question).strip().lower() in ("y", "yes"):
        return name
    raise ConfigError(
        f"no model was named. Say --vlm {name} to have it downloaded ({size}), --vlm FOLDER for one that you have, or "
        "--vlm builtin/tiny for a rehearsal without a real model."
    )
