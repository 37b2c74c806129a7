"""The other side of `vllm_writer`: run by the Python of an environment with vLLM, which need not have this package."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Load the model of the job, then answer one file of requests after the other; docs/scale.md has the protocol."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # what libraries print must not come between the replies
    os.dup2(2, 1)
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))

    # files of this folder have names of the standard library's, such as statistics; Python 3.10 has no safe path
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).parent)]

    import numpy as np
    import vllm

    llm = vllm.LLM(
        model=job["model"],
        revision=job["revision"],
        dtype=job["dtype"],
        trust_remote_code=False,
        limit_mm_per_prompt={"video": 1, "image": 0},
        **job["engine"],
    )
    _say(replies, {"protocol": job["protocol"], "vllm": vllm.__version__})

    def prompt(request: dict[str, Any], text: str) -> dict[str, Any]:
        # (T, H, W, 3) uint8; sampled already, so the processor shall take every frame
        frames = np.load(request["frames"], allow_pickle=False)
        return {
            "prompt": text,
            "multi_modal_data": {"video": [(frames, {**request["video"], "do_sample_frames": False})]},
            "mm_processor_kwargs": request["processor"],
        }

    def sampling(request: dict[str, Any], **changes: Any) -> Any:
        settings = {**job["sampling"], "seed": request["seed"], **changes}
        banned = dict.fromkeys(settings.pop("banned_token_ids"), -100.0)
        return vllm.SamplingParams(logit_bias=banned, **settings)

    def read_as_expected(request: dict[str, Any], text: str) -> bool:
        (result,) = llm.generate([prompt(request, text)], [sampling(request, n=1, max_tokens=1)])
        return bool(_same_prompt(request, result))

    form: int | None = None  # which of a request's texts this vLLM makes the expected tokens of
    for line in sys.stdin:
        requests = json.loads(Path(line.strip()).read_text(encoding="utf-8"))
        if form is None:
            texts = _texts(requests[0])
            right = (i for i, text in enumerate(texts) if len(texts) > 1 and read_as_expected(requests[0], text))
            form = next(right, 0)
        prompts = [prompt(request, _texts(request)[form]) for request in requests]
        results = llm.generate(prompts, [sampling(request) for request in requests])
        for request, result in zip(requests, results, strict=True):
            answers = [
                {"token_ids": list(output.token_ids), "finish_reason": output.finish_reason}
                for output in sorted(result.outputs, key=lambda output: output.index)
            ]
            _say(replies, {"id": request["id"], "answers": answers, "same_prompt": _same_prompt(request, result)})


def _texts(request: dict[str, Any]) -> list[str]:
    return [request["prompt"], *request["other_prompts"]]


def _same_prompt(request: dict[str, Any], result: Any) -> bool:
    """Whether the prompt was read as the tokens that the model's processor makes of it."""
    return list(result.prompt_token_ids) == request["token_ids"]


def _say(replies: Any, content: dict[str, Any]) -> None:
    print(json.dumps(content), file=replies, flush=True)


if __name__ == "__main__":
    main()
