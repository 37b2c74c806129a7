"""A write stage whose rationales another program writes: frames are decoded here, and no model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from rbft.data.dataset import Example
from rbft.errors import ConfigError
from rbft.rationales.store import RationaleStore
from rbft.rationales.vllm_writer import Frames
from rbft.terminal import steps_shown
from rbft.vlm.loading import model_source

if TYPE_CHECKING:
    from rbft.experiment import Stage
    from rbft.preparation import Prepared
    from rbft.rationales.writer import Attempt, RationaleWriter


def require_elsewhere(stage: Stage, writer: RationaleWriter) -> None:
    """Refuse what another program cannot write, before anything is done.

    Raises:
        ConfigError: There is no such program, or the stage starts from weights that it does not have.
    """
    if stage.kind != "write" or writer.vllm is None:
        return
    writer.vllm.python()
    if stage.weights_from is not None:
        raise ConfigError(
            f"model.writer.vllm writes with the model as it is published, and the stage {stage.name!r} "
            f"starts from the weights of {stage.weights_from!r}; leave it out there."
        )


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
        clip = data.clip(example.record.path)
        sized = {"do_resize": False} if data.spec.sized and processor.whole_cells(clip) else {}
        pixels = clip.frames.permute(0, 2, 3, 1).contiguous().numpy()
        return Frames(pixels, clip.metadata(), {"do_sample_frames": False, **sized})

    model = {"model": model_source(module.name), "revision": module.revision, "dtype": module.dtype_}
    seed, log = int(entry.config["seed_everything"]), folder / "vllm.log"
    found = module.writer.write_elsewhere(model, processor, entry.book, left, frames, author, seed, attempt, log)
    with steps_shown(console) as told:
        for done, rationales in enumerate(found, start=1):
            store.append(rationales, 0)
            told("written by vLLM", done, len(left))
