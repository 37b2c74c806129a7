"""What TensorBoard shows beside the scalars: rationales as text and figures, and confusion matrices."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.support.videos import write_video

from rbft.data.datamodule import VideoDataModule
from rbft.data.labels import LabelSet
from rbft.evaluation.confusion import confusion_picture
from rbft.evaluation.predictions import Prediction
from rbft.rationales.store import Rationale, spread
from rbft.training.logging import ConfusionLogger, log_rationales, log_test
from rbft.training.module import VLMFineTuner

LABELS = LabelSet(("a", "b"))
PREDICTIONS = [
    Prediction("1", "1.mp4", "a", "a", (0.9, 0.1), (-1.0, -3.0)),
    Prediction("2", "2.mp4", "b", "a", (0.6, 0.4), (-1.0, -1.4)),
]


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def rationale(number: int, text: str = "It moves.") -> Rationale:
    return Rationale(str(number), 0, "1.mp4", "a", "00", "blind", "me", text, "a", text, False)


def test_rationales_stand_under_the_frames_they_are_about(tmp_path):
    write_video(tmp_path / "1.mp4", num_frames=6, size=(48, 64))
    data = VideoDataModule(str(tmp_path), num_frames=2, cache_clips=False)
    log_rationales(tmp_path / "log", data, [rationale(0, "<script>$x_1$</script>"), rationale(1)])
    found = events(tmp_path / "log")
    assert found.Tags()["images"] == ["rationales/0", "rationales/1"]
    assert found.Images("rationales/0")[0].encoded_image_string.startswith(b"\x89PNG")
    text = found.Tensors("rationales/0/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "&lt;script&gt;$x\\_1$" in text
    assert "<script>" not in text
    assert "1.mp4" in text


@pytest.mark.parametrize("count", [1, 7, 8, 9, 17, 100])
def test_shown_rationales_are_from_all_over(count):
    shown = [int(r.id) for r in spread([rationale(i) for i in range(count)])]
    assert len(shown) == min(count, 8)
    assert shown == sorted(set(shown))
    assert shown[0] == 0
    if count >= 2 * 8:
        assert shown[-1] >= count / 2
    assert spread([]) == []


def test_a_test_has_two_figures_and_its_numbers_beside_its_settings(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="log")
    metrics = {"test/accuracy": 0.5, "test/macro_f1": None, "test/accuracy_ci95": [0.1, 0.9]}
    settings = {"model": {"vlm": "tiny"}, "seed": 3}
    log_test(SimpleNamespace(loggers=[logger]), tmp_path / "log", PREDICTIONS, LABELS, settings, metrics)
    found = events(tmp_path / "log")
    assert sorted(found.Tags()["images"]) == ["test/confusion", "test/reliability"]
    assert found.Scalars("test/accuracy")[0].value == 0.5 and "test/macro_f1" not in found.Tags()["scalars"]
    session = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"model.vlm" in session and b"tiny" in session and b"seed" in session


def test_confusion_of_each_validation_is_logged_at_its_step(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="log")
    module = VLMFineTuner()
    module.book = SimpleNamespace(labels=LABELS)
    trainer = SimpleNamespace(is_global_zero=True, logger=logger, global_step=7)
    callback = ConfusionLogger()
    callback.on_validation_end(trainer, module)  # nothing predicted yet
    module.predictions = PREDICTIONS
    callback.on_validation_end(SimpleNamespace(**{**vars(trainer), "is_global_zero": False}), module)
    callback.on_validation_end(trainer, module)
    logger.finalize("success")
    found = events(tmp_path / "log")
    (image,) = found.Images("val/confusion")
    assert image.step == 7
    shown = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    expected = confusion_picture(np.array([[1, 0], [1, 0]]), ["a", "b"], "validation, step 7")
    assert np.array_equal(shown, np.asarray(expected))
