"""What a run was made with: versions, hardware, source revision, and the model's files."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from rbft import __version__
from rbft.data.fingerprint import file_digest
from rbft.vlm.loading import model_source

_PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "transformers",
    "peft",
    "av",
    "jsonargparse",
    "omegaconf",
    "tensorboard",
    "torchmetrics",
    "safetensors",
    "numpy",
    "tokenizers",
)
_WHOLE_FILE_BYTES = 64 * 1024 * 1024


def describe_environment() -> dict[str, Any]:
    """Versions, hardware and the revision of the source tree."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "rbft": __version__,
        "commit": _commit(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "gpus": gpus,
        "cuda": torch.version.cuda if gpus else None,
    }


def _commit(folder: Path) -> str | None:
    """The revision this package runs from; None where it is not in a git checkout."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def model_fingerprint(vlm: str) -> str:
    """Of a local model's files: small files by content, weights by name and size. Hub ids: their name."""
    folder = Path(model_source(vlm))
    if not folder.is_dir():
        return f"hub:{vlm}"
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.iterdir()):
        if path.is_file():
            size = path.stat().st_size
            # hashing tens of gigabytes at every start would cost more than the rare swap it could show
            content = file_digest(path) if size <= _WHOLE_FILE_BYTES else ""
            digest.update(f"{path.name}\0{size}\0{content}\0".encode())
    return digest.hexdigest()
