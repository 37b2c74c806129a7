"""The built-in domain: videos that are made where they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.class_folders import ClassFolders
from rbft.data.records import VideoRecord


@dataclass(frozen=True)
class ShapesWorld(DatasetFormat):
    """Moving shapes as `root/{train,val,test}/<class>/*.mp4`, written on first use; the same settings, the same bytes.

    Args:
        domain: `pairs`: a class is one ordered pair of actions; `unions`: a class is any of four events.
        style: `plain` backgrounds, or `textured` ones.
        seed: Of the clips.
        train_per_class: Training videos of a class, from which the shots are drawn.
        val_per_class: Validation videos of a class.
        test_per_class: Test videos of a class.
    """

    domain: Literal["pairs", "unions"] = "pairs"
    style: Literal["plain", "textured"] = "plain"
    seed: int = 0
    train_per_class: int = 16
    val_per_class: int = 8
    test_per_class: int = 40

    def prepare(self, root: Path) -> None:
        """Write the videos if they are not there.

        Raises:
            DataError: `root` holds something else; nothing is changed.
        """
        from rbft.worlds.domain import write_domain

        write_domain(
            root,
            domain=self.domain,
            style=self.style,
            seed=self.seed,
            train_per_class=self.train_per_class,
            val_per_class=self.val_per_class,
            test_per_class=self.test_per_class,
        )

    def read(self, root: Path) -> list[VideoRecord]:
        """The videos, sorted by split, class and path."""
        return ClassFolders().read(root)
