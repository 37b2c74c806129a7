"""The configuration of a stage: merged from files, layer and flags; wrong keys are answered with the right one."""

from __future__ import annotations

import json

import lightning as L
import pytest

from rbft.data.formats import UCF101, ClassFolders
from rbft.errors import ConfigError
from rbft.objectives.classification import ClassificationObjective
from rbft.objectives.joint import JointObjective
from rbft.pipeline.stage_cli import StageCLI
from rbft.vlm.tuning import FullFineTuning, LoRA

BASE = {"data": {"root": "/nowhere", "num_frames": 4}}


@pytest.fixture
def stage(tmp_path):
    """The stage of some files, then flags."""

    def make(*contents: dict, flags: tuple[str, ...] = ()) -> StageCLI:
        args: list[str] = []
        for number, content in enumerate(({**BASE}, *contents)):
            path = tmp_path / f"{number}.yaml"
            path.write_text(json.dumps(content))
            args += ["--config", str(path)]
        return StageCLI([*args, *flags])

    return make


def test_settings_reach_module_and_data(stage):
    made = stage(
        {
            "data": {"shots": 3, "batch_size": 2, "frames": "random", "max_pixels": 4096},
            "model": {"vlm": "x/y", "optim": {"lr": 0.5}, "writer": {"samples": 2, "temperature": 0.7}},
            "trainer": {"max_epochs": 7},
            "seed_everything": 5,
        }
    )
    data, module = made.datamodule, made.model
    assert (data.shots, data.batch_size, data.frames, data.max_pixels) == (3, 2, "random", 4096)
    assert (module.name, module.optim.lr, module.writer.samples) == ("x/y", 0.5, 2)
    assert made.config.seed_everything == 5


@pytest.mark.parametrize("text", ["2024-13-45", "0b", "!!int", "!!bool x", "!!timestamp x", "9" * 5000, "[" * 3000])
def test_what_yaml_cannot_read_is_text(stage, text):
    assert stage({}, flags=("--model.prompts.label_question", text)).model.prompts.label_question == text
    with pytest.raises(ConfigError, match=r"data\.num_frames"):
        stage({}, flags=("--data.num_frames", text))


def test_a_layer_beats_files_and_a_flag_beats_a_layer(stage):
    layer = ("--config", json.dumps({"data": {"num_frames": 8}, "trainer": {"max_epochs": 2}}))
    assert stage().datamodule.spec.sampling.num_frames == 4
    assert stage({"data": {"num_frames": 6}}).datamodule.spec.sampling.num_frames == 6
    assert stage({"data": {"num_frames": 6}}, flags=layer).datamodule.spec.sampling.num_frames == 8
    made = stage({"data": {"num_frames": 6}}, flags=(*layer, "--data.num_frames", "10"))
    assert made.datamodule.spec.sampling.num_frames == 10
    assert made.config.trainer.max_epochs == 2
    assert made.datamodule.root.as_posix() == "/nowhere", "what a layer does not name stays"


def test_stages_share_a_parser_and_nothing_else(stage):
    first = stage({"data": {"num_frames": 6}, "model": {"tuning": {"class_path": "LoRA"}, "optim": {"lr": 0.5}}})
    before, plain = first.resolved(), stage()
    assert plain.parser is first.parser
    assert (plain.datamodule.spec.sampling.num_frames, plain.model.optim.lr) == (4, 1e-4)
    assert plain.resolved() != before == first.resolved()


def test_values_refer_to_each_other_across_files(stage):
    made = stage({"trainer": {"max_epochs": "${data.num_frames}"}}, {"data": {"batch_size": "${trainer.max_epochs}"}})
    assert (made.config.trainer.max_epochs, made.datamodule.batch_size) == (4, 4)
    made = stage({"data": {"batch_size": "${data.num_frames}"}}, flags=("--data.num_frames", "6"))
    assert made.datamodule.batch_size == 6, "a reference follows what a flag says"


def test_a_reference_to_nothing_is_named(stage):
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs: Interpolation key 'data\.nothing' not found"):
        stage({"trainer": {"max_epochs": "${data.nothing}"}})


def test_class_names_suffice(stage):
    made = stage(
        {
            "model": {
                "objective": {"class_path": "JointObjective", "init_args": {"alpha": 0.3}},
                "tuning": {"class_path": "FullFineTuning", "init_args": {"vision": "train"}},
            }
        },
        flags=("--data.format", "UCF101"),
    )
    assert isinstance(made.model.objective, JointObjective)
    assert made.model.objective.alpha == 0.3
    assert made.model.tuning == FullFineTuning(vision="train")
    assert isinstance(made.datamodule.format, UCF101)
    plain = stage({"model": {"objective": "ClassificationObjective"}})
    assert isinstance(plain.model.objective, ClassificationObjective)
    assert plain.model.tuning == LoRA()
    assert isinstance(plain.datamodule.format, ClassFolders)


FLAGS = {
    "--data.num_framse": "data.num_frames",
    "--data.num_frame": "data.num_frames",
    "--data.num": None,
    "--modl.vlm": "model.vlm",
    "--model.optm.lr": "model.optim.lr",
    "--trainer.max_epoch": "trainer.max_epochs",
    "--variannt": "variant",
    "--xyzzy": None,
}


