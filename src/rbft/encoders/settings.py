"""Which video encoder the control `encoder_probe` uses, and what a clip becomes of its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EncoderSettings:
    """How the control `encoder_probe` sees a video; nothing of the encoder is trained.

    Args:
        folder: folder of a video encoder of transformers with its processor (VideoMAE, V-JEPA 2, X-CLIP or
            TimeSformer, weights as safetensors), as `save_pretrained` writes it; None: none, and no such stage.
        features: `ordered` puts the features of each position in time one after another, so that a linear classifier
            has weights of its own for each; `mean` averages over all of them. An average over positions gives a clip
            and its reverse the same features wherever the encoder itself does not know of time (STEP, arXiv
            2503.24298, section I).
    """

    folder: str | None = None
    features: Literal["mean", "ordered"] = "ordered"

    def of(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Features of a clip from those of its positions in time, (T, H) to (T * H,) or (H,)."""
        return positions.reshape(-1) if self.features == "ordered" else positions.mean(0)
