"""A write stage whose rationales vLLM writes: frames are decoded here, and no model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from rbft.data.dataset import Example
from rbft.rationales.store import RationaleStore
from rbft.rationales.vllm_writer import Frames
from rbft.rationales.writer import Attempt
from rbft.stages.read_stage import ReadStage
from rbft.terminal import steps_shown
from rbft.vlm.loading import model_source


def write_elsewhere(
    entry: ReadStage,
    left: Sequence[Example],
    attempt: Attempt,
    store: RationaleStore,
    author: str,
    folder: Path,
    console: Console,
) -> None:
    """Have the missing rationales written, and store each as it comes.

    Args:
        entry: the stage.
        left: examples that still need a rationale.
        attempt: round of writing.
        store: store for the rationales.
        author: name of the model.
        folder: folder of the stage, for vLLM's log.
        console: console to show progress on.
    """
    module, data, processor = entry.module, entry.datamodule, entry.module.processor

    def frames(example: Example) -> Frames:
        clip = data.clip(example.record.video)
        sized = {"do_resize": False} if data.spec.sized and processor.whole_cells(clip) else {}
        pixels = clip.frames.permute(0, 2, 3, 1).contiguous().numpy()
        ids = processor.prompt_inputs(example.prompt, clip, sized=data.spec.sized).ids.tolist()
        return Frames(pixels, clip.metadata(), {"do_sample_frames": False, **sized}, ids)

    model = {"model": model_source(module.name), "revision": module.revision, "dtype": module.dtype_}
    seed, log = entry.seed, folder / "vllm.log"
    written = module.writer.write_elsewhere(model, processor, entry.book, left, frames, author, seed, attempt, log)
    with steps_shown(console) as report:
        for done, rationales in enumerate(written, start=1):
            store.append(rationales, 0)
            report("written by vLLM", done, len(left))
