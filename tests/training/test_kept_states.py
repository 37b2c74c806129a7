"""A stage reads what leaves its frozen layers from where it is kept, and ends with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.one_stage import Stage, equal
from tests.support.runs import run_experiment, write_clips, write_experiment
from tests.support.watch import entries

from rbft.errors import ConfigError
from rbft.vlm.lower_layers import LowerLayers
from rbft.vlm.tuning import FullFineTuning, LoRA

UPPER = LoRA(rank=2, dropout=0.1, layers=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("kept") / "clips")


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of every row that the lower layers compute, but for the few on which a model is tried."""
    seen: list[int] = []
    compute = LowerLayers.of_row

    def count(self, **arguments):
        if "mm_encoder_outputs" in arguments:
            seen.append(arguments["input_ids"].shape[1])
        return compute(self, **arguments)

    monkeypatch.setattr(LowerLayers, "of_row", count)
    return seen


@pytest.mark.parametrize("tuning", [UPPER, FullFineTuning(layers=0.25)], ids=["adapter", "full"])
def test_training_ends_with_the_same_weights_to_the_last_bit(root, tmp_path, rows, tuning):
    expected = Stage(root, tmp_path, tuning, batch_size=1, cache_states=False).fit()
    assert rows == [] and not (tmp_path / "states").exists()
    first = Stage(root, tmp_path, tuning, batch_size=1)
    assert equal(first.fit(), expected)
    videos = len(first.data.splits.train) + len(first.data.splits.val)
    assert len(rows) == videos == len(entries(tmp_path / "states")), "the second epoch computes no lower layer"
    assert first.module.ready.states is None, "nothing is held after training"
    assert first.module.kept_visits == (videos, 2 * videos)
    rows.clear()
    later = Stage(root, tmp_path, tuning, batch_size=1)
    assert equal(later.fit(), expected)
    assert rows == [], "nor does a later run"
    assert later.module.kept_visits == (2 * videos, 2 * videos)


def test_batches_and_places_change_nothing(root, tmp_path, rows):
    expected = Stage(root, tmp_path / "both", UPPER).fit()
    videos = len(rows)
    assert equal(Stage(root, tmp_path / "disk", UPPER, state_memory_gb=0).fit(), expected)
    assert equal(Stage(root, tmp_path / "memory", UPPER, state_cache_gb=0).fit(), expected)
    assert len(rows) == 3 * videos and not (tmp_path / "memory" / "states").exists()
    assert equal(Stage(root, tmp_path / "neither", UPPER, state_memory_gb=0, state_cache_gb=0).fit(), expected)
    assert len(rows) == 5 * videos, "each epoch by itself"


@pytest.mark.parametrize(
    ("tuning", "settings"),
    [(UPPER, {"frames": "random"}), (UPPER, {"cache_features": False}), (LoRA(rank=2), {})],
    ids=["frames", "features", "all layers"],
)
def test_nothing_is_kept_where_it_would_not_last(root, tmp_path, rows, tuning, settings):
    stage = Stage(root, tmp_path, tuning, **settings)
    stage.fit(max_epochs=1)
    assert stage.module.kept_visits is None
    assert rows == [] and not (tmp_path / "states").exists()


@pytest.mark.parametrize("key", ["state_memory_gb", "state_cache_gb"])
@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_bounds_are_checked(root, tmp_path, key, value):
    with pytest.raises(ConfigError, match=rf"data\.{key}: .* must be at least 0; data\.cache_states: false"):
        Stage(root, tmp_path, UPPER, **{key: value})


def test_a_stage_and_the_page_say_what_was_saved(tmp_path, root, family_folder):
    config = write_experiment(tmp_path / "tiny.yaml", root, family_folder("qwen2_5_vl"))
    flags = ("--stage", "classification", "--stages.classification.trainer.max_epochs", "2")
    upper = ("--model.tuning.layers", "1", "--data.cache_dir", str(tmp_path / "cache"))
    run = run_experiment(config, tmp_path / "runs", *flags, *upper, method="sft")
    # six training and two validation videos, twice each
    spared = "8 of 16 passes of a row (50%) computed the upper 1 of 2 layers alone; what leaves those below was kept"
    assert f"  {spared}\n" in run.result.out
    tested = run.again("--method", "sft", *flags[2:], *upper)
    assert tested.code == 0, tested.err
    assert f"<li><strong>classification</strong>: {spared}.</li>" in (run.folder / "report.html").read_text()
    whole = run_experiment(config, tmp_path / "whole", *flags, method="sft")
    assert "passes of a row" not in whole.result.out


@pytest.mark.parametrize("kind", ["policy", "self_distil"])
def test_texts_that_are_written_while_it_is_trained_do_not_fill_the_disk(tmp_path, root, family_folder, kind):
    objective = {"class_path": f"{'Policy' if kind == 'policy' else 'SelfDistil'}Objective"}
    objective["init_args"] = {"samples": 2, "max_new_tokens": 4} | ({"anchor": 0.1} if kind == "policy" else {})
    layer = {"kind": kind, "model": {"objective": objective}, "trainer": {"max_epochs": 2}}
    config = write_experiment(tmp_path / "tiny.yaml", root, family_folder("qwen2_5_vl"), {"stages": {"learn": layer}})
    flags = ("--methods.mine", "[learn]", "--model.tuning.layers", "1", "--data.cache_dir", str(tmp_path / "cache"))
    run = run_experiment(config, tmp_path / "runs", *flags, method="mine")
    assert "what leaves those below is computed in every epoch (each step writes its texts)" in run.result.out
    assert not (tmp_path / "cache" / "states").exists()
    # within a step a text is read more than once
    assert "passes of a row" in run.result.out
