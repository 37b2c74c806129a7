"""Which prompts are read into one key-value cache: those of unlike length only where padding does no harm."""

from __future__ import annotations

from collections.abc import Sequence

from rbft.vlm.batch import PromptInputs
from rbft.vlm.model import VLM
from rbft.vlm.sharded import is_sharded


def read_together(vlm: VLM, prompts: Sequence[PromptInputs]) -> list[list[int]]:
    """Which of the prompts can be read into one cache with exact results: all of them, or those of one length.

    Args:
        vlm: The model.
        prompts: Any number.

    Returns:
        Their indices in groups.
    """
    if vlm.sees_every_token:
        return [list(range(len(prompts)))]
    if is_sharded(vlm):
        # all processes compute together, so none may have more groups than another
        return [[number] for number in range(len(prompts))]
    groups: dict[int, list[int]] = {}
    for number, prompt in enumerate(prompts):
        groups.setdefault(len(prompt.ids), []).append(number)
    return list(groups.values())
