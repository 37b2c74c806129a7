"""Conversation files as video language models are fine-tuned on: LLaMA-Factory, ms-swift and LLaVA."""

from __future__ import annotations

from pathlib import Path

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.on_disk import require_on_disk
from rbft.data.formats.rows import Row, annotation_file, read_json_objects
from rbft.data.records import Split, VideoRecord, relative_path
from rbft.errors import DataError

_ANSWERING = ("assistant", "gpt", "model", "bot")


class Conversations(DatasetFormat):
    """A .json or .jsonl list of conversations about one video each; the label is read off the last answer.

    Understood are `messages` with role and content (LLaMA-Factory, ms-swift), `conversations` with from and value
    (LLaVA, ShareGPT), and `response` (ms-swift). The video is `video` or the one entry of `videos`. The questions are
    not used: prompts are those of the experiment.

    Args:
        train: File of the training conversations, relative to the data root.
        val: file for validation, if there is one.
        test: file for testing, if there is one.
        conclusion: The words in front of the label, if the answer says more than the label ("Classification:"); where
            they stand several times the last one counts.
        lowercase: Whether labels are lower-cased, for files that write one class in two ways.
        strip_prefix: The start of the video paths to take off (the data root of the machine that wrote the file).
    """

    def __init__(
        self,
        train: str = "train.json",
        val: str | None = None,
        test: str | None = None,
        conclusion: str | None = None,
        lowercase: bool = False,
        strip_prefix: str = "",
    ) -> None:
        self.lists: tuple[tuple[Split, str | None], ...] = (("train", train), ("val", val), ("test", test))
        self.conclusion = conclusion
        self.lowercase = lowercase
        self.strip_prefix = strip_prefix

    def read(self, root: Path) -> list[VideoRecord]:
        """The videos in the order of the files.

        Raises:
            DataError: A conversation has no video, no answer or no label, or videos are not on disk.
        """
        records: list[VideoRecord] = []
        for side, file in self.lists:
            if file is None:
                continue
            for row in read_json_objects(annotation_file(root, file)):
                path = relative_path(_video(row).removeprefix(self.strip_prefix), row.where)
                records.append(VideoRecord(id=path, path=path, label=self._label(row), split=side))
        require_on_disk(root, records, str(root))
        return records

    def _label(self, row: Row) -> str:
        answer = _answer(row)
        if self.conclusion is not None:
            _, conclusion, answer = answer.rpartition(self.conclusion)
            if not conclusion:
                raise DataError(
                    f"{row.where}: the answer does not hold {self.conclusion!r}, after which the label stands."
                )
        label = answer.strip()
        if not label or "\n" in label:
            raise DataError(
                f"{row.where}: the answer {label[:60]!r} is no bare label; set `conclusion` to the words before it."
            )
        return label.lower() if self.lowercase else label


def _video(row: Row) -> str:
    video = row.cells.get("video", row.cells.get("videos"))
    if isinstance(video, list) and len(video) == 1:
        video = video[0]
    if not isinstance(video, str):
        raise DataError(f"{row.where}: expected one path in 'video' or 'videos', found {video!r}.")
    return video


def _answer(row: Row) -> str:
    turns = row.cells.get("messages", row.cells.get("conversations"))
    if turns is None:
        return row.text("response")
    last = turns[-1] if isinstance(turns, list) and turns else None
    if not isinstance(last, dict) or last.get("role", last.get("from")) not in _ANSWERING:
        raise DataError(f"{row.where}: the conversation does not end in an answer (role {' or '.join(_ANSWERING)}).")
    text = last.get("content", last.get("value"))
    if not isinstance(text, str):
        raise DataError(f"{row.where}: the last answer must be text, found {text!r}.")
    return text
