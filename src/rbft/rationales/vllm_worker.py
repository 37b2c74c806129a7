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
    for line in sys.stdin:
        requests = json.loads(Path(line.strip()).read_text(encoding="utf-8"))
        prompts, sampling = [], []
        for request in requests:
            # (T, H, W, 3) uint8; sampled already, so the processor shall take every frame
            frames = np.load(request["frames"], allow_pickle=False)
            prompts.append(
                {
                    "prompt": request["prompt"],
                    "multi_modal_data": {"video": [(frames, {**request["video"], "do_sample_frames": False})]},
                    "mm_processor_kwargs": request["processor"],
                }
            )
            settings = {**job["sampling"], "seed": request["seed"]}
            banned = dict.fromkeys(settings.pop("banned_token_ids"), -100.0)
            sampling.append(vllm.SamplingParams(logit_bias=banned, **settings))
        for request, result in zip(requests, llm.generate(prompts, sampling), strict=True):
            answers = [
                {"token_ids": list(output.token_ids), "finish_reason": output.finish_reason}
                for output in sorted(result.outputs, key=lambda output: output.index)
            ]
            _say(replies, {"id": request["id"], "answers": answers})


def _say(replies: Any, content: dict[str, Any]) -> None:
    print(json.dumps(content), file=replies, flush=True)


if __name__ == "__main__":
    main()