@pytest.mark.parametrize("flag", FLAGS)
def test_wrong_flags_are_answered_with_the_right_one(stage, flag):
    with pytest.raises(ConfigError, match=rf"unrecognized arguments: {flag} 3") as caught:
        stage(flags=(flag, "3"))
    if (right := FLAGS[flag]) is not None:
        assert str(caught.value).endswith(f"Did you mean {right}?")


KEYS = [
    ({"data": {"num_framess": 3}}, "data.num_frames"),
    ({"data": {"batchsize": 3}}, "data.batch_size"),
    ({"model": {"optim": {"learning_rate": 1}}}, "model.optim.lr"),
    ({"model": {"writer": {"sample": 2}}}, "model.writer.samples"),
    ({"model": {"prompts": {"hints": "blind"}}}, "model.prompts.hint"),
    ({"trainer": {"max_epoch": 3}}, "trainer.max_epochs"),
    ({"modle": {"vlm": "x"}}, "model.vlm"),
    ({"varient": "x"}, "variant"),
    ({"model": {"objective": {"class_path": "JointObjective", "init_args": {"alhpa": 0.3}}}}, "alpha"),
]


@pytest.mark.parametrize(("content", "right"), KEYS, ids=[right for _, right in KEYS])
def test_wrong_keys_in_files_are_answered_with_the_right_one(stage, content, right):
    with pytest.raises(ConfigError, match=rf"Did you mean {right}\?"):
        stage(content)


CLASSES = [
    ("objective", "JointObjectiv", "did you mean JointObjective?"),
    ("objective", "ClassFolders", "give its whole import path."),
    ("tuning", "LoRa", "did you mean LoRA?"),
    ("tuning", "Nothing", "give its whole import path."),
]


@pytest.mark.parametrize(("key", "name", "advice"), CLASSES)
@pytest.mark.parametrize("spelt", ["bare", "class_path"])
def test_wrong_class_names_get_advice(stage, key, name, advice, spelt):
    with pytest.raises(ConfigError) as caught:
        stage({"model": {key: name if spelt == "bare" else {"class_path": name}}})
    assert str(caught.value).endswith(f"1.yaml, line 1: model.{key}: no class {name!r} is known; {advice}")


VALUES = [
    ({"data": {"batch_size": "many"}}, r'key "data\.batch_size": Expected a .*int.*many'),
    ({"data": {"num_workers": 1.5}}, r"data\.num_workers.*1\.5"),
    ({"model": {"prompts": {"hint": "blnd"}}}, r"model\.prompts\.hint.*'blind', 'hint_stripped', 'hint_kept'.*blnd"),
    ({"model": {"dtype": "float8"}}, r"model\.dtype.*bfloat16.*float8"),
    ({"model": {"scoring": {"max_tokens": 0}}}, r"model\.scoring\.max_tokens: 0 must be at least 1"),
    (
        {"model": {"objective": {"class_path": "JointObjective", "init_args": {"alpha": 3}}}},
        r"1\.yaml, line 1: model\.objective\.alpha: 3",
    ),
    (
        {"model": {"tuning": {"class_path": "LoRA", "init_args": {"rank": 0}}}},
        r"1\.yaml, line 1: model\.tuning: rank must be at least 1",
    ),
    ({"model": {"optim": {"warmup": 2}}}, r"1\.yaml, line 1: model\.optim: betas and warmup lie in"),
    ({"model": {"prompts": {"conclusion": "x"}}}, r"1\.yaml, line 1: model\.prompts\.conclusion: 'x' lacks"),
    ({"data": {"fps": 2}}, "set exactly one of num_frames and fps"),
]


@pytest.mark.parametrize(("content", "message"), VALUES)
def test_wrong_values_are_named_in_one_line(stage, content, message):
    with pytest.raises(ConfigError, match=message) as caught:
        stage(content)
    assert "\n" not in str(caught.value)


def test_what_is_left_in_sys_argv_is_not_read(stage, monkeypatch):
    monkeypatch.setattr("sys.argv", ["rbft", "fit", "--data.num_frames", "99"])
    assert stage().datamodule.spec.sampling.num_frames == 4


def test_the_resolved_configuration_gives_the_same_stage(stage, tmp_path):
    made = stage({"model": {"objective": "JointObjective"}, "trainer": {"max_epochs": "${data.num_frames}"}})
    resolved = made.resolved()
    assert resolved["trainer"]["max_epochs"] == 4
    assert resolved["model"]["optim"]["lr"] == 1e-4
    (tmp_path / "resolved.yaml").write_text(json.dumps(resolved))
    assert StageCLI(["--config", str(tmp_path / "resolved.yaml")]).resolved() == resolved


def test_reading_a_configuration_seeds_nothing_and_makes_no_trainer(stage, monkeypatch):
    monkeypatch.setattr(L, "seed_everything", lambda *_, **__: pytest.fail("seeding is the stage's"))
    made = stage()
    assert getattr(made, "trainer", None) is None


def test_the_trainer_has_the_settings_and_all_callbacks(stage):
    own = {"class_path": "lightning.pytorch.callbacks.Timer"}
    made = stage({"trainer": {"accelerator": "cpu", "devices": 1, "max_epochs": 3, "callbacks": [own]}})
    added = L.Callback()
    trainer = made.make_trainer([added], logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert trainer.max_epochs == 3
    assert added in trainer.callbacks
    assert "Timer" in {type(callback).__name__ for callback in trainer.callbacks}
