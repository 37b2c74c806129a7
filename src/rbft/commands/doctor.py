"""`rbft doctor`: what is installed, what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from rich.markup import escape

from rbft import __version__
from rbft.arguments import Parser
from rbft.errors import ConfigError

State = Literal["ok", "note", "missing"]
EXTRAS = {
    "smolvlm": "SmolVLM and SmolVLM2 as models (model.vlm)",
    "quantize": "base weights in 4 bits (model.quantize); needs an NVIDIA GPU",
    "slurm": "sweeps as Slurm jobs (rbft sweep --launcher slurm)",
    "search": "searches over settings (rbft sweep --search)",
    "ray": "sweeps on a Ray cluster (rbft sweep --launcher ray)",
    "parquet": "tables of clips as .parquet",
    "remote": "clips copied from s3:// and gs:// (rbft fetch)",
    "serve": "a local page for a finished run (rbft serve)",
    "dev": "tests and linters of rbft itself (make test)",
    "bench": "other decoders that benchmarks compare with",
}
"""What each extra of the package is for; a test holds it to the package's own list."""
DECODERS = {
    "h264": "most mp4 and mov files",
    "hevc": "H.265, phones and newer cameras",
    "vp9": "webm",
    "av1": "newer webm and mp4 files",
    "mpeg4": "older avi files",
}
_SHOWN = ("torch", "lightning", "transformers", "peft", "av", "jsonargparse")  # versions that are worth a line
_LEAST_DISK_GB, _LEAST_MEMORY_GB = 5.0, 4.0


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        part: heading that it stands under.
        name: name of what was checked.
        state: `missing`: rbft does not work without it; `note`: rbft works, but with a limitation.
        found: what there is on this machine.
        advice: what to do; empty where all is well.
    """

    part: str
    name: str
    state: State
    found: str
    advice: str = ""


def examine(run_root: Path) -> list[Finding]:
    """Check everything.

    Args:
        run_root: folder that runs would be written to.
    """
    parts: tuple[Callable[[], Iterator[Finding]], ...] = (
        _packages,
        _decoders,
        _gpus,
        _machine,
        lambda: _places(run_root),
        _extras,
    )
    return [finding for part in parts for finding in part()]


def run(args: Sequence[str]) -> int:
    """Carry out the command.

    Returns:
        1 where something that is needed is missing.
    """
    parsed = parser().parse_args(list(args))
    findings = examine(parsed.run_root)
    missing = [finding for finding in findings if finding.state == "missing"]
    if parsed.json:
        print(json.dumps({"ok": not missing, "findings": [asdict(finding) for finding in findings]}, indent=2))
        return 1 if missing else 0

    from rbft.terminal import make_console

    console, marks, part = make_console(alone=True), {"ok": "ok", "note": "note", "missing": "MISSING"}, ""
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        if finding.part != part:
            part = finding.part
            console.print(f"[bold]{escape(part)}[/]")
        colour = {"ok": "green", "note": "yellow", "missing": "red"}[finding.state]
        advice = f"\n{'':11}-> {escape(finding.advice)}" if finding.advice else ""
        console.print(
            f"  [{colour}]{marks[finding.state]:7}[/]  {escape(finding.name):{width}}  {escape(finding.found)}{advice}"
        )
    console.print(
        "nothing that is needed is missing"
        if not missing
        else f"{len(missing)} missing: {escape(', '.join(finding.name for finding in missing))}"
    )
    return 1 if missing else 0


def parser() -> Parser:
    """The command's flags."""
    parser = Parser(
        prog="rbft doctor",
        allow_abbrev=False,
        description="Say what is installed, what is missing and what to do.",
        epilog="Ends with 1 if something needed is missing.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--run_root", type=Path, default=Path("runs"), help="where runs are written (default runs)")
    return parser


def _requirements() -> list[Requirement]:
    """What the package says it needs."""
    return [Requirement(text) for text in importlib.metadata.requires("rbft") or []]


