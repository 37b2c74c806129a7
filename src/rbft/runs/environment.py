"""What a run was made with: versions, hardware, source revision."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from rbft import __version__

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
    "scikit-learn",
    "safetensors",
    "numpy",
    "tokenizers",
)


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
