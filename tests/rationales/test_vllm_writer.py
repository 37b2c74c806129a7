"""Rationales written by vLLM in another process, by the real worker over a library that stands in for vLLM."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.runs import fit, rows, run_experiment, write_experiment

from rbft.__main__ import main
from rbft.data.dataset import Example
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError, StageError
from rbft.rationales import vllm_writer
from rbft.rationales.vllm_writer import PYTHON, VLLM, Answer, Frames, Request, answers
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt

pytest_plugins = ["tests.support.run_fixtures"]

# What the worker uses of vLLM. It writes the mean of a video's pixels, so that the right frames must have arrived.
LIBRARY = '''
import json, os, types

__version__ = "stand-in"
print("vLLM says much, and some of it where replies belong")


class SamplingParams:
    def __init__(self, *, n, temperature, top_p, max_tokens, stop_token_ids, seed, logit_bias):
        self.__dict__ |= dict(locals())


class LLM:
    def __init__(self, *, trust_remote_code, **settings):
        assert trust_remote_code is False
        with open(os.environ["NOTES"], "a") as notes:
            notes.write(json.dumps(settings) + "\\n")

    def generate(self, prompts, sampling):
        return [self._one(prompt, settings) for prompt, settings in zip(prompts, sampling, strict=True)]

    def _one(self, prompt, settings):
        (frames, video), = prompt["multi_modal_data"]["video"]
        if os.environ.get("FAILS_AT") == str(settings.seed):
            raise RuntimeError("CUDA out of memory")
        assert video["do_sample_frames"] is False and len(video["frames_indices"]) == len(frames)
        with open(os.environ["NOTES"], "a") as notes:
            notes.write(json.dumps([prompt["prompt"], prompt["mm_processor_kwargs"], list(frames.shape),
                                    str(frames.dtype), float(frames.mean()), settings.seed,
                                    sorted(settings.logit_bias)]) + "\\n")
        tokens = prompt["prompt"]
        if (folder := os.environ.get("READS_WITH")) is not None:
            tokens = read(folder, prompt["prompt"], frames, video)
        ids = json.loads(os.environ["WRITES"])
        outputs = [types.SimpleNamespace(index=i, token_ids=tuple(ids), finish_reason="length" if i else "stop")
                   for i in reversed(range(settings.n))]
        return types.SimpleNamespace(outputs=outputs, prompt_token_ids=tokens)


def read(folder, text, frames, video):
    """As vLLM does: frames stand for the place holder of a video; in releases that drop it, with what is around it."""
    import torch
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    start, end, place = processor.vision_start_token, processor.vision_end_token, processor.video_token
    whole = processor(
        text=[f"{start}{place}{end}"], videos=[[torch.from_numpy(frames).permute(0, 3, 1, 2)]],
        video_metadata=[[{k: v for k, v in video.items() if k != "do_sample_frames"}]], do_sample_frames=False,
    )["input_ids"][0]
    expanded = processor.tokenizer.decode(whole)[len(start):-len(end)]
    around = f"{start}{place}{end}" if os.environ["DROPS"] == "1" else place
    return processor.tokenizer(text.replace(around, expanded))["input_ids"]
'''


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stand-in was asked, a line each."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "vllm.py").write_text(LIBRARY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "library"))
    monkeypatch.setenv(PYTHON, sys.executable)
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("WRITES", "[5, 6, 7]")
    return tmp_path / "notes"


def requests(count: int) -> list[Request]:
    return [
        Request(Example(VideoRecord(f"v{i}", f"{i}.mp4", "a"), Prompt("why?")), f"ask {i}", i) for i in range(count)
    ]


def frames_of(example: Example) -> Frames:
    value = int(example.record.id[1:])
    video = {"fps": 4.0, "duration": 1.0, "total_num_frames": 4, "frames_indices": [0, 2]}
    return Frames(np.full((2, 8, 6, 3), value, np.uint8), video, {"do_resize": False}, list(f"ask {value}"))


SAMPLING = {"n": 2, "temperature": 0.7, "top_p": 0.9, "max_tokens": 3, "stop_token_ids": [2], "banned_token_ids": [3]}
MODEL = {"model": "some/model", "revision": "abc", "dtype": "bfloat16"}


def test_answers_come_in_order_about_the_frames_that_were_given(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_writer, "_CHUNK", 2)
    handed: list[Path] = []
    save = np.save

    def noting(path: Path, *args: Any, **settings: Any) -> None:
        # of the chunk before last nothing is left
        handed.append(Path(path))
        assert sum(path.exists() for path in handed) < 4
        save(path, *args, **settings)

    monkeypatch.setattr(np, "save", noting)
    asked = requests(5)
    settings = VLLM(tensor_parallel_size=2, max_model_len=512)
    found = list(answers(settings, MODEL, SAMPLING, asked, frames_of, tmp_path / "vllm.log"))
    assert [request for request, _ in found] == asked
    assert all(texts == [Answer((5, 6, 7), False), Answer((5, 6, 7), True)] for _, texts in found)
    engine, *seen = [json.loads(line) for line in notes.read_text().splitlines()]
    assert engine == {
        **MODEL,
        "limit_mm_per_prompt": {"video": 1, "image": 0},
        "tensor_parallel_size": 2,
        "max_model_len": 512,
        "gpu_memory_utilization": 0.9,
    }
    assert seen == [[f"ask {i}", {"do_resize": False}, [2, 8, 6, 3], "uint8", float(i), i, [3]] for i in range(5)]
    assert not any(path.exists() for path in handed)
    assert "says much" in (tmp_path / "vllm.log").read_text()


def test_what_came_before_a_failure_is_kept_and_the_failure_is_told(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_writer, "_CHUNK", 1)
    monkeypatch.setenv("FAILS_AT", "2")
    got = []
    with pytest.raises(StageError, match=r"exit code 1.*vllm\.log.*CUDA out of memory"):
        for request, _ in answers(VLLM(), MODEL, SAMPLING, requests(4), frames_of, tmp_path / "vllm.log"):
            got.append(request.seed)
    assert got == [0, 1]


def test_an_environment_without_vllm_is_told(notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    with pytest.raises(StageError, match=r"No module named 'vllm'"):
        list(answers(VLLM(), MODEL, SAMPLING, requests(1), frames_of, tmp_path / "vllm.log"))


@pytest.mark.parametrize(("named", "message"), [(None, "say which Python has vLLM"), ("/no/python", "is no program")])
def test_the_program_must_be_named(named: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON, raising=False)
    if named is not None:
        monkeypatch.setenv(PYTHON, named)
    with pytest.raises(ConfigError, match=message):
        VLLM().python()


def test_a_write_stage(
    notes: Path, tmp_path: Path, clips: Path, family_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = family_folder("qwen2_5_vl")
    processor = ClipProcessor(str(folder))
    ids = processor.target_ids(Prompt("why?"), "it turns so moves left").tolist()
    monkeypatch.setenv("WRITES", json.dumps(ids))
    config = write_experiment(tmp_path / "tiny.yaml", clips, folder)
    monkeypatch.setattr("rbft.training.module.load_model", None)  # no model is loaded
    run = run_experiment(config, tmp_path / "runs", "--stage", "write", "--model.writer.vllm", "{}")
    written = rows(run.folder / "write" / "rationales.jsonl")
    assert len(written) == 6
    assert {(row["text"], row["stated"], row["truncated"]) for row in written} == {("it turns", "moves left", False)}
    seen = [json.loads(line) for line in notes.read_text().splitlines()][1:]
    assert len({row[4] for row in seen}) == 6, "each clip has noise of its own"
    assert all(row[1]["do_sample_frames"] is False for row in seen)
    assert all(row[0].count("<|video_pad|>") == 1 for row in seen), "one place holder, not yet filled"


def test_further_attempts_are_asked_of_it_anew(
    notes: Path, tmp_path: Path, clips: Path, family_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"model": {"prompts": {"hint": "blind_then_hint"}, "writer": {"vllm": {}}}}
    config = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), changes)
    monkeypatch.setattr("rbft.training.module.load_model", None)  # no model is loaded
    written = rows(run_experiment(config, tmp_path / "runs", "--stage", "write").folder / "write" / "rationales.jsonl")
    # what it writes states no class, so each video is asked about again, with its label
    assert [(row["hint"], row["sample"], row["kept"]) for row in written] == [
        ("blind", 0, False),
        ("hint_stripped", 1, True),
    ] * 6
    seen = [json.loads(line) for line in notes.read_text().splitlines()]
    asked = [row for row in seen if isinstance(row, list)]
    assert len(seen) - len(asked) == 2, "started once for each attempt"
    assert ["why: moves left" in row[0] for row in asked] == [True] * 6 + [False] * 6
    assert len({row[5] for row in asked}) == 12, "each with random numbers of its own"


@pytest.mark.parametrize("drops", ["1", "0"], ids=["drops the pair", "keeps the pair"])
def test_vllm_reads_the_tokens_that_training_reads(
    drops: str,
    notes: Path,
    tmp_path: Path,
    clips: Path,
    family_folder: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:
    folder = family_folder("qwen3_vl")
    monkeypatch.setenv("READS_WITH", str(folder))
    monkeypatch.setenv("DROPS", drops)
    config = write_experiment(tmp_path / "tiny.yaml", clips, folder, {"model": {"writer": {"vllm": {}}}})
    monkeypatch.setattr("rbft.training.module.load_model", None)  # no model is loaded
    run_experiment(config, tmp_path / "runs", "--stage", "write")
    assert not [str(warning.message) for warning in recwarn if "other tokens" in str(warning.message)]
    asked = [row for row in map(json.loads, notes.read_text().splitlines()) if isinstance(row, list)]
    # the last six are about the videos; before them it was found out how this vLLM reads
    assert {row[0].count("<|vision_start|>") for row in asked[-6:]} == {2 if drops == "1" else 1}
    assert len(asked) == 6 + (2 if drops == "1" else 1)


def test_a_prompt_that_is_read_otherwise_is_told_once(notes: Path, tmp_path: Path) -> None:
    other = [Request(request.example, f"{request.prompt}!", request.seed) for request in requests(2)]
    with pytest.warns(UserWarning, match="about 'v0' as other tokens") as told:
        assert len(list(answers(VLLM(), MODEL, SAMPLING, other, frames_of, tmp_path / "vllm.log"))) == 2
    assert len(told) == 1


def test_weights_of_a_stage_cannot_be_handed_over(
    notes: Path, tmp_path: Path, clips: Path, family_folder: Callable[[str], Path]
) -> None:
    config = write_experiment(
        tmp_path / "tiny.yaml",
        clips,
        family_folder("qwen2_5_vl"),
        {"methods": {"again": ["classification", "write", "test"]}},
    )
    flags = ("--config", config, "--run_root", tmp_path / "runs", "--method", "again", "--model.writer.vllm", "{}")
    result = fit(*flags, "--dry_run")
    assert result.code == 2
    assert "starts from the weights of 'classification'" in result.err


def test_a_file_cannot_name_the_program(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "stages: {write: {}}\nmethods: {w: [write]}\nmethod: w\nmodel: {writer: {vllm: {python: /bin/sh}}}\n"
    )
    assert main(["fit", "--config", str(tmp_path / "x.yaml"), "--dry_run"]) == 2
    assert "python" in capsys.readouterr().err
