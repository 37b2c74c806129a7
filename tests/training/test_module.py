"""The LightningModule: one model for training, scoring and writing, and every test video in the figures."""

from __future__ import annotations

from collections.abc import Callable

import lightning as L
import pytest
import torch
from tests.support.fitting import Stage, equal, trainer, weights

from rbft.data.datamodule import VideoDataModule
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.data.sampler import Draw
from rbft.errors import ConfigError, ModelError, StageError
from rbft.objectives.base import Objective
from rbft.objectives.classification import ClassificationObjective
from rbft.rationales.store import RationaleStore
from rbft.rationales.writer import RationaleWriter
from rbft.training.module import VLMFineTuner
from rbft.training.optim import OptimSettings
from rbft.vlm.label_scorer import LabelScorer, Scoring
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.tuning import LoRA, save_trained, trained_state

pytest_plugins = ["tests.support.fitting_fixtures"]


@pytest.fixture
def data(stage: Stage) -> VideoDataModule:
    return stage.data


@pytest.fixture
def build(stage: Stage) -> Callable[..., VLMFineTuner]:
    return stage.build


@pytest.fixture
def processor(stage: Stage) -> ClipProcessor:
    return stage.processor


def test_training_is_repeatable_and_moves_what_is_trained_alone(build, data, tmp_path):
    ends = []
    for chance in (1, 2):
        torch.manual_seed(0)
        module = build()
        module.configure_model()
        start, frozen = weights(module), module.ready.base.get_input_embeddings().weight.clone()
        # what drew chance before a step must not matter, or a resumed run would end elsewhere
        torch.manual_seed(chance)
        trainer(tmp_path, limit_val_batches=0).fit(module, datamodule=data)
        assert not equal(weights(module), start)
        assert torch.equal(module.ready.base.get_input_embeddings().weight, frozen)
        ends.append(weights(module))
    assert equal(*ends)


def test_accumulated_batches_make_the_step_of_a_large_batch(build, data, processor, tmp_path):
    ends = []
    for batch_size, accumulate in ((6, 1), (2, 3), (1, 6)):
        L.seed_everything(0, verbose=False)
        data.batch_size = batch_size
        rows = data.dataset("train").examples
        data.use_processor(processor)
        data.connect(0, accumulate, train=rows, val=[])
        module = build(tuning=LoRA(rank=2, dropout=0.0), optim=OptimSettings(lr=1e-2, eps=1e-2, warmup=0.0))
        run = trainer(tmp_path, accumulate_grad_batches=accumulate)
        run.fit(module, datamodule=data)
        assert run.global_step == 1
        ends.append(weights(module))
    for other in ends[1:]:
        difference = max(float((value - other[name]).abs().max()) for name, value in ends[0].items())
        assert difference < 1e-6


class _Lost(Objective):
    def examples(self, records, book, rationales):
        return []

    def loss(self, vlm, batch):
        return next(p for p in vlm.parameters() if p.requires_grad).sum() * torch.nan


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_videos(build, data, tmp_path):
    with pytest.raises(
        ModelError, match=r"the loss became nan at step 0, in the batch of .*\.mp4, .*no learning rate is the cause"
    ):
        trainer(tmp_path).fit(build(objective=_Lost()), datamodule=data)


