"""Clips that a data set's own files list: records of those on disk, and a report of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rbft.data.formats.on_disk import MissingPolicy, report_missing
from rbft.data.records import Split, VideoRecord


@dataclass
class ListedClips:
    """Gathers clips in the order they are listed.

    Args:
        records: clips on disk.
        missing: (clip, label) of each that is not.
    """

    records: list[VideoRecord] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)

    def add(
        self,
        clip: str,
        label: str,
        path: str | None,
        split: Split | None,
        *,
        shown: str | None = None,
        group: str | None = None,
        text: Mapping[str, str] | None = None,
    ) -> None:
        """Take one clip.

        Args:
            clip: id in the data set.
            label: name of its class.
            path: path of the file relative to the data root; None if it is not on disk.
            split: split the list is of; None if it says nothing.
            shown: name of a missing clip in the report; by default the id.
            group: what videos of one source share.
            text: what people wrote about the video, by name.
        """
        if path is None:
            self.missing.append((shown or clip, label))
        else:
            self.records.append(VideoRecord(clip, path, label, split, group, text or {}))

    def on_disk(self, source: str, policy: MissingPolicy = "error") -> list[VideoRecord]:
        """The records of the clips on disk.

        Args:
            source: file that lists the clips, for the report.
            policy: what becomes of the others, as in `report_missing`.

        Raises:
            DataError: clips are missing and the policy is `error`.
        """
        report_missing(self.missing, len(self.records) + len(self.missing), source, policy)
        return self.records
