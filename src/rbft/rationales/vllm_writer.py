"""Rationales written by vLLM in a process and an environment of its own, about the very frames that are trained on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from rbft.data.dataset import Example
from rbft.errors import ConfigError, StageError, warn

PYTHON = "RBFT_VLLM_PYTHON"
"""The environment variable that names the Python to run: a configuration file must not be able to start programs."""
PROTOCOL = 1
_CHUNK = 32  # videos handed over at a time; frames of two such chunks are on disk
_WORKER = Path(__file__).with_name("vllm_worker.py")


@dataclass(frozen=True)
class VLLM:
    """Has vLLM write the rationales; the Python with vLLM is named by the environment variable RBFT_VLLM_PYTHON.

    Args:
        tensor_parallel_size: number of GPUs that the model is sharded over.
        max_model_len: Tokens of prompt and answer at most; None: the model's own limit.
        gpu_memory_utilization: Part of each GPU's memory that vLLM takes.
    """

    tensor_parallel_size: int = 1
    max_model_len: int | None = None
    gpu_memory_utilization: float = 0.9

    def __post_init__(self) -> None:
        if self.tensor_parallel_size < 1 or not 0 < self.gpu_memory_utilization <= 1:
            raise ConfigError(
                "model.writer.vllm: tensor_parallel_size must be at least 1, and gpu_memory_utilization lies in (0, 1]."
            )

    def python(self) -> str:
        """The Python to run.

        Raises:
            ConfigError: None is named, or there is no such program.
        """
        named = os.environ.get(PYTHON)
        if not named:
            raise ConfigError(
                f"model.writer.vllm: say which Python has vLLM, for example `export {PYTHON}="
                "/path/to/venv/bin/python`; or leave model.writer.vllm out."
            )
        if shutil.which(named) is None:
            raise ConfigError(f"model.writer.vllm: {PYTHON}={named} is no program that can be run.")
        return named


@dataclass(frozen=True)
class Request:
    """One video to write about.

    Args:
        example: The question.
        prompt: prompt as the model's chat template renders it, with the video's placeholder.
        seed: seed of the sampling.
        other_prompts: Texts of which some version of vLLM makes the tokens that the model's processor makes of
            `prompt`.
    """

    example: Example
    prompt: str
    seed: int
    other_prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frames:
    """What is written about.

    Args:
        pixels: (T, H, W, 3) uint8.
        video: `fps`, `duration`, `total_num_frames` and `frames_indices`, as video processors take them.
        processor: Settings of the model's processor for these frames.
        token_ids: What the model's processor makes of the prompt about them.
    """

    pixels: np.ndarray
    video: dict[str, Any]
    processor: dict[str, Any]
    token_ids: list[int]


@dataclass(frozen=True)
class Answer:
    """One text.

    Args:
        ids: tokens of the text.
        truncated: whether it was cut at the length limit.
    """

    ids: tuple[int, ...]
    truncated: bool


def answers(
    settings: VLLM,
    model: dict[str, str | None],
    sampling: dict[str, Any],
    requests: Sequence[Request],
    frames: Callable[[Example], Frames],
    log: Path,
) -> Iterator[tuple[Request, list[Answer]]]:
    """Answers as they come, in the order of the requests.

    Args:
        settings: settings of vLLM.
        model: Name or folder, revision and dtype.
        sampling: `n`, `temperature`, `top_p`, `max_tokens`, `stop_token_ids` and `banned_token_ids`.
        requests: requests to write about.
        frames: Those of an example's video.
        log: file for the output of the other process.

    Raises:
        ConfigError: There is no Python with vLLM.
        StageError: The other process failed, or answered something else than it was asked; names its log.
    """
    command = [settings.python(), str(_WORKER)]
    with tempfile.TemporaryDirectory(prefix="rbft-vllm-") as made:
        folder = Path(made)
        engine = {key: value for key, value in asdict(settings).items() if value is not None}
        job = {"protocol": PROTOCOL, **model, "engine": engine, "sampling": sampling}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        with _running([*command, str(folder / "job.json")], log) as worker:
            about = worker.read()
            if about.get("protocol") != PROTOCOL:
                raise worker.failed(f"it speaks protocol {about.get('protocol')!r}, not {PROTOCOL}")
            waiting: Sequence[Request] = ()
            for start in range(0, len(requests), _CHUNK):
                chunk = requests[start : start + _CHUNK]
                # decoded and handed over while the chunk before is written about
                worker.send(_hand_over(chunk, start, frames, folder))
                yield from _received(worker, waiting, int(sampling["n"]), folder)
                waiting = chunk
            worker.close()
            yield from _received(worker, waiting, int(sampling["n"]), folder)


def _hand_over(chunk: Sequence[Request], start: int, frames: Callable[[Example], Frames], folder: Path) -> Path:
    """Write the frames and the requests of a chunk."""
    rows = []
    for number, request in enumerate(chunk, start=start):
        clip, saved = frames(request.example), folder / f"{number}.npy"
        np.save(saved, clip.pixels, allow_pickle=False)
        rows.append(
            {
                "id": request.example.record.id,
                "prompt": request.prompt,
                "other_prompts": list(request.other_prompts),
                "token_ids": clip.token_ids,
                "frames": str(saved),
                "video": clip.video,
                "processor": clip.processor,
                "seed": request.seed,
            }
        )
    path = folder / f"requests-{start}.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def _received(
    worker: _Worker, chunk: Sequence[Request], samples: int, folder: Path
) -> Iterator[tuple[Request, list[Answer]]]:
    for request in chunk:
        reply = worker.read()
        answers = reply.get("answers")
        if reply.get("id") != request.example.record.id or not isinstance(answers, list) or len(answers) != samples:
            raise worker.failed(f"its answer about {request.example.record.id!r} is none: {json.dumps(reply)[:200]}")
        try:
            texts = [Answer(tuple(map(int, row["token_ids"])), row["finish_reason"] == "length") for row in answers]
        except (KeyError, TypeError, ValueError) as error:
            raise worker.failed(f"its answer about {request.example.record.id!r} lacks {error}") from error
        if reply.get("same_prompt") is False and not worker.warned:
            worker.warned = True
            warn(
                f"vLLM reads the prompt about {request.example.record.id!r} as other tokens than the model's processor "
                "makes of it, which training and scoring use; texts are written all the same. Another version of vLLM "
                "may agree, and without model.writer.vllm nothing differs.",
            )
        yield request, texts
    if chunk:
        # its frames are written about
        for path in sorted(folder.glob("*.npy"), key=lambda path: int(path.stem))[: len(chunk)]:
            path.unlink()


class _Worker:
    """The other process, as lines in and out."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process, self._log = process, log
        self.warned = False  # of prompts that are read as other tokens
        self._to: IO[str] = process.stdin
        self._from: IO[str] = process.stdout

    def send(self, path: Path) -> None:
        try:
            print(path, file=self._to, flush=True)
        except BrokenPipeError as error:
            raise self.failed("it ended") from error

    def close(self) -> None:
        self._to.close()

    def read(self) -> dict[str, Any]:
        line = self._from.readline()
        if not line:
            raise self.failed(f"it ended with exit code {self._process.wait()}")
        try:
            reply = json.loads(line)
        except ValueError as error:
            raise self.failed(f"it said {line.strip()[:200]!r}") from error
        if not isinstance(reply, dict):
            raise self.failed(f"it said {line.strip()[:200]!r}")
        return reply

    def failed(self, what: str) -> StageError:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = f" Its last line: {lines[-1][:300]}" if lines else ""
        return StageError(
            f"vLLM did not write the rationales: {what}. Look into {self._log}.{last} What was written "
            "is kept; the same command continues."
        )


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[_Worker]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
        try:
            yield _Worker(process, log)
        finally:
            # at the end of its requests it ends by itself; otherwise nobody waits for it
            for stream in (process.stdin, process.stdout):
                if stream is not None and not stream.closed:
                    stream.close()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
