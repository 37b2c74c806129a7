"""A stage gives the same with and without stored features, and takes only those of its own weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.one_stage import ADAPTER, Stage, equal
from tests.support.runs import write_clips
from tests.support.watch import count_opens, entries

from rbft.vlm.tuning import FullFineTuning, LoRA, Tuning, save_trained


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("stored") / "clips")


@pytest.fixture
def opens(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every opening of a video, once the videos are written."""
    return count_opens(monkeypatch)


@pytest.mark.parametrize("vlm", ["builtin/tiny", "qwen3_vl", "internvl"])
@pytest.mark.parametrize("tuning", [ADAPTER, FullFineTuning()], ids=["adapter", "full"])
def test_training_ends_with_the_same_weights_to_the_last_bit(
    root: Path, tmp_path: Path, opens: list[str], family_folder: Callable[[str], Path], vlm: str, tuning: Tuning
):
    vlm = vlm if "/" in vlm else str(family_folder(vlm))
    plain = Stage(root, tmp_path, tuning, vlm, cache_features=False)
    expected, scored = plain.fit(), plain.module.predictions
    videos = len(plain.data.splits.train) + len(plain.data.splits.val)
    assert len(opens) == 2 * videos, "two epochs"
    opens.clear()
    first = Stage(root, tmp_path, tuning, vlm)
    assert equal(first.fit(), expected)
    assert len(opens) == videos, "the second epoch opens no video"
    assert first.module.predictions == scored
    opens.clear()
    later = Stage(root, tmp_path, tuning, vlm)
    assert equal(later.fit(), expected)
    assert later.module.predictions == scored
    assert opens == []


def test_scores_and_rationales_are_the_same_and_share_what_any_stage_stored(root, tmp_path, opens):
    plain = Stage(root, tmp_path, cache_features=False)
    scored, written = plain.test(), plain.write(tmp_path / "plain")
    Stage(root, tmp_path).write(tmp_path / "first")
    opens.clear()
    assert Stage(root, tmp_path).test() == scored
    assert Stage(root, tmp_path).write(tmp_path / "second") == written
    assert opens == []


def test_worker_processes_train_the_same(root, tmp_path):
    expected = Stage(root, tmp_path, cache_features=False).fit()
    assert equal(Stage(root, tmp_path, num_workers=1).fit(limit_val_batches=0), expected)
    assert equal(Stage(root, tmp_path, num_workers=1).fit(limit_val_batches=0), expected)


@pytest.mark.parametrize(
    "tuning",
    [LoRA(rank=2, vision="train"), LoRA(rank=2, projector="train"), FullFineTuning(vision="train")],
    ids=["vision", "projector", "full"],
)
def test_a_stage_that_trains_the_vision_side_neither_stores_nor_takes_features(root, tmp_path, opens, tuning):
    Stage(root, tmp_path).fit()
    stored = entries(tmp_path / "features")
    opens.clear()
    stage = Stage(root, tmp_path, tuning)
    videos = len(stage.data.splits.train) + len(stage.data.splits.val)
    stage.fit()
    assert stage.module.ready.features is None
    assert len(opens) == 2 * videos
    assert entries(tmp_path / "features") == stored


def test_trained_vision_weights_never_meet_the_features_of_the_old_ones(root, tmp_path, opens):
    Stage(root, tmp_path).test()
    first = Stage(root, tmp_path, FullFineTuning(vision="train"))
    first.fit(max_epochs=1)
    save_trained(first.module.ready.model, tmp_path / "weights")
    # the same module goes on with what it learned, and is told so when a trainer takes it again
    expected = first.test()
    stored = entries(tmp_path / "features")
    opens.clear()
    second = Stage(root, tmp_path, FullFineTuning(vision="train"))
    second.module.start_from(tmp_path / "weights", "first")
    second.module.configure_model()
    for parameter in second.module.ready.parameters():
        parameter.requires_grad_(requires_grad=False)
    assert second.test() == expected
    assert len(opens) == len(second.data.splits.test)
    assert len(entries(tmp_path / "features")) == len(stored) + len(second.data.splits.test)


def test_another_precision_is_another_entry(root, tmp_path):
    counts = []
    for precision in ("32-true", "bf16-mixed", "32-true"):
        stage = Stage(root, tmp_path)
        stage.trainer(precision=precision).test(stage.module, datamodule=stage.data, verbose=False)
        counts.append(len(entries(tmp_path / "features")))
    videos = len(stage.data.splits.test)
    assert counts == [videos, 2 * videos, 2 * videos]
