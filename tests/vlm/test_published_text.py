"""With a published tokenizer of 151,936 tokens: labels of all kinds, marks that are no text, and where writing ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.support.models import Loaded, Plain, load, make_clip
from tests.support.published_text import VOCABULARY, build_qwen3_vl
from tests.support.runs import rows, run_experiment, write_clips, write_experiment

from rbft.errors import ConfigError
from rbft.vlm.generation import generate
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt

QUESTION = "Which action does this video show?"
# many words, beginnings of each other, other scripts, digits, signs, capitals
LABELS = (
    "push",
    "push up",
    "push up fast",
    "Push",
    "PUSH UP",
    "a person pushes a wheelchair across the street",
    "俯卧撑",
    "打太极拳",
    "jump 2.5 m",
    "-5",
    "a/b",
    "straße überqueren",
    "🏊 swimming",
    "🏊",
    "don't move!",
)


@pytest.fixture(scope="module")
def folder(tokenizers_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_qwen3_vl(tokenizers_root / "qwen3", tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(folder)


def test_labels_of_all_kinds_are_scored_as_by_full_passes(folder, loaded):
    targets = tuple(loaded.target(QUESTION, label) for label in LABELS)
    tokenizer = loaded.processor._processor.tokenizer
    for label, target in zip(LABELS, targets, strict=True):
        assert target.tolist() == tokenizer(f"{label}<|im_end|>")["input_ids"]
        assert loaded.processor.decode(target) == label
    assert len({tuple(target.tolist()) for target in targets}) == len(LABELS)
    clips = (make_clip(0),)
    scores = LabelScorer(targets)(loaded.vlm, [loaded.inputs(QUESTION, clip) for clip in clips])
    expected = Plain(folder).scores(QUESTION, clips, targets)
    assert float((scores - expected).abs().max()) < 1e-3
    assert scores.argmax(1).tolist() == expected.argmax(1).tolist()


@pytest.mark.parametrize(
    "mark", ["<think>", "</think>", "<tool_call>", "<|fim_prefix|>", "<|im_end|>", "<|video_pad|>"]
)
def test_marks_are_no_text_whatever_the_tokenizer_says_of_them(loaded, mark):
    number = loaded.processor._processor.tokenizer.convert_tokens_to_ids(mark)
    assert number in loaded.processor.special_ids
    with pytest.raises(ConfigError, match="a special token of the model"):
        loaded.target(QUESTION, f"push {mark}")


def test_writing_stops_at_either_end_and_never_writes_a_mark(loaded, monkeypatch):
    vlm, processor = loaded.vlm, loaded.processor
    ends = processor._processor.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert list(processor.end_ids) == ends
    prompt = loaded.inputs(QUESTION, make_clip(0))
    answers = generate(vlm, [prompt], max_new_tokens=24, temperature=5.0, samples=8, banned_ids=processor.special_ids)
    written = {int(token) for answer in answers[0] for token in answer}
    assert max(written) < VOCABULARY and not written & (set(processor.special_ids) - set(ends))
    # a head that always wants the end most is stopped at once, by the first of the two as by the second
    head = vlm.base.get_output_embeddings()
    for end in ends:
        with torch.no_grad():
            hook = head.register_forward_hook(
                lambda _, __, logits, end=end: logits.index_fill(-1, torch.tensor([end]), 1e4)
            )
            assert generate(vlm, [prompt], max_new_tokens=5)[0][0].tolist() == [end]
            hook.remove()


def test_answers_stand_behind_a_thought_that_is_not_asked_for(folder):
    quiet = ClipProcessor(str(folder), None, (("enable_thinking", False),))
    assert quiet.render(Prompt(QUESTION)).endswith("assistant\n<think>\n\n</think>\n\n")
    assert quiet.decode(quiet.target_ids(Prompt(QUESTION), "push up")) == "push up"


@pytest.mark.slow
def test_a_run_of_sixteen_clips(folder, tmp_path):
    clips = write_clips(tmp_path / "clips", {"train": (3, 3), "val": (1, 1), "test": (4, 4)})
    changes = {
        "model": {"template_arguments": {"enable_thinking": False}, "writer": {"max_new_tokens": 6}},
        "stages": {"rationale": {"trainer": {"max_epochs": 1}}},
    }
    run = run_experiment(write_experiment(tmp_path / "run.yaml", clips, folder, changes), tmp_path / "runs")
    predictions = rows(run.folder / "predictions.jsonl")
    assert len(predictions) == 8 and all(value < 0 for row in predictions for value in row["log_likelihoods"])
    adapter = load_file(run.folder / "classification" / "adapter" / "adapter_model.safetensors")
    assert any((value != 0).any() for name, value in adapter.items() if "lora_B" in name)
    texts = [row["text"] for row in rows(run.folder / "write" / "rationales.jsonl")]
    assert texts and not any("<think>" in text for text in texts)
