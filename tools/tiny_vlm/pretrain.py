"""Makes the built-in model from nothing: python -m tools.tiny_vlm.pretrain --out FOLDER --minutes 30 --seed 0."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, Qwen2_5_VLForConditionalGeneration

from rbft.errors import ConfigError
from tools.tiny_vlm.architecture import build_model
from tools.tiny_vlm.language_phase import train_language
from tools.tiny_vlm.progress import Budget
from tools.tiny_vlm.tokenizer import save_processor
from tools.tiny_vlm.vision_phase import train_vision

# Shares of the time: vision alone, language on a frozen vision tower, both.
VISION, LANGUAGE, JOINT = 0.25, 0.4, 0.35


def pretrain(
    out: Path,
    minutes: float,
    seed: int,
    *,
    steps: int | None = None,
    checkpoints: Sequence[float] = (),
    vision: Path | None = None,
) -> list[float]:
    """Trains a model and saves it with its processor.

    Args:
        out: Folder to write to; must be new or empty.
        minutes: CPU minutes of one thread for all phases. The phases end by time, so a faster machine does more steps
            and the same seed gives the same clips and questions but not the same weights.
        seed: Fixes initialisation, clips and questions.
        steps: Optimiser steps of all phases, in place of minutes.
        checkpoints: Also keep the model when these shares of the two phases with words are done, as `at-<per cent>` in
            `out`, and as `after-vision` before them: describers that know less.
        vision: A model folder whose vision tower is taken as it is; its phase is left out, and so is its share.

    Returns:
        The loss of every step of the language phases.

    Raises:
        ConfigError: `out` holds something, `minutes` or `steps` is not positive, or a share is not between 0 and 1.
    """
    if minutes <= 0 or (steps is not None and steps <= 0):
        raise ConfigError(f"--minutes {minutes}, --steps {steps}: both must be positive.")
    if wrong := [share for share in checkpoints if not 0 < share < 1]:
        raise ConfigError(f"--checkpoints {wrong[0]}: a share of the training lies between 0 and 1.")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"--out {out} is not empty. Name a new folder.")

    def budget(name: str, share: float) -> Budget:
        return Budget(name, minutes * share) if steps is None else Budget(name, steps * share, "steps")

    def keep(name: str) -> Callable[[], None]:
        return lambda: save(model, out / name)

    model = build_model(seed)
    if vision is None:
        train_vision(model, budget("vision", VISION), seed)
        if checkpoints:
            save(model, out / "after-vision")
    else:
        trained = AutoModelForImageTextToText.from_pretrained(vision)
        model.model.visual.load_state_dict(trained.model.visual.state_dict())
    losses = train_language(
        model,
        budget("language", LANGUAGE),
        budget("joint", JOINT),
        seed,
        at={share: keep(f"at-{round(100 * share)}") for share in checkpoints},
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
    parser = argparse.ArgumentParser(prog="python -m tools.tiny_vlm.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; new or empty")
    parser.add_argument("--minutes", type=float, default=30.0, help="CPU minutes of one thread (default 30)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="optimiser steps, in place of minutes")
    parser.add_argument(
        "--checkpoints",
        type=float,
        nargs="*",
        default=(),
        metavar="SHARE",
        help="keep the model at these shares of the phases with words, too, for example 0.3 0.6",
    )
    parser.add_argument("--vision", type=Path, help="take the vision tower of this model folder; skip its phase")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pretrain(args.out, args.minutes, args.seed, steps=args.steps, checkpoints=args.checkpoints, vision=args.vision)


if __name__ == "__main__":
    main()
