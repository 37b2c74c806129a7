"""Encoding the clips of a stage by a frozen video encoder, each once over all ranks, and kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rbft.data.datamodule import VideoDataModule
from rbft.data.dataset import require_same
from rbft.data.records import VideoRecord
from rbft.data.sampler import Draw
from rbft.data.worker_errors import put_together, unpack
from rbft.encoders.encoder import ClipPixels, VideoEncoder
from rbft.encoders.loading import KEY, EncoderFiles
from rbft.errors import ModelError
from rbft.training.feature_pool import gather_features
from rbft.training.oom_split import is_out_of_memory
from rbft.video.clip_entry import clip_key, content_name
from rbft.video.container import resolve_inside
from rbft.video.content import content_digest
from rbft.vlm.batch import EncodedClip
from rbft.vlm.feature_cache import feature_key, hardware
from rbft.vlm.loading import DType


@dataclass(frozen=True)
class EncoderRow:
    """A clip to encode, or what is kept of it.

    Args:
        number: number of its video.
        weight: 0 for a row that only fills up a rank's batch, else 1.
        key: key that its features are kept under; None where they are not.
        pixels: (F, C, H, W); None where its features are there.
        positions: features (T, H) of its positions in time; None where they are yet to be computed.
    """

    number: int
    weight: float
    key: str | None
    pixels: Tensor | None = None
    positions: Tensor | None = None


class EncoderRows(Dataset[EncoderRow]):
    """Clips as an encoder is fed them; those that were encoded before are not decoded.

    Args:
        records: the videos.
        data: how their clips are read, and where features are kept.
        pixels: what makes pixels of frames.
    """

    def __init__(self, records: Sequence[VideoRecord], data: VideoDataModule, pixels: ClipPixels) -> None:
        self.records, self._data, self._pixels = tuple(records), data, pixels
        self._processing, self._encoder = pixels.fingerprint(), ""

    def use_encoder(self, digest: str) -> None:
        """Take clips that were encoded as `digest` says from where they are kept; before a loader is made."""
        self._encoder = digest

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: Draw) -> EncoderRow:
        record, cache = self.records[draw.clip], self._data.features
        key = self._key(record)
        kept = None if key is None or cache is None else cache.load(key)
        if kept is not None:
            row = EncoderRow(draw.clip, draw.weight, key, positions=kept.features)
        else:
            pixels = self._pixels(self._data.clip(record.video).frames)
            # features of a video that was replaced while it was decoded are nobody's
            row = EncoderRow(draw.clip, draw.weight, key if key == self._key(record) else None, pixels)
        require_same(self._data.root / record.path, self._data.facts[record.path].digest)
        return row

    def _key(self, record: VideoRecord) -> str | None:
        if self._data.features is None:
            return None
        # a video with stored features is refused for the same reasons as one to decode
        resolve_inside(self._data.root, record.path)
        spec = self._data.spec.of_part(record.part)
        content = content_name(content_digest(self._data.root / record.path), self._data.facts[record.path].retimed)
        clip = clip_key(content, spec)
        return feature_key("encoder", clip, spec.control, self._processing, self._encoder)


class ClipEncoder(L.LightningModule):
    """Encodes videos when it predicts.

    Args:
        files: folder of the encoder.
        dtype: dtype of its weights; `auto` is the checkpoint's own.
        data: how clips are read.
        records: videos to encode.
    """

    def __init__(
        self, files: EncoderFiles, dtype: DType, data: VideoDataModule, records: Sequence[VideoRecord]
    ) -> None:
        super().__init__()
        self._files, self._weights_dtype, self._data = files, dtype, data
        self.rows = EncoderRows(records, data, ClipPixels(files))
        self.encoder: VideoEncoder | None = None
        self._encoded: list[tuple[int, NDArray[np.float64]]] = []

    def configure_model(self) -> None:
        """Load the weights once, and tell the rows which kept features belong to them."""
        if self.encoder is None:
            self.encoder = VideoEncoder(self._files, self._weights_dtype)
            computing = [self.trainer.precision, *hardware(self.trainer.strategy.root_device)]
            self.rows.use_encoder(self.encoder.digest(*computing))

    def predict_dataloader(self) -> DataLoader[Any]:
        """The rows of this rank."""
        return self._data.once(self.rows, len(self.rows), partial(put_together, collate=list), self.trainer)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Raise here what a loader's process met."""
        return unpack(batch)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave rows where they are: `predict_step` moves the pixels alone."""
        return batch

    def predict_step(self, batch: list[EncoderRow], batch_idx: int) -> None:
        """Encode the clips of a batch that no features are kept of."""
        fresh = [row for row in batch if row.pixels is not None]
        pixels = [row.pixels for row in fresh if row.pixels is not None]
        encoded = self._encode(torch.stack(pixels).to(self.device)).cpu() if pixels else torch.empty(0)
        self._require_finite(encoded, fresh)
        for row, positions in zip(fresh, encoded, strict=True):
            self._keep(row, positions)
        known = [(row, row.positions) for row in batch if row.positions is not None]
        for row, positions in [*known, *zip(fresh, encoded, strict=True)]:
            if row.weight > 0:
                self._encoded.append((row.number, positions.double().numpy()))

    def gather(self, world_size: int) -> dict[str, NDArray[np.float64]]:
        """Features (T, H) of each video's positions in time by its id, the same on every rank.

        Args:
            world_size: number of processes.
        """
        return gather_features(self._encoded, [record.id for record in self.rows.records], world_size)

    def _encode(self, pixels: Tensor) -> Tensor:
        """Features (B, T, H) of clips, in as many pieces as fit in memory."""
        assert self.encoder is not None, "configure_model has not run"
        try:
            return self.encoder(pixels)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            failed = error
        # outside of the handler, which holds on to the memory of what failed
        if len(pixels) == 1:
            raise ModelError(
                f"{self._files.source.what}: not even one clip fits in the memory of {self.device}; take a smaller "
                "encoder, or set model.dtype to bfloat16."
            ) from failed
        del failed
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(pixels) // 2
        return torch.cat([self._encode(pixels[:half]), self._encode(pixels[half:])])

    def _keep(self, row: EncoderRow, positions: Tensor) -> None:
        if row.key is not None and self._data.features is not None:
            self._data.features.store(row.key, EncodedClip("video", positions, (), False, {}, ""))

    def _require_finite(self, encoded: Tensor, rows: Sequence[EncoderRow]) -> None:
        for row, positions in zip(rows, encoded, strict=True):
            if not bool(torch.isfinite(positions).all()):
                raise ModelError(
                    f"{self.rows.records[row.number].video}: what the encoder makes of the clip is not finite. Numbers "
                    "overflow on the way, or its files are damaged: set model.dtype to float32 and trainer.precision "
                    f"to 32-true, or name another encoder in {KEY}."
                )