def test_training_without_objective_is_refused(build, data, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.objective is not set"):
        trainer(tmp_path).fit(build(objective=None), datamodule=data)


def test_frozen_towers_keep_their_mode_while_training(build, data, tmp_path):
    modes = {}

    class Look(L.Callback):
        def on_train_batch_start(self, trainer, module, *_):
            modes["train"] = module.ready.training, module.ready.base.get_encoder(modality="image").training

        def on_validation_batch_start(self, trainer, module, *_):
            modes["val"] = module.ready.training, module.ready.base.get_encoder(modality="image").training

    trainer(tmp_path, callbacks=[Look()]).fit(build(), datamodule=data)
    assert modes == {"train": (True, False), "val": (False, False)}
    trainer(tmp_path, callbacks=[Look()]).fit(build(tuning=LoRA(vision="train")), datamodule=data)
    assert modes["train"] == (True, True)


def test_validation_and_test_score_every_video_in_order(build, data, tmp_path):
    module, run = build(), trainer(tmp_path)
    run.test(module, datamodule=data, verbose=False)
    names = data.labels.names
    assert [p.id for p in module.predictions] == [record.id for record in data.splits.test]
    scorer = LabelScorer(module.scoring.scorer.label_ids)
    for number, prediction in enumerate(module.predictions):
        (item,) = data.dataset("test")[Draw(number, (0,), 1.0, 1.0)]
        row = scorer(module.ready, [item.prompt])[0].double().tolist()
        assert prediction.log_likelihoods == pytest.approx(row, abs=1e-4)
        assert prediction.predicted == names[row.index(max(row))]
        assert prediction.label == data.splits.test[number].label
        assert sum(prediction.probabilities) == pytest.approx(1.0)
    metrics = run.validate(module, datamodule=data, verbose=False)[0]
    right = sum(p.predicted == p.label for p in module.predictions)
    assert len(module.predictions) == len(data.splits.val)
    assert metrics["val/accuracy"] == pytest.approx(right / len(data.splits.val))


def test_scores_can_be_taken_relative_to_a_blank_clip(build, data, tmp_path):
    plain, corrected = build(), build(scoring=Scoring(prior="blank"))
    for module in (plain, corrected):
        trainer(tmp_path).test(module, datamodule=data, verbose=False)
    blank = data.dataset("test").blank()
    prior = LabelScorer(plain.scoring.scorer.label_ids)(plain.ready, [blank])[0].double().tolist()
    assert max(prior) - min(prior) > 0.1
    for found, before in zip(corrected.predictions, plain.predictions, strict=True):
        expected = [score - base for score, base in zip(before.log_likelihoods, prior, strict=True)]
        assert found.log_likelihoods == pytest.approx(expected, abs=1e-4)


def test_figures_of_a_part_never_pass_for_the_whole(build, data, tmp_path):
    with pytest.raises(
        ModelError, match=r"2 of 5 test videos were scored; trainer\.limit_test_batches must not be set"
    ):
        trainer(tmp_path, limit_test_batches=1).test(build(), datamodule=data, verbose=False)


def test_written_rationales_are_stored_and_do_not_depend_on_company(build, data, tmp_path):
    written = []
    for name, size in (("a", 2), ("b", 1)):
        module = build(writer=RationaleWriter(max_new_tokens=4))
        store = RationaleStore(tmp_path / name)
        module.write_to(store, module.writer.attempts("blind")[0])
        data.eval_batch_size = size
        trainer(tmp_path).predict(module, datamodule=data, return_predictions=False)
        written.append({r.id: r.written for r in store.collect(data.splits.test, range(1))})
    assert set(written[0]) == {record.id for record in data.splits.test}
    assert written[0] == written[1]


def test_checkpoints_hold_trained_weights_alone(build, data, tmp_path):
    module, run = build(), trainer(tmp_path, limit_val_batches=0)
    run.fit(module, datamodule=data)
    run.save_checkpoint(tmp_path / "last.ckpt")
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(content["state_dict"]) == {f"vlm.{name}" for name in trained_state(module.ready)}
    assert all("lora_" in name for name in content["state_dict"])


def test_a_stage_starts_from_the_weights_it_is_told(build, tmp_path):
    first = build()
    first.configure_model()
    for value in trained_state(first.ready).values():
        value.add_(1.0)
    save_trained(first.ready.model, tmp_path / "adapter")
    second = build()
    second.start_from(tmp_path / "adapter", "me")
    second.configure_model()
    assert equal(weights(second), weights(first))
    loaded = second.vlm
    second.configure_model()
    assert second.vlm is loaded, "a model is loaded once"
    missing = build()
    missing.start_from(tmp_path / "nothing", "me")
    with pytest.raises(StageError, match="holds no trained weights"):
        missing.configure_model()


def test_weights_that_are_given_back_are_loaded_again(build):
    model = build()
    first = model.load_on(torch.device("cpu"))
    model.unload()
    assert model.vlm is None
    again = model.load_on(torch.device("cpu"))
    assert again is not first
    # adapters without a stage before start from random numbers
    base = {name: value for name, value in first.model.state_dict().items() if "lora_" not in name}
    assert base and all(torch.equal(value, again.model.state_dict()[name]) for name, value in base.items())


def test_activation_checkpointing_gives_the_same_gradients(build, data):
    found = []
    for switch in (False, True):
        torch.manual_seed(0)
        module = build(activation_checkpointing=switch, tuning=LoRA(rank=2, dropout=0.0))
        module.configure_model()
        module.ready.train()
        ClassificationObjective().loss(module.ready, next(iter(data.train_dataloader()))).backward()
        found.append({name: p.grad.clone() for name, p in module.ready.named_parameters() if p.requires_grad})
        assert any(float(value.abs().max()) > 0 for value in found[-1].values())
    for name, value in found[0].items():
        assert torch.allclose(found[1][name], value, atol=1e-6), name


def test_classes_that_are_the_same_tokens_are_refused(stage, monkeypatch):
    module = VLMFineTuner(stage.model_folder)
    monkeypatch.setattr(ClipProcessor, "target_ids", lambda *_: torch.tensor([40, 6]))
    with pytest.raises(ConfigError, match=r"reads the classes .* as the same tokens; set model\.prompts\.label_texts"):
        module.connect(stage.processor, PromptBook(Prompts(), stage.data.labels), 0)
