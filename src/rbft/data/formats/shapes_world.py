"""The built-in domain: videos that are made where they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.class_folders import ClassFolders
from rbft.data.records import VideoRecord
from rbft.files import read_jsonl

ARBITRARY = ("dax", "wug", "zep", "kib", "fob", "mip", "tov", "gan")
"""Words that no model knows, for classes whose names shall not help."""


@dataclass(frozen=True)
class ShapesWorld(DatasetFormat):
    """Moving shapes as `root/{train,val,test}/<class>/*.mp4`, written on first use; the same settings, the same bytes.

    Args:
        domain: `pairs`: a class is one ordered pair of actions; `unions`: a class is any of four events; `wide_unions`:
            any of six; `relations`: a class is how the doings of two objects relate; `majority`: a class is what most
            of their doings are.
        style: `plain` backgrounds, or `textured` ones.
        seed: seed of the clips.
        train_per_class: Training videos of a class, from which the shots are drawn.
        val_per_class: Validation videos of a class.
        test_per_class: Test videos of a class.
        events_shown: How many of the events of a class training and validation videos show; test videos show all. With
            the default those of `wide_unions` show four of six; 6 shows all.
        names: `known`: the words of the domain, of which the built-in model knows those of `pairs` and `unions`;
            `arbitrary`: words that mean nothing to it.
    """

    domain: Literal["pairs", "unions", "relations", "majority", "wide_unions"] = "pairs"
    style: Literal["plain", "textured"] = "plain"
    seed: int = 0
    train_per_class: int = 16
    val_per_class: int = 8
    test_per_class: int = 40
    events_shown: int = 4
    names: Literal["known", "arbitrary"] = "known"

    def label_names(self, root: Path) -> tuple[str, ...] | None:
        """The classes in the domain's order where they have words of no meaning; else as any other data set's."""
        from rbft.worlds.events import CLASSES

        return ARBITRARY[: len(CLASSES[self.domain])] if self.names == "arbitrary" else None

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
            events_shown=self.events_shown,
        )

    def read(self, root: Path) -> list[VideoRecord]:
        """The videos, sorted by split, class and path, each with the true `description` of what it shows."""
        from rbft.worlds.domain import TRUTH_FILE
        from rbft.worlds.events import CLASSES

        descriptions = {row["path"]: row["description"] for _, row in read_jsonl(root / TRUTH_FILE)}
        words = dict(zip(CLASSES[self.domain], self.label_names(root) or CLASSES[self.domain], strict=True))
        return [
            replace(record, label=words[record.label], text={"description": descriptions[record.path]})
            for record in ClassFolders().read(root)
        ]