def _trouble(requirement: Requirement) -> str | None:
    """Why a requirement is not met; None where it is."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{version}, but {requirement.specifier} is needed"
    return None


def _packages() -> Iterator[Finding]:
    yield Finding("software", "rbft", "ok", f"{__version__}, Python {platform.python_version()}")
    needed = [
        requirement
        for requirement in _requirements()
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]
    bad = {requirement.name: why for requirement in needed if (why := _trouble(requirement)) is not None}
    install = "pip install --upgrade rbft, or make install in a checkout"
    for name, why in bad.items():
        yield Finding("software", name, "missing", why, install)
    for name in _SHOWN:
        if name not in bad:
            yield Finding("software", name, "ok", importlib.metadata.version(name))
    count = len(needed) - len(bad)
    yield Finding("software", "all packages", "ok" if not bad else "note", f"{count} of {len(needed)} as needed")


def _decoders() -> Iterator[Finding]:
    try:
        import av
        from av.codec.codec import UnknownCodecError
    except ImportError as error:
        yield Finding("video", "av", "missing", f"cannot be imported: {error}", "pip install --force-reinstall av")
        return
    versions = ", ".join(
        f"{name[3:]} {'.'.join(map(str, version))}"
        for name, version in av.library_versions.items()
        if name in ("libavcodec", "libavformat")
    )
    yield Finding("video", "FFmpeg in av", "ok", versions)
    for name, files in DECODERS.items():
        try:
            av.Codec(name, "r")
        except UnknownCodecError:
            yield Finding(
                "video",
                f"decoder {name}",
                "note",
                f"missing: {files} cannot be read",
                "pip install --force-reinstall --only-binary av av",
            )
        else:
            yield Finding("video", f"decoder {name}", "ok", files)


def _gpus() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("GPU", "torch", "missing", f"cannot be imported: {error}", "pip install --force-reinstall torch")
        return
    if torch.backends.mps.is_available():
        yield Finding(
            "GPU",
            "MPS",
            "note",
            "an Apple GPU, which trainer.accelerator auto takes",
            "rbft is not tested on it; set trainer.accelerator cpu where an operation is missing",
        )
        return
    if not torch.cuda.is_available():
        built = "" if torch.version.cuda is not None else "; this torch is built without CUDA"
        driver = shutil.which("nvidia-smi") is not None
        yield Finding(
            "GPU",
            "CUDA",
            "note",
            f"none that torch can use{built}",
            "there is an NVIDIA driver: install the CUDA build of torch (pytorch.org), or a newer driver"
            if driver
            else "the built-in model runs without; real models want one",
        )
        return
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        bfloat = torch.cuda.get_device_capability(number) >= (8, 0)
        device = f"{torch.cuda.get_device_name(number)}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
        yield Finding(
            "GPU",
            f"cuda:{number}",
            "ok" if bfloat else "note",
            device + (", bfloat16" if bfloat else ", no bfloat16"),
            "" if bfloat else "set trainer.precision 16-mixed and model.dtype float32",
        )


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS")
    yield Finding("machine", "CPU cores", "ok", f"{cores}" + (f", OMP_NUM_THREADS={threads}" if threads else ""))
    memory = _free_memory_gb()
    if memory is not None:
        little = memory < _LEAST_MEMORY_GB
        yield Finding(
            "machine",
            "free memory",
            "note" if little else "ok",
            f"{memory:.1f} GB",
            "set data.num_workers 0 and a small data.eval_batch_size" if little else "",
        )


def _free_memory_gb() -> float | None:
    """Available memory in units of 1e9 bytes; None where the system does not report it."""
    file = Path("/proc/meminfo")
    if not file.is_file():
        return None
    match = re.search(r"^MemAvailable:\s+(\d+) kB", file.read_text(), re.MULTILINE)
    return None if match is None else int(match.group(1)) * 1024 / 1e9


def _places(run_root: Path) -> Iterator[Finding]:
    # the same folders that the code uses; where that cannot be imported, its package is reported above
    try:
        from rbft.video.clip_cache import default_folder

        yield _place(
            "kept clips", default_folder(), "name another folder in RBFT_CACHE, or set data.cache_clips false", "note"
        )
    except (ConfigError, ImportError, OSError) as error:
        yield Finding("places", "kept clips", "note", "not known", str(error))
    try:
        from huggingface_hub.constants import HF_HUB_CACHE

        yield _place(
            "models of the hub", Path(HF_HUB_CACHE), "name another folder in HF_HOME, or use local models", "note"
        )
    except ImportError as error:
        yield Finding("places", "models of the hub", "note", "not known", str(error))
    yield _place("runs", run_root, "name another folder with --run_root", "missing")


def _place(name: str, folder: Path, advice: str, otherwise: State) -> Finding:
    """Whether files can be written to a folder, or to where it would be made; makes none."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    shown = f"{folder}" + ("" if there == folder.absolute() else " (not there yet)")
    try:
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"0")
            probe.flush()
    except OSError as error:
        return Finding("places", name, otherwise, f"{shown}: cannot be written to ({error.strerror})", advice)
    free = shutil.disk_usage(there).free / 1e9
    little = free < _LEAST_DISK_GB
    return Finding(
        "places",
        name,
        "note" if little else "ok",
        f"{shown}, {free:.0f} GB free",
        f"little room; {advice}" if little else "",
    )


def _extras() -> Iterator[Finding]:
    for extra, purpose in EXTRAS.items():
        needed = [
            requirement
            for requirement in _requirements()
            if requirement.marker is not None
            and requirement.marker.evaluate({"extra": extra})
            and not requirement.marker.evaluate({"extra": ""})
        ]
        missing = [requirement.name for requirement in needed if _trouble(requirement) is not None]
        if missing:
            yield Finding(
                "extras",
                extra,
                "note",
                f"{purpose}: without {', '.join(missing)}",
                f"pip install 'rbft[{extra}]' if you want it",
            )
        else:
            yield Finding("extras", extra, "ok", purpose)
