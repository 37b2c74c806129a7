"""What a model costs, against the model itself: parameters to the byte, memory as allocated, arithmetic as done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from benchmarks.memory import peak_bytes
from tests.support.families import FAMILIES
from tests.support.models import make_clip
from torch.optim import AdamW
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText

from rbft.vlm import cost, tower
from rbft.vlm.cost import ModelSize, UnknownCostError, model_size
from rbft.vlm.loading import load_config, load_model
from rbft.vlm.master_weights import hold_in_float32
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt
from rbft.vlm.tuning import FullFineTuning, LoRA, Tuning

PROMPT, CLIPS = Prompt("what is it ?"), 8
WHOLE = FullFineTuning(vision="train", projector="train")
TUNINGS = [LoRA(), LoRA(rank=2, dropout=0.0, projector="train"), FullFineTuning(), WHOLE]


def folder_of(name: str, family_folder: Callable[[str], Path]) -> str:
    return name if name.startswith("builtin/") else str(family_folder(name))


def size_of(folder: str, tuning: Tuning, dtype="float32") -> ModelSize:
    return model_size(folder, None, dtype, None, tuning)


class Step:
    """A model set up for training, with a batch of clips and answers."""

    def __init__(self, folder: str, tuning: Tuning, *, checkpointing: bool = False, dtype="float32") -> None:
        model = load_model(folder, None, dtype, None)
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        self.processor = ClipProcessor(folder)
        tuned = tuning.apply(model)
        compute = hold_in_float32(tuned)
        self.vlm = VLM(tuned, self.processor.pad_id, self.processor.end_ids, compute).train()
        self.trained = [parameter for parameter in self.vlm.parameters() if parameter.requires_grad]
        self.optimizer = AdamW(self.trained)
        answer = self.processor.target_ids(PROMPT, "this is the thing that moves and goes on " * 4)
        self.targets = [answer] * CLIPS
        self.prompts = [self.processor.prompt_inputs(PROMPT, make_clip(i, 16)) for i in range(CLIPS)]

    @property
    def pixel_values(self) -> int:
        vision = self.prompts[0].vision
        return sum(value.numel() for key, value in vision.items() if key.startswith("pixel_values"))

    def __call__(self) -> None:
        log_probs, _ = self.vlm.target_log_probs(self.prompts, self.targets)
        (-log_probs.mean()).backward()
        self.optimizer.step()

    def state_bytes(self) -> int:
        """Gradients and moments as they are, without AdamW's step counters."""
        moments = [state[key] for state in self.optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
        return sum(
            t.numel() * t.element_size() for t in [*moments, *(p.grad for p in self.trained if p.grad is not None)]
        )

    def peak_bytes(self) -> int:
        """Most that is allocated at once in the second step, with what was there before it."""
        self()
        before = self.state_bytes() + sum(p.numel() * p.element_size() for p in self.vlm.parameters())
        before += 4 * CLIPS * self.pixel_values
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            self()
        now = most = 0
        events = profiler.profiler.kineto_results.events()
        for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
            now += event.nbytes()
            most = max(most, now)
        return before + most


@pytest.mark.parametrize("name", ["builtin/tiny", *FAMILIES])
@pytest.mark.parametrize("tuning", TUNINGS, ids=lambda tuning: type(tuning).__name__)
def test_parameters_are_those_of_the_model(name, tuning, family_folder: Callable[[str], Path]):
    folder = folder_of(name, family_folder)
    size = size_of(folder, tuning)
    model = tuning.apply(load_model(folder, None, "float32", None))
    parameters = list(model.parameters())
    assert size.parameters == sum(p.numel() for p in parameters)
    assert size.weight_bytes == sum(p.numel() * p.element_size() for p in parameters)
    trained = [p for p in parameters if p.requires_grad]
    assert size.trained_parameters == sum(p.numel() for p in trained) and size.trained_tensors == len(trained)
    assert size.vision_trained == (tuning is not TUNINGS[0] and tuning is not TUNINGS[2])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tuning", TUNINGS, ids=lambda tuning: type(tuning).__name__)
def test_training_state_is_that_of_the_optimiser(tuning, dtype, family_folder: Callable[[str], Path]):
    folder = str(family_folder("qwen2_5_vl"))
    step = Step(folder, tuning, dtype=dtype)
    step()
    size = size_of(folder, tuning, dtype)
    held = sum(p.numel() * p.element_size() for p in step.vlm.parameters())
    assert size.weight_bytes + size.master_bytes == held
    assert (size.master_bytes > 0) == (dtype == "bfloat16" and tuning is not TUNINGS[0])
    # weights that no clip here makes use of have neither gradient nor moments
    idle = sum(p.numel() * p.element_size() for p in step.trained if p.grad is None)
    assert size.training_state == step.state_bytes() + 3 * idle


@pytest.mark.parametrize("name", ["builtin/tiny", "qwen2_5_vl", "smolvlm"])
@pytest.mark.parametrize(
    "tuning", [LoRA(), FullFineTuning(), WHOLE, FullFineTuning(layers=0.5)], ids=["lora", "language", "whole", "upper"]
)
@pytest.mark.parametrize(
    ("checkpointing", "dtype"), [(False, "float32"), (True, "float32"), (False, "bfloat16")], ids=str
)
def test_memory_of_a_step_is_within_a_factor_of_two(
    name, tuning, checkpointing, dtype, family_folder: Callable[[str], Path]
):
    folder = folder_of(name, family_folder)
    step = Step(folder, tuning, checkpointing=checkpointing, dtype=dtype)
    size, answer = size_of(folder, tuning, dtype), len(step.targets[0])
    row = len(step.prompts[0].ids) + answer
    visual = step.processor.count_visual_tokens(step.prompts[0].ids)
    told = (
        size.weight_bytes
        + size.master_bytes
        + size.half_copies
        + size.training_state
        + size.training_activations(CLIPS, row, answer, checkpointing=checkpointing)
        + size.vision_activations(step.pixel_values, CLIPS, training=True, checkpointing=checkpointing)
        + size.features(CLIPS * visual)
    )
    assert 0.85 < told / step.peak_bytes() < 2


@pytest.mark.parametrize("name", FAMILIES)
def test_arithmetic_is_that_of_the_model(name, family_folder: Callable[[str], Path]):
    step = Step(str(family_folder(name)), FullFineTuning())
    size = size_of(str(family_folder(name)), FullFineTuning())
    prompt, answer = step.prompts[:1], step.targets[:1]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        step.vlm.target_log_probs(prompt, answer)
    visual = step.processor.count_visual_tokens(prompt[0].ids)
    told = size.read_flops(len(prompt[0].ids) + len(answer[0]), len(answer[0])) + size.head_flops(len(answer[0]))
    told += size.vision_flops(step.pixel_values, visual)
    assert 0.6 < told / counter.get_total_flops() < 1.4


def test_cached_keys_and_values(family_folder: Callable[[str], Path]):
    step = Step(str(family_folder("llava_onevision")), LoRA())
    with torch.no_grad():
        cache, *_, rows = step.vlm.prefix(step.prompts[:2])
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert size_of(str(family_folder("llava_onevision")), LoRA()).kv_cache(rows.ids.numel()) == held


def test_no_weights_are_loaded(monkeypatch, family_folder: Callable[[str], Path]):
    folder = family_folder("qwen3_vl")
    whole = size_of(str(folder), LoRA())
    hidden = folder / "model.safetensors"
    hidden.rename(folder / "hidden")
    try:
        assert size_of(str(folder), LoRA()) == whole
    finally:
        (folder / "hidden").rename(hidden)


def test_half_precision_halves_what_is_not_trained(family_folder: Callable[[str], Path]):
    folder = str(family_folder("internvl"))
    full, half = (size_of(folder, FullFineTuning(), dtype) for dtype in ("float32", "bfloat16"))
    assert full.weight_bytes == 2 * half.weight_bytes and half.element == 2
    assert full.training_state == half.training_state, "what is trained is held in float32"
    assert half.master_bytes == half.trained_bytes / 2 and full.master_bytes == 0
    mixed = model_size(folder, None, "float32", None, FullFineTuning(), mixed=True)
    assert mixed.weight_bytes == full.weight_bytes and mixed.element == 2
    assert mixed.half_copies == half.half_copies > full.half_copies == 0
    # frozen weights in half precision are computed with as they are
    assert size_of(folder, LoRA(), "bfloat16").half_copies == 0
    # adapters stay in full precision
    assert size_of(folder, LoRA(), "bfloat16").trained_bytes == size_of(folder, LoRA()).trained_bytes


def test_attention_that_is_not_fused_costs_its_scores(family_folder: Callable[[str], Path]):
    folder = str(family_folder("qwen2_vl"))
    fused, eager = (model_size(folder, None, "float32", kind, LoRA()) for kind in ("sdpa", "eager"))
    more = [
        eager.training_activations(1, row, 1, checkpointing=False)
        - fused.training_activations(1, row, 1, checkpointing=False)
        for row in (1000, 2000)
    ]
    assert more[0] > 1000 * 1000 * 4 and more[1] == 4 * more[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reading_through_adapters(dtype, tmp_path, family_folder: Callable[[str], Path]):
    """At a length where one layer's activations are more than all else, in layers as wide inside as published ones."""
    config = load_config(str(family_folder("internvl")), None)
    config.text_config.intermediate_size = 6 * config.text_config.hidden_size
    AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path)
    folder, row = str(tmp_path), 2000
    size = size_of(folder, LoRA(), dtype)
    vlm = VLM(LoRA().apply(load_model(folder, None, dtype, None)), 0, (1,)).eval()
    ids = torch.full((1, row), 50)

    def read() -> None:
        with torch.no_grad():
            vlm.base(input_ids=ids, use_cache=False, logits_to_keep=1)

    read()
    told = size.reading_activations(1, row)
    assert 0.8 < told / peak_bytes(read) < 1.25
    whole = size_of(folder, FullFineTuning(), dtype).reading_activations(1, row)
    assert told > whole if dtype == "bfloat16" else told == whole


def test_a_family_that_says_nothing_of_its_size(monkeypatch, family_folder: Callable[[str], Path]):
    folder = str(family_folder("qwen2_vl"))
    monkeypatch.setattr(cost, "_language", lambda *_: load_config(folder, None).nothing)
    with pytest.raises(UnknownCostError, match=r"'qwen2_vl' model is not known: .*nothing"):
        size_of(folder, LoRA())
    monkeypatch.undo()
    monkeypatch.setattr(tower, "_is_stack", lambda module: False)
    with pytest.raises(UnknownCostError, match="its vision tower has no stack of layers"):
        size_of(folder, LoRA())
