"""A frozen video encoder behind one call: from a clip to features of each of its positions in time."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rbft.encoders.loading import KEY, EncoderFiles
from rbft.errors import ModelError
from rbft.vlm.feature_cache import weights_digest

if TYPE_CHECKING:
    from rbft.vlm.loading import DType


class ClipPixels:
    """Makes of sampled frames what an encoder is fed, by its own processor.

    Args:
        files: folder of the encoder.

    Raises:
        ModelError: The folder has no processor, or one that gives frames of another size than the encoder's.
    """

    def __init__(self, files: EncoderFiles) -> None:
        self._processor, self._frames = files.processor, files.frames
        height, width = files.frame_size
        given = self(torch.zeros((files.frames, 3, height + 2, width + 2), dtype=torch.uint8)).shape
        if tuple(given[-2:]) != (height, width):
            raise ModelError(
                f"{KEY}: the processor of {str(files.folder)!r} makes frames of {given[-1]}x{given[-2]} pixels, and "
                f"its encoder reads {width}x{height}; the files do not belong together."
            )

    def __call__(self, frames: Tensor) -> Tensor:
        """Pixels (F, C, H, W) of sampled frames (F, C, H, W) uint8."""
        # a processor of pictures takes a list of them for one video
        given: Any = self._processor(list(frames), return_tensors="pt", **self._as_they_are())
        key = next(key for key in given if key.startswith("pixel_values"))
        pixels: Tensor = given[key]
        return pixels.reshape(self._frames, *pixels.shape[-3:])

    def _as_they_are(self) -> dict[str, Any]:
        return {"do_sample_frames": False} if hasattr(self._processor, "do_sample_frames") else {}

    def fingerprint(self) -> str:
        """A hash of everything here that pixels depend on: settings, and the libraries that act on them."""
        libraries = {name: version(name) for name in ("transformers", "torchvision", "torch")}
        settings = json.dumps([self._processor.to_json_string(), libraries])
        return hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()


class VideoEncoder(nn.Module):
    """A frozen encoder.

    Args:
        files: folder of the encoder.
        dtype: dtype of its weights; `auto` is the checkpoint's own.

    Raises:
        ModelError: Its weights cannot be had, or are not all there.
    """

    def __init__(self, files: EncoderFiles, dtype: DType) -> None:
        super().__init__()
        self._family, self._config = files.family, files.config
        self.model = files.load(dtype)
        self.dtype = files.dtype(dtype)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Features (B, T, H) of each position in time, from pixels (B, F, C, H, W)."""
        return self._family.positions(self.model, self._config, pixels.to(self.dtype)).float()

    def digest(self, *computing: object) -> str:
        """A hash of its weights, and of what else its numbers depend on.

        Args:
            computing: the precision and the hardware that it runs on.
        """
        settings = [self._family.name, self._config.to_json_string(), str(self.dtype), *computing]
        return weights_digest(self.model.state_dict(), settings)
