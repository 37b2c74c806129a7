"""`rbft rationales`: audit, import and export of rationale files."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rich.markup import escape

from rbft.arguments import Parser
from rbft.errors import ConfigError, DataError
from rbft.files import read_yaml, write_json
from rbft.rationales.audit import audit
from rbft.rationales.exchange import (
    Format,
    RationaleFile,
    export_conversations,
    read_rationale_file,
    refuse_untrusted,
    write_rationale_file,
)
from rbft.rationales.prompts import Prompts
from rbft.report.audit import print_audit, write_audit_page
from rbft.terminal import make_console, steps_shown

if TYPE_CHECKING:
    from rbft.rationales.checks.base import Judge

_OWN_NAME = "rationales.jsonl"


def _parser() -> Parser:
    parser = Parser(prog="rbft rationales", description="Audit, import and export rationales.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    shared = Parser(add_help=False)
    shared.add_argument("file", type=Path, help="a rationales.jsonl, or conversations as .json or .jsonl")
    shared.add_argument(
        "--config",
        type=Path,
        help="experiment file or a stage's config.yaml: the prompts that were "
        "used; by default the config.yaml beside a rationales.jsonl",
    )
    shared.add_argument("--label_key", help="key of a conversation's row that names its class")
    shared.add_argument("--conclusion", default="Classification:", help="words before the class in an answer")
    look = commands.add_parser("audit", parents=[shared], help="what a set of rationales is worth")
    look.add_argument("--json", type=Path, help="write all figures here")
    look.add_argument("--html", type=Path, help="write a page here")
    look.add_argument("--model", help="asked which class each rationale argues for: a folder, hub id or builtin/tiny")
    look.add_argument("--revision", help="of a hub id")
    look.add_argument("--videos", type=Path, help="folder of the videos: are the rationales about them?")
    look.add_argument("--num_frames", type=int, help="frames of a clip; as the config says, else 8")
    bring = commands.add_parser("import", parents=[shared], help="take rationales from elsewhere")
    bring.add_argument("--to", type=Path, required=True, help="a .jsonl file, a run folder, or an experiment file")
    give = commands.add_parser("export", parents=[shared], help="write conversations for other tools")
    give.add_argument("--format", choices=get_args(Format), required=True, help="of LLaVA, LLaMA-Factory or ms-swift")
    give.add_argument("--to", type=Path, required=True, help="a .json or .jsonl file")
    give.add_argument("--all", action="store_true", help="those that were dropped, too")
    return parser


def run_rationales(args: Sequence[str]) -> None:
    """Run one of the commands.

    Args:
        args: The command line behind `rbft rationales`; what is left over by `import --to EXPERIMENT` are flags of it.

    Raises:
        RBFTError: With a message for the person who ran it.
    """
    parsed, flags = _parser().parse_known_args(list(args))
    if flags and not (parsed.command == "import" and parsed.to.suffix in (".yaml", ".yml")):
        raise ConfigError(f"rbft rationales {parsed.command}: unknown argument {flags[0]!r}; see --help.")
    {"audit": _audit, "import": _import, "export": _export}[parsed.command](parsed, flags)


def _config(args: argparse.Namespace) -> dict[str, Any] | None:
    """The configuration that was named, or that a write stage left beside its rationales."""
    beside = args.file.parent / "config.yaml"
    path: Path | None = args.config
    if path is None and args.file.name == _OWN_NAME and beside.is_file():
        path = beside
    if path is None:
        return None
    try:
        content = read_yaml(path)
    except DataError as error:
        raise ConfigError(f"--config {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ConfigError(f"--config {path}: it has no key `model`, so it is no experiment.")
    return content


def _prompts(config: dict[str, Any] | None) -> Prompts | None:
    if config is None:
        return None
    values = config["model"].get("prompts") or {}
    known = {field.name for field in dataclasses.fields(Prompts)}
    if not isinstance(values, dict) or not set(values) <= known:
        raise ConfigError(f"model.prompts: expected the keys {', '.join(sorted(known))}.")
    return Prompts(**values)


def _read(args: argparse.Namespace, config: dict[str, Any] | None) -> RationaleFile:
    return read_rationale_file(args.file, _prompts(config), label_key=args.label_key, conclusion=args.conclusion)


def _audit(args: argparse.Namespace, _: Sequence[str]) -> None:
    config = _config(args)
    file = _read(args, config)
    if args.videos is not None and args.model is None:
        raise ConfigError("--videos: name the model that watches them with --model.")
    console = make_console()
    with steps_shown(console) as told:
        judge = None if args.model is None else dataclasses.replace(_judge(args, config), told=told)
        found = audit(str(args.file), file, judge)
    print_audit(found, console)
    if args.json is not None:
        write_json(args.json, found.to_json())
        console.print(f"figures: {escape(str(args.json))}")
    if args.html is not None:
        write_audit_page(args.html, found)
        console.print(f"page: {escape(str(args.html))}")


def _judge(args: argparse.Namespace, config: dict[str, Any] | None) -> Judge:
    """The model as it comes, on a GPU if there is one."""
    import torch

    from rbft.rationales.checks.base import Judge
    from rbft.terminal import quieten
    from rbft.video.clip import read_clip
    from rbft.video.sampling import FrameSampling
    from rbft.vlm.batch import PromptInputs
    from rbft.vlm.loading import load_model
    from rbft.vlm.model import VLM
    from rbft.vlm.processing import ClipProcessor
    from rbft.vlm.prompt import Prompt

    quieten()
    processor = ClipProcessor(args.model, args.revision)
    model = load_model(args.model, args.revision, "auto", None)
    vlm = VLM(model, processor.pad_id, processor.end_ids).eval()
    vlm.to("cuda" if torch.cuda.is_available() else "cpu")
    if args.videos is None:
        return Judge(vlm, processor)
    if not args.videos.is_dir():
        raise DataError(f"--videos {args.videos}: no such folder.")
    data = (config or {}).get("data") or {}
    fps = None if args.num_frames else data.get("fps")
    frames = args.num_frames or data.get("num_frames") or (None if fps else 8)
    sampling = FrameSampling(num_frames=frames, fps=fps, max_frames=data.get("max_frames", 64))
    spec = processor.clip_spec(sampling, data.get("max_pixels"), data.get("max_visual_tokens"))

    def ask(video: str, prompt: Prompt) -> PromptInputs:
        return processor.prompt_inputs(prompt, read_clip(video, spec, args.videos), sized=spec.sized)

    return Judge(vlm, processor, ask)


def _import(args: argparse.Namespace, flags: Sequence[str]) -> None:
    console = make_console()
    if args.to.is_dir() or args.to.suffix in (".yaml", ".yml"):
        from rbft.rationale_import import import_into_run

        import_into_run(args.file, args.to, flags, args.label_key, args.conclusion, console)
        return
    if args.to.suffix != ".jsonl":
        raise ConfigError(f"--to {args.to}: name a .jsonl file, a run folder or an experiment file.")
    file = _read(args, _config(args))
    refuse_untrusted(file.rationales, str(args.file))
    old = write_rationale_file(args.to, file.rationales)
    told = f"; what was there is now {escape(str(old))}" if old is not None else ""
    console.print(f"{len(file.rationales)} rationales of {len(file.book.labels)} classes: {escape(str(args.to))}{told}")


def _export(args: argparse.Namespace, _: Sequence[str]) -> None:
    if args.to.suffix not in (".json", ".jsonl"):
        raise ConfigError(f"--to {args.to}: name a .json or .jsonl file.")
    config = _config(args)
    if config is None:
        raise ConfigError("the questions of the conversations are not known; name the experiment file with --config.")
    file = _read(args, config)
    chosen = [rationale for rationale in file.rationales if args.all or rationale.kept]
    if not chosen:
        raise DataError(f"{args.file}: no rationale is kept; --all exports those that were dropped.")
    old = export_conversations(args.to, chosen, file.book, args.format)
    told = f"; what was there is now {escape(str(old))}" if old is not None else ""
    left = len(file.rationales) - len(chosen)
    make_console().print(
        f"{len(chosen)} conversations: {escape(str(args.to))}{told}"
        + (f" ({left} dropped rationales left out)" if left else "")
    )
