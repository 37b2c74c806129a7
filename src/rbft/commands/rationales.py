"""`rbft rationales`: audit, import and export of rationale files."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from rbft.arguments import Parser
from rbft.errors import ConfigError, DataError
from rbft.files import archive, parse_yaml, read_yaml, require_writable, write_json
from rbft.runs.names import CONFIG, RATIONALES

if TYPE_CHECKING:
    from rbft.data.prompt_templates import Prompts
    from rbft.rationales.import_export import RationaleFile

FORMATS = ("llava", "sharegpt", "messages")
"""The formats of `rbft.rationales.import_export`; repeated here, because `--help` and completion must not import it."""


def parser() -> Parser:
    """The command's actions and their flags."""
    parser = Parser(prog="rbft rationales", description="Audit, import and export rationales.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    shared = Parser(add_help=False)
    shared.add_argument(
        "file", type=Path, help="a rationales.jsonl, the run folder that holds it, or conversations as .json or .jsonl"
    )
    shared.add_argument(
        "--config",
        type=Path,
        help="experiment file or a stage's config.yaml: the prompts that were "
        "used; by default the config.yaml beside a rationales.jsonl",
    )
    shared.add_argument("--label_key", help="key of a conversation's row that names its class")
    shared.add_argument(
        "--conclusion",
        help="words before the class in an answer; by default those of the prompts, where they are known, else "
        "'Classification:'",
    )
    look = commands.add_parser("audit", parents=[shared], help="what a set of rationales is worth")
    look.add_argument("--json", type=Path, help="write all figures here")
    look.add_argument("--html", type=Path, help="write a page here")
    look.add_argument(
        "--model", help="model that judges which class each rationale argues for: a folder, hub id or builtin/tiny"
    )
    look.add_argument("--revision", help="revision of a hub id")
    look.add_argument(
        "--template_arguments",
        help="arguments of that model's chat template, for example '{enable_thinking: false}'; as the config says, "
        "where it is of the same model",
    )
    look.add_argument(
        "--videos", type=Path, help="folder of the videos, to check whether the rationales are about them"
    )
    look.add_argument("--num_frames", type=int, help="frames of a clip; as the config says, else 8")
    bring = commands.add_parser("import", parents=[shared], help="take rationales from elsewhere")
    bring.add_argument("--to", type=Path, required=True, help="a .jsonl file, a run folder, or an experiment file")
    bring.add_argument("--skip", action="store_true", help="leave out texts of clips that the run does not train on")
    give = commands.add_parser("export", parents=[shared], help="write conversations for other tools")
    give.add_argument("--format", choices=FORMATS, required=True, help="format of LLaVA, LLaMA-Factory or ms-swift")
    give.add_argument("--to", type=Path, required=True, help="a .json or .jsonl file")
    give.add_argument("--all", action="store_true", help="export dropped rationales, too")
    return parser


def run(args: Sequence[str]) -> int:
    """Carry out one of the actions.

    Args:
        args: command line after `rbft rationales`; unknown flags of `import --to EXPERIMENT` go to that experiment.

    Raises:
        RBFTError: The action cannot be carried out.
    """
    parsed, flags = parser().parse_known_args(list(args))
    if flags and not (parsed.command == "import" and parsed.to.suffix in (".yaml", ".yml")):
        raise ConfigError(f"rbft rationales {parsed.command}: unknown argument {flags[0]!r}; see --help.")
    parsed.file = _file(parsed.file)
    {"audit": _audit, "import": _import, "export": _export}[parsed.command](parsed, flags)
    return 0


def _file(path: Path) -> Path:
    """The file that was named, or the one in the folder of a run or of a stage that was."""
    if not path.is_dir():
        return path
    files = [file for file in (path / RATIONALES, *sorted(path.glob(f"*/{RATIONALES}"))) if file.is_file()]
    if len(files) != 1:
        found = ", ".join(map(str, files)) or f"no {RATIONALES}"
        raise DataError(f"{path} is a folder that holds {found}; name a file, or a run that wrote rationales once.")
    return files[0]


def _config(args: argparse.Namespace) -> dict[str, Any] | None:
    """The configuration that was named, or that a write stage left beside its rationales."""
    beside = args.file.parent / CONFIG
    path: Path | None = args.config
    if path is None and args.file.name == RATIONALES and beside.is_file():
        path = beside
    if path is None:
        return None
    try:
        content = read_yaml(path)
    except DataError as error:
        raise ConfigError(f"--config {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ConfigError(f"--config {path}: it has no key `model`, so it is not an experiment file.")
    return content


def _prompts(config: dict[str, Any] | None) -> Prompts | None:
    from rbft.data.prompt_templates import Prompts

    if config is None:
        return None
    values = config["model"].get("prompts") or {}
    known = {field.name for field in dataclasses.fields(Prompts)}
    if not isinstance(values, dict) or not set(values) <= known:
        raise ConfigError(f"model.prompts: expected the keys {', '.join(sorted(known))}.")
    return Prompts(**values)


def _template(args: argparse.Namespace, config: dict[str, Any] | None) -> dict[str, Any]:
    """Arguments of the judge's chat template: those that were given, else those of the run where it is its model."""
    key = "--template_arguments"
    if args.template_arguments is not None:
        try:
            values = parse_yaml(args.template_arguments)
        except ValueError as error:
            raise ConfigError(f"{key} {args.template_arguments!r}: not valid YAML: {error}") from error
    elif config is not None and config["model"].get("vlm") == args.model:
        key, values = "model.template_arguments", config["model"].get("template_arguments") or {}
    else:
        return {}
    if not isinstance(values, dict) or not all(
        isinstance(name, str) and isinstance(value, (bool, int, float, str)) for name, value in values.items()
    ):
        raise ConfigError(f"{key}: expected names with plain values, for example {{enable_thinking: false}}.")
    return values


def _read(args: argparse.Namespace, config: dict[str, Any] | None) -> RationaleFile:
    from rbft.rationales.import_export import read_rationale_file

    return read_rationale_file(args.file, _prompts(config), label_key=args.label_key, conclusion=args.conclusion)


def _audit(args: argparse.Namespace, _: Sequence[str]) -> None:
    from rbft.rationales.audit import audit
    from rbft.rationales.judge import load_judge
    from rbft.report.audit import print_audit, write_audit_page
    from rbft.terminal import make_console, quieten, steps_shown

    for flag, path in (("--json", args.json), ("--html", args.html)):
        if path is not None:
            require_writable(path, flag)
    config = _config(args)
    file = _read(args, config)
    for flag, value in (("--videos", args.videos), ("--template_arguments", args.template_arguments)):
        if value is not None and args.model is None:
            raise ConfigError(f"{flag}: name the model that judges with --model.")
    console = make_console()
    judge = None
    if args.model is not None:
        quieten()
        data = (config or {}).get("data") or {}
        template = _template(args, config)
        judge = load_judge(args.model, args.revision, args.videos, args.num_frames, data, template)
    with steps_shown(console) as report:
        if judge is not None:
            judge = dataclasses.replace(judge, report=report)
        result = audit(str(args.file), file, judge)
    print_audit(result, console)
    if args.json is not None:
        old = archive(args.json)
        write_json(args.json, result.to_json())
        console.print(f"figures: {escape(str(args.json))}{_set_aside(old)}")
    if args.html is not None:
        old = archive(args.html)
        write_audit_page(args.html, result)
        console.print(f"page: {escape(str(args.html))}{_set_aside(old)}")


def _set_aside(old: Path | None) -> str:
    """What became of a file that stood in the place of another, as a clause; empty where there was none."""
    return "" if old is None else f"; what was there is now {escape(str(old))}"


def _import(args: argparse.Namespace, flags: Sequence[str]) -> None:
    from rbft.rationales.import_export import refuse_untrusted, write_rationale_file
    from rbft.terminal import make_console

    console = make_console()
    if args.to.is_dir() or args.to.suffix in (".yaml", ".yml"):
        from rbft.pipeline.import_rationales import import_into_run

        # what stands beside a rationales.jsonl has no say: the run asks with its own prompts
        prompts = None if args.config is None else _prompts(_config(args))
        import_into_run(
            args.file, args.to, flags, args.label_key, args.conclusion, console, prompts=prompts, skip=args.skip
        )
        return
    if args.skip:
        raise ConfigError("--skip: which clips are trained on is known of a run only; name one with --to.")
    if args.to.suffix != ".jsonl":
        raise ConfigError(f"--to {args.to}: name a .jsonl file, a run folder or an experiment file.")
    require_writable(args.to, "--to")
    file = _read(args, _config(args))
    refuse_untrusted(file.rationales, str(args.file))
    old = write_rationale_file(args.to, file.rationales)
    remarks = _set_aside(old)
    empty = sum(not rationale.text for rationale in file.rationales)
    remarks += f"; {empty} are empty and not kept" if empty else ""
    count, classes = len(file.rationales), len(file.book.labels)
    console.print(f"{count} rationales of {classes} classes: {escape(str(args.to))}{remarks}")


def _export(args: argparse.Namespace, _: Sequence[str]) -> None:
    from rbft.rationales.import_export import export_conversations
    from rbft.terminal import make_console

    if args.to.suffix not in (".json", ".jsonl"):
        raise ConfigError(f"--to {args.to}: name a .json or .jsonl file.")
    require_writable(args.to, "--to")
    config = _config(args)
    if config is None:
        raise ConfigError("the questions of the conversations are not known; name the experiment file with --config.")
    file = _read(args, config)
    chosen = [rationale for rationale in file.rationales if args.all or rationale.kept]
    if not chosen:
        raise DataError(f"{args.file}: no rationale is kept; --all exports those that were dropped.")
    old = export_conversations(args.to, chosen, file.book, args.format)
    left = len(file.rationales) - len(chosen)
    make_console().print(
        f"{len(chosen)} conversations: {escape(str(args.to))}{_set_aside(old)}"
        + (f" ({left} dropped rationales left out)" if left else "")
    )
