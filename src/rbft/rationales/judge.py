"""The model that judges rationales outside of a run: as it comes, on a GPU if there is one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rbft.data.records import split_part
from rbft.errors import DataError
from rbft.rationales.checks.base import Judge
from rbft.video.clip import read_clip
from rbft.video.sampling import FrameSampling
from rbft.vlm.batch import PromptInputs
from rbft.vlm.loading import load_model
from rbft.vlm.model import VLM
from rbft.vlm.parity import require_parity
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Plain, Prompt


def load_judge(
    model: str,
    revision: str | None,
    videos: Path | None,
    num_frames: int | None,
    data: Mapping[str, Any],
    template: Mapping[str, Plain] | None = None,
) -> Judge:
    """Load a model to judge with.

    Args:
        model: Folder, hub id or built-in name.
        revision: Revision of a hub id.
        videos: Folder of the videos; None where it judges texts alone.
        num_frames: Frames of a clip; None as `data` says, else 8.
        data: The `data` section of the experiment that the rationales are from.
        template: arguments of the model's chat template.

    Raises:
        DataError: The folder is not there.
        ModelError: The model cannot be had, or answers otherwise than in transformers alone.
    """
    if videos is not None and not videos.is_dir():
        raise DataError(f"--videos {videos}: no such folder.")
    processor = ClipProcessor(model, revision, tuple(sorted((template or {}).items())))
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        loaded = load_model(model, revision, "auto", None)
    require_parity(loaded, processor, model, str(revision))
    vlm = VLM(loaded, processor.pad_id, processor.end_ids).eval()
    if videos is None:
        return Judge(vlm, processor)
    fps = None if num_frames else data.get("fps")
    frames = num_frames or data.get("num_frames") or (None if fps else 8)
    sampling = FrameSampling(num_frames=frames, fps=fps, max_frames=data.get("max_frames", 64))
    spec = processor.clip_spec(sampling, data.get("max_pixels"), data.get("max_visual_tokens"))

    def ask(video: str, prompt: Prompt) -> PromptInputs:
        path, part = split_part(video)
        return processor.prompt_inputs(prompt, read_clip(path, spec.of_part(part), videos), sized=spec.sized)

    return Judge(vlm, processor, ask)
