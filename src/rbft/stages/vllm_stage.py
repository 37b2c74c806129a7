"""A write stage whose rationales another program writes: frames are decoded here, and no model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from rbft.data.dataset import Example
from rbft.rationales.store import RationaleStore
from rbft.rationales.vllm_writer import Frames
from rbft.rationales.writer import Attempt
from rbft.stages.context import Prepared
from rbft.terminal import steps_shown
from rbft.vlm.loading import model_source


def write_elsewhere(
    entry: Prepared,
    left: Sequence[Example],
    attempt: Attempt,
    store: RationaleStore,
    author: str,
    folder: Path,
    console: Console,
) -> None:
    """Have what is left written, and store it as it comes.

    Args:
        entry: The stage.
        left: What is to be written about.
        attempt: Which round this is.
        store: Takes the rationales.
        author: Name of the model.
        folder: The stage's, for the other program's log.
        console: Where to show how far it is.
    """
    module, data, processor = entry.module, entry.datamodule, entry.processor

    def frames(example: Example) -> Frames:
        clip = data.clip(example.record.video)
        sized = {"do_resize": False} if data.spec.sized and processor.whole_cells(clip) else {}
        pixels = clip.frames.permute(0, 2, 3, 1).contiguous().numpy()
        ids = processor.prompt_inputs(example.prompt, clip, sized=data.spec.sized).ids.tolist()
        return Frames(pixels, clip.metadata(), {"do_sample_frames": False, **sized}, ids)

    model = {"model": model_source(module.name), "revision": module.revision, "dtype": module.dtype_}
    seed, log = int(entry.config["seed_everything"]), folder / "vllm.log"
    found = module.writer.write_elsewhere(model, processor, entry.book, left, frames, author, seed, attempt, log)
    with steps_shown(console) as told:
        for done, rationales in enumerate(found, start=1):
            store.append(rationales, 0)
            told("written by vLLM", done, len(left))
