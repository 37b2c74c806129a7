"""What a model is fed: the template's own text, answers with the tokens that generation would have to produce."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.families import FAMILIES
from tests.support.models import Plain, make_clip
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from rbft.errors import ConfigError, ModelError
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt

PROMPT = Prompt("Which action does this video show?")
ANSWERS = ("archery", "The person jumps.\nClassification: push up", "a")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, family_folder: Callable[[str], Path]) -> Path:
    return family_folder(request.param)


@pytest.fixture(scope="module")
def processor(folder: Path) -> ClipProcessor:
    return ClipProcessor(str(folder))


def tokenizer_of(processor: ClipProcessor):
    return processor._processor.tokenizer


def with_template(folder: Path, tmp_path: Path, change: Callable[[str], str]) -> ClipProcessor:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    template = copy / "chat_template.jinja"
    changed = change(template.read_text())
    assert changed != template.read_text()
    template.write_text(changed)
    return ClipProcessor(str(copy))


def test_frames_with_the_tokens_around_a_video(folder, processor):
    assert processor.wraps_frames == (folder.name == "qwen3_vl")
    text = processor.render(PROMPT)
    twice = processor.wrapped_twice(text)
    assert (twice is None) != processor.wraps_frames
    assert twice is None or len(twice) - len(text) == len("<|vision_start|><|vision_end|>")


def test_inputs_are_those_of_the_models_processor(folder, processor):
    for seed, frames in ((0, 4), (1, 8), (2, 5)):
        clip = make_clip(seed, frames)
        expected = Plain(folder).prompt(PROMPT.question, clip)
        found = processor.prompt_inputs(PROMPT, clip)
        assert found.ids.tolist() == expected["input_ids"][0].tolist()
        for key, value in found.vision.items():
            assert torch.equal(value, torch.as_tensor(expected[key])), key
        assert set(found.vision) == set(expected) - {"input_ids", "attention_mask", "mm_token_type_ids"}
        assert processor.count_visual_tokens(found.ids) > frames // 2


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_prompt_and_target_are_the_tokens_of_the_whole_conversation(processor, answer, system):
    prompt = Prompt(PROMPT.question, system)
    start, whole = processor.render(prompt), processor.render(prompt, answer)
    assert whole.startswith(start)
    tokenizer = tokenizer_of(processor)
    before = tokenizer(start, add_special_tokens=False)["input_ids"]
    everything = tokenizer(whole, add_special_tokens=False)["input_ids"]
    target = processor.target_ids(prompt, answer).tolist()
    assert before + target == everything[: len(before) + len(target)]


@pytest.mark.parametrize("answer", ANSWERS)
def test_targets_end_at_the_first_end_token(processor, answer):
    target = processor.target_ids(PROMPT, answer)
    assert target.dtype == torch.long
    assert [int(i) in processor.end_ids for i in target] == [False] * (len(target) - 1) + [True]
    assert processor.decode(target) == answer


def test_targets_do_not_depend_on_the_white_space_a_template_puts_before_an_answer(family_folder, processor, tmp_path):
    # the template published for LLaVA-OneVision writes "assistant " and a line before an answer, but asks for one
    # with "assistant" and a line
    original = ClipProcessor(str(family_folder("llava_onevision")))
    published = with_template(
        family_folder("llava_onevision"),
        tmp_path,
        lambda text: text.replace("{{ message['role'] }}\n", "{{ message['role'] }} \n"),
    )
    prompt = Prompt("Which of push up, archery?")
    start, whole = published.render(prompt), published.render(prompt, "archery")
    assert start.endswith("assistant\n")
    assert not whole.startswith(start)
    for answer in ANSWERS:
        assert published.target_ids(prompt, answer).tolist() == original.target_ids(prompt, answer).tolist()


def test_answers_end_with_the_tokenizers_end_where_the_template_has_none(family_folder, tmp_path):
    folder = family_folder("qwen2_vl")
    endless = with_template(folder, tmp_path, lambda text: text.replace("<|im_end|>\n{% endfor", " \n{% endfor"))
    for answer in ANSWERS:
        expected = [*tokenizer_of(endless)(answer)["input_ids"], tokenizer_of(endless).eos_token_id]
        assert endless.target_ids(PROMPT, answer).tolist() == expected


def test_a_template_that_drops_answers_is_refused(family_folder, tmp_path):
    folder = family_folder("qwen2_vl")
    silent = with_template(
        folder,
        tmp_path / "b",
        lambda text: text.replace("in messages %}", "in messages if message['role'] != 'assistant' %}"),
    )
    with pytest.raises(ModelError, match="leaves answers out of a conversation"):
        silent.target_ids(PROMPT, "archery")


THOUGHT = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% if quiet %}\n</think>\n\n{% endif %}"


def test_a_prompt_that_ends_inside_a_thought_is_refused(family_folder, tmp_path):
    thinking = with_template(
        family_folder("qwen2_vl"),
        tmp_path,
        lambda text: text.replace("{% if add_generation_prompt %}<|im_start|>assistant\n", THOUGHT),
    )
    with pytest.raises(ModelError, match=r"opens a thought \(<think>\).*model\.template_arguments.*enable_thinking"):
        thinking.render(PROMPT)
    quiet = ClipProcessor(str(tmp_path / "model"), None, (("quiet", True),))
    assert quiet.render(PROMPT).endswith("</think>\n\n")
    # the answer stands after the thought, not in it, and is what a model of such prompts writes
    assert quiet.decode(quiet.target_ids(PROMPT, "archery")) == "archery"
    assert quiet.target_ids(PROMPT, "archery").tolist() == tokenizer_of(quiet)("archery<|im_end|>")["input_ids"]


@pytest.mark.parametrize("written", ["by the template", "by the tokenizer", "by both"])
def test_a_text_begins_once(family_folder, tmp_path, written):
    folder = Path(shutil.copytree(family_folder("qwen2_vl"), tmp_path / "model"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"bos_token": "<|endoftext|>"})
    if written != "by the template":
        begin = ("<|endoftext|>", tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[begin]
        )
    tokenizer.save_pretrained(folder)
    if written != "by the tokenizer":
        path = folder / "chat_template.jinja"
        path.write_text("{{ bos_token }}" + path.read_text())
    processor = ClipProcessor(str(folder))
    about = processor.prompt_inputs(PROMPT, make_clip(0))
    kept = processor.another(Prompt("What else?"), about)
    alone = processor.prompt_inputs(Prompt("Which label?", video=False), None)
    for ids in (about.ids, kept.ids, alone.ids):
        assert (ids == tokenizer.bos_token_id).nonzero().flatten().tolist() == [0]


def test_a_template_without_a_place_for_video_is_refused(family_folder, tmp_path):
    blind = with_template(
        family_folder("internvl"), tmp_path, lambda text: text.replace("<video>", "").replace("<IMG_CONTEXT>", "")
    )
    with pytest.raises(ModelError, match=r"has no place for one\. Choose a video model"):
        blind.prompt_inputs(PROMPT, make_clip(0))


def test_special_tokens_in_texts_are_refused_by_name(processor):
    assert len(processor.special_tokens) >= 4
    for token in processor.special_tokens:
        with pytest.raises(ConfigError) as question:
            processor.render(Prompt(f"Is it {token}?"))
        assert str(question.value).startswith("prompt: ")
        assert repr(token) in str(question.value)
        with pytest.raises(ConfigError) as answer:
            processor.target_ids(PROMPT, f"so {token} it is")
        assert str(answer.value).startswith("answer: ")
        assert repr(token) in str(answer.value)


def test_special_tokens_in_the_system_turn_are_refused(processor):
    with pytest.raises(ConfigError, match=r"^system: "):
        processor.render(Prompt("Which?", system=f"You are {processor.special_tokens[0]}"))


def test_decode_drops_special_tokens_and_control_characters(processor):
    tokenizer = tokenizer_of(processor)
    text = "a\x1b[31mred\x07 b\u202e\u200b\r\n\tc\x9b"
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], *processor.special_ids, processor.end_ids[0]]
    assert processor.decode(torch.tensor(ids)) == "a[31mred b\nc"


def test_frames_sized_beforehand_stay_as_they_are(processor):
    clip = make_clip(0, frames=4)  # 48 x 64: three by four cells of 16 pixels
    free = processor.cell is not None
    assert processor.cell in (16, None)
    found = processor.prompt_inputs(PROMPT, clip, sized=True)
    if free:
        assert found.vision["video_grid_thw"].tolist() == [[2, 6, 8]]
    else:
        usual = processor.prompt_inputs(PROMPT, clip)
        assert found.ids.tolist() == usual.ids.tolist()


def test_a_prompt_about_a_video_needs_its_clip(processor):
    with pytest.raises(ValueError, match="needs its clip"):
        processor.prompt_inputs(PROMPT, None)


def test_saved_processors_load_again(processor, tmp_path):
    processor.save(str(tmp_path))
    # the configuration is the model's, and is saved with it
    for name in ("config.json", "generation_config.json"):
        source = Path(processor._processor.tokenizer.name_or_path) / name
        shutil.copy(source, tmp_path / name)
    again = ClipProcessor(str(tmp_path))
    clip = make_clip(0)
    assert again.prompt_inputs(PROMPT, clip).ids.tolist() == processor.prompt_inputs(PROMPT, clip).ids.tolist()
    assert again.special_ids == processor.special_ids
