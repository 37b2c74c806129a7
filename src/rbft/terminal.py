"""What a run says, and what it keeps its libraries from saying."""

from __future__ import annotations

import logging
import warnings

from rich.console import Console

from rbft.ranks import first_rank


def make_console() -> Console:
    """The terminal of the first process; the others are silent."""
    return Console(quiet=not first_rank(), highlight=False, soft_wrap=True)


def quieten() -> None:
    """Leave the terminal to the plan, the progress and the figures."""
    import transformers

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    for message in (
        ".*does not have many workers.*",  # decoding in this process is a choice
        ".*is_gradient_checkpointing.*",  # peft asks transformers by its old name
        ".*isinstance.treespec, LeafSpec.*",  # lightning asks torch by its old name
        ".*custom batch sampler `EvaluationSampler`.*",  # it does return every index
        ".*predict returned None.*",  # rationales go to the store
        ".*your dataloader is not resumable.*",  # the sampler skips what was computed
        ".*in eval mode at the start of training.*",  # the module sets modes when an epoch starts
        ".*Glyph .* missing from font.*",
    ):
        warnings.filterwarnings("ignore", message=message)
