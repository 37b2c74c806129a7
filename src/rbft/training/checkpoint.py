"""Trainer checkpoints that are whole or absent, and are read as data only."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from rbft.errors import StageError
from rbft.files import write_atomic


def not_sharded(how: str, strategy: str) -> StageError:
    """The refusal to go on from a place that another trainer.strategy saved."""
    return StageError(f"this stage was interrupted under {how} and cannot go on; set trainer.strategy {strategy}, "
                      "or add --restart.")  # fmt: skip


class AtomicCheckpointIO(CheckpointIO):
    """Saves through a temporary file in the same folder; loads with weights_only.

    Lightning's own saving moves a file from TMPDIR, which is a copy, not a rename, across file systems, and never
    syncs it to disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomic(Path(path), buffer.getvalue())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint of this machine; code inside it is never run.

        Raises:
            StageError: The file is damaged or holds more than data.
        """
        try:
            content: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        except Exception as error:  # torch raises a different class for each kind of damage
            raise StageError(f"{path} cannot be read as a checkpoint ({type(error).__name__}). Remove it to start the "
                             "stage from its beginning.") from error  # fmt: skip
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)
