"""What a loader's process meets reaches the person as the error it is: one line that names the video."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tests.support.runs import write_clips

from rbft.data import worker_errors
from rbft.data.datamodule import VideoDataModule
from rbft.data.dataset import Example
from rbft.data.formats import ClassFolders
from rbft.data.worker_errors import collate_carried, unpack
from rbft.errors import DataError, StorageError, VideoError
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt


@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_that_spoils_while_it_is_used(workers, tmp_path, family_folder):
    root = write_clips(tmp_path / "clips", {"train": (2, 2), "test": (1, 1)})
    data = VideoDataModule(
        str(root), ClassFolders(), num_frames=4, batch_size=1, eval_batch_size=1, num_workers=workers, cache_clips=False
    )
    rows = [Example(record, Prompt("which?")) for record in data.records]
    data.use_processor(ClipProcessor(str(family_folder("qwen2_5_vl"))))
    data.connect(0, 1, predict=rows)
    spoilt = data.records[2].path
    (root / spoilt).write_bytes(b"no video any more")
    loader = iter(data.predict_dataloader())
    with pytest.raises(VideoError) as error:
        for _ in rows:
            batch = data.on_before_batch_transfer(next(loader), 0)
            assert len(batch) == 1
    assert error.value.path == spoilt
    assert str(error.value).startswith(f"{spoilt}: ") and "\n" not in str(error.value)


def test_shared_memory_without_room_is_told_rather_than_waited_for(tmp_path, family_folder, monkeypatch):
    root = write_clips(tmp_path / "clips", {"train": (2, 2), "test": (1, 1)})
    data = VideoDataModule(str(root), ClassFolders(), num_frames=4, eval_batch_size=1, num_workers=1, cache_clips=False)
    data.use_processor(ClipProcessor(str(family_folder("qwen2_5_vl"))))
    data.connect(0, 1, predict=[Example(record, Prompt("which?")) for record in data.records])
    # read by the loader's process, which is forked
    monkeypatch.setattr(worker_errors.shutil, "disk_usage", lambda _: SimpleNamespace(free=9999))
    batch = next(iter(data.predict_dataloader()))
    with pytest.raises(StorageError, match=r"^/dev/shm: a batch of [\d,]+ bytes does not fit into the 9,999 bytes"):
        data.on_before_batch_transfer(batch, 0)


def test_the_first_refusal_of_a_batch_is_handed_on_with_its_kind():
    first, second = VideoError("a.mp4", "is gone"), DataError("another")
    assert collate_carried([first, second]) is first
    with pytest.raises(VideoError, match=r"^a\.mp4: is gone$"):
        unpack(first)
