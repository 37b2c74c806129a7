"""Makes the built-in model from nothing: python -m rbft.vlm.tiny.pretrain --out FOLDER --minutes 30 --seed 0."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, Qwen2_5_VLForConditionalGeneration

from rbft.errors import ConfigError
from rbft.vlm.tiny.architecture import build_model
from rbft.vlm.tiny.language_phase import train_language
from rbft.vlm.tiny.tokenizer import save_processor
from rbft.vlm.tiny.vision_phase import train_vision

# Shares of the time: vision alone, language on a frozen vision tower, both.
VISION, LANGUAGE, JOINT = 0.25, 0.4, 0.35


def pretrain(
    out: Path, minutes: float, seed: int, *, checkpoints: bool = False, vision: Path | None = None
) -> list[float]:
    """Trains a model and saves it with its processor.

    Args:
        out: Folder to write to; must be new or empty.
        minutes: CPU minutes of one thread for all phases. The phases end by time, so a faster machine does more steps
            and the same seed gives the same clips and questions but not the same weights.
        seed: Fixes initialisation, clips and questions.
        checkpoints: Also keep the model after each phase but the last, as `after-vision` and `after-language` in `out`.
        vision: A model folder whose vision tower is taken as it is; its phase is left out, and so is its time.

    Returns:
        The loss of every step of the language phases.

    Raises:
        ConfigError: `out` holds something, or `minutes` is not positive.
    """
    if minutes <= 0:
        raise ConfigError(f"--minutes is {minutes}; it must be positive.")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"--out {out} is not empty. Name a new folder.")
    model = build_model(seed)
    if vision is None:
        train_vision(model, minutes * VISION, seed)
        if checkpoints:
            save(model, out / "after-vision")
    else:
        trained = AutoModelForImageTextToText.from_pretrained(vision)
        model.model.visual.load_state_dict(trained.model.visual.state_dict())
    losses = train_language(
        model,
        minutes * LANGUAGE,
        minutes * JOINT,
        seed,
        before_joint=(lambda: save(model, out / "after-language")) if checkpoints else None,
    )
    save(model, out)
    return losses


def save(model: Qwen2_5_VLForConditionalGeneration, folder: Path) -> None:
    """Writes model, tokenizer and processor; weights are stored in bfloat16 and load as float32, as the config says."""
    weights = {name: w.bfloat16() for name, w in model.state_dict().items() if name != "lm_head.weight"}  # it is tied
    model.save_pretrained(folder, state_dict=weights)
    save_processor(folder)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m rbft.vlm.tiny.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; new or empty")
    parser.add_argument("--minutes", type=float, default=30.0, help="CPU minutes of one thread (default 30)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", action="store_true", help="keep the model after each phase, too")
    parser.add_argument("--vision", type=Path, help="take the vision tower of this model folder; skip its phase")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pretrain(args.out, args.minutes, args.seed, checkpoints=args.checkpoints, vision=args.vision)


if __name__ == "__main__":
    main()
