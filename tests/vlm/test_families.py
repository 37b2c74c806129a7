"""The tiny models that other tests stand on load like published ones and depend on video and text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.families import FAMILIES, build_family
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

FPS = 5.0
QUESTION = "Which action does this video show?"


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, build_family(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(family: tuple[str, Path]) -> Any:
    return AutoModelForImageTextToText.from_pretrained(family[1]).eval()


@pytest.fixture(scope="module")
def processor(family: tuple[str, Path]) -> Any:
    return AutoProcessor.from_pretrained(family[1])


def clip(seed: int, frames: int = 8) -> torch.Tensor:
    """Smooth random frames (T, C, H, W), so that resizing does not average the content away."""
    coarse = torch.rand((frames, 3, 3, 4), generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.interpolate(coarse, size=(48, 64)) * 255).to(torch.uint8)


def messages(question: str = QUESTION) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]


def render(processor: Any, conversation: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
    return processor.apply_chat_template(
        conversation,
        chat_template=processor.chat_template,
        add_generation_prompt=add_generation_prompt,
        tokenize=False,
    )


def inputs_for(processor: Any, clips: list[torch.Tensor], questions: list[str]) -> Any:
    metadata = [
        [
            {
                "total_num_frames": len(frames),
                "fps": FPS,
                "duration": len(frames) / FPS,
                "frames_indices": list(range(len(frames))),
            }
        ]
        for frames in clips
    ]
    return processor(
        text=[render(processor, messages(question)) for question in questions],
        videos=[[frames] for frames in clips],
        video_metadata=metadata,
        do_sample_frames=False,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )


def last_logits(model: Any, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits[:, -1]


def test_folder_describes_the_real_family(family: tuple[str, Path], model: Any, processor: Any) -> None:
    name, folder = family
    assert AutoConfig.from_pretrained(folder).model_type == name
    assert type(model).__name__.removesuffix("ForConditionalGeneration") == type(processor).__name__.removesuffix(
        "Processor"
    )
    assert 100_000 < sum(parameter.numel() for parameter in model.parameters()) < 600_000
    assert model.config.get_text_config().vocab_size == len(processor.tokenizer)
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id


def test_tokenizer_spells_text_exactly_and_knows_common_words(processor: Any) -> None:
    tokenizer = processor.tokenizer
    text = "HorseRiding 0123: the Person jumps over 9 balls; ¿naïve?\n\tÜber_x"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert 1000 <= len(tokenizer) <= 1024
    assert len(tokenizer(" the person jumps over a wooden door.").input_ids) < 14


def test_clip_stays_cheap(processor: Any) -> None:
    assert inputs_for(processor, [clip(0)], [QUESTION]).input_ids.shape[1] < 170


def test_logits_are_finite_and_depend_on_video_order_and_text(model: Any, processor: Any) -> None:
    reference = last_logits(model, inputs_for(processor, [clip(0)], [QUESTION]))
    assert reference.isfinite().all()
    for other in (
        inputs_for(processor, [clip(1)], [QUESTION]),
        inputs_for(processor, [clip(0).flip(0)], [QUESTION]),
        inputs_for(processor, [clip(0)], ["Which category does this video show?"]),
    ):
        assert (last_logits(model, other) - reference).abs().max() > 0.1


def test_left_padded_batch_generates_what_single_prompts_do(model: Any, processor: Any) -> None:
    clips = [clip(0), clip(1)]
    questions = [QUESTION, "Explain step by step what happens, then name the category."]
    budget = {"min_new_tokens": 6, "max_new_tokens": 6}
    batch = inputs_for(processor, clips, questions)
    assert batch.attention_mask[0, 0] == 0, "the first prompt must be padded for this test to mean anything"
    together = model.generate(**batch, **budget)[:, batch.input_ids.shape[1] :]
    for row, (frames, question) in enumerate(zip(clips, questions, strict=True)):
        single = inputs_for(processor, [frames], [question])
        alone = model.generate(**single, **budget)[0, single.input_ids.shape[1] :]
        assert together[row].tolist() == alone.tolist()


@pytest.mark.parametrize("system", [[], [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}]])
def test_prompt_is_a_prefix_of_the_full_conversation(processor: Any, system: list[dict[str, Any]]) -> None:
    asked = [*system, *messages()]
    answered = [*asked, {"role": "assistant", "content": [{"type": "text", "text": "Archery"}]}]
    prompt, full = render(processor, asked), render(processor, answered, add_generation_prompt=False)
    assert full.startswith(prompt)
    assert full[len(prompt) :].strip().startswith("Archery")
    assert processor.tokenizer.eos_token in full[len(prompt) :]
    assert prompt.count(processor.video_token) == 1


def test_seed_decides_the_weights_and_nothing_else(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    weights = [
        (build_family("qwen2_vl", tmp_path / str(index), seed) / "model.safetensors").read_bytes()
        for index, seed in enumerate((0, 0, 1))
    ]
    assert weights[0] == weights[1] != weights[2]
    assert torch.equal(before, torch.get_rng_state())
