"""Where the time of a stage goes: every moment of its loop belongs to one part, and the parts sum to the whole."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

import lightning as L
import torch
from lightning.pytorch.profilers import Profiler
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from rbft.errors import ConfigError
from rbft.files import write_json
from rbft.runs.names import TENSORBOARD
from rbft.training.module import VLMFineTuner
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor

P = ParamSpec("P")
T = TypeVar("T")

PARTS = {
    "loading": "reading the model",
    "data": "waiting for workers",
    "decode": "videos, or the clip cache",
    "processor": "frames and text to inputs",
    "transfer": "batches to the device",
    "vision": "encoding clips",
    "language": "its layers, forward",
    "head": "head, loss, rest of a step",
    "backward": "gradients, exchanged",
    "optimiser": "updating weights",
    "validation": "scoring, all parts of it",
    "saving": "the checkpoint",
    "other": "logging, progress, idle",
}
"""What a stage's time is divided into, in the order of a step."""

# By the end of Lightning's name for what it does; what happens inside belongs to the innermost part.
_ACTIONS = {
    "_next": "data",
    ".batch_to_device": "transfer",
    ".training_step": "head",
    ".test_step": "head",
    ".predict_step": "head",
    ".backward": "backward",
    ".optimizer_step": "optimiser",
    ".optimizer_zero_grad": "optimiser",
    ".configure_model": "loading",
    "save_checkpoint": "saving",
}
_STEPS = (".training_step", ".test_step", ".predict_step")


class Stopwatch:
    """Divides the time between its making and `seconds` into parts that do not overlap.

    Args:
        now: clock in seconds; on a GPU, it waits for the GPU's work first.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now, self._last = now, now()
        self._open: list[str] = ["other"]
        self._spent: Counter[str] = Counter()

    def _charge(self) -> None:
        now = self._now()
        # what runs inside a validation belongs to it
        part = "validation" if "validation" in self._open else self._open[-1]
        self._spent[part] += now - self._last  # type: ignore[assignment]
        self._last = now

    def begin(self, part: str) -> None:
        """From here on time belongs to `part`, and to the one before it again when this one ends."""
        self._charge()
        self._open.append(part)

    def end(self) -> None:
        """The innermost part is over."""
        self._charge()
        self._open.pop()

    def timed(self, part: str, function: Callable[P, T]) -> Callable[P, T]:
        """`function`, its time charged to `part`."""

        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            self.begin(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.end()

        return run

    def seconds(self) -> dict[str, float]:
        """Time of each part so far."""
        self._charge()
        return dict(self._spent)


class StageProfile(Profiler):
    """Takes the time of one stage on this process, by what the trainer says it does and hooks around the model's parts.

    A GPU is waited for where a part begins and ends, or its time would be charged to whoever waits next. So a profiled
    stage is slower than others, the more so where processes exchange weights while they compute.

    Args:
        configured: `trainer.profiler` of the configuration, which this one would take the place of.

    Raises:
        ConfigError: A profiler is configured already; says what to leave out.
    """

    def __init__(self, configured: object = None) -> None:
        super().__init__()
        if configured is not None:
            raise ConfigError("--profile and trainer.profiler exclude each other; leave one of them out.")
        self.callback = _Hooks(self)
        self.watch: Stopwatch | None = None
        self.batches = 0
        self._now: Callable[[], float] | None = None
        self._undo: list[Callable[[], object]] = []

    def start(self, action_name: str) -> None:
        """The trainer begins something."""
        # before its set-up the trainer starts the other processes and waits for them, which is no part of the loop
        if self.watch is None and self._now is not None and action_name.endswith(".setup"):
            self.watch = Stopwatch(self._now)
        self.batches += action_name.endswith(_STEPS)
        if self.watch is not None and (part := _part_of(action_name)) is not None:
            self.watch.begin(part)

    def stop(self, action_name: str) -> None:
        """It is over."""
        if self.watch is not None and _part_of(action_name) is not None:
            self.watch.end()

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """Around the stage's loop."""

        def now() -> float:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return time.perf_counter()

        self._now = now
        try:
            yield
        finally:
            for undo in self._undo:
                undo()
            self._undo.clear()

    def hook(self, vlm: VLM, processor: ClipProcessor | None) -> None:
        """Measure the parts of a step.

        Args:
            vlm: the model.
            processor: the processor of this process; None where data workers have their own.
        """
        assert self.watch is not None
        watch, decoder = self.watch, vlm.base.get_decoder()
        for name in ("encode", "with_features"):
            self._replace(vlm, name, "vision")
        before = decoder.register_forward_pre_hook(lambda *_: watch.begin("language"))
        after = decoder.register_forward_hook(lambda *_: watch.end())
        self._undo += [before.remove, after.remove]
        for name in ("prompt_inputs", "encoded_inputs", "another") if processor is not None else ():
            self._replace(processor, name, "processor")

    def _replace(self, owner: object, name: str, part: str) -> None:
        assert self.watch is not None
        setattr(owner, name, self.watch.timed(part, getattr(owner, name)))
        self._undo.append(lambda: delattr(owner, name))


class _Hooks(L.Callback):
    """Hooks into the model once it is loaded, and separates validation from training."""

    def __init__(self, profile: StageProfile) -> None:
        self._profile = profile

    def _attach(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, VLMFineTuner)
        workers = trainer.datamodule.num_workers  # type: ignore[attr-defined]
        self._profile.hook(module.ready, module.processor if workers == 0 else None)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Attach."""
        self._attach(trainer, pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Attach."""
        self._attach(trainer, pl_module)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Attach."""
        self._attach(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """All until its end is validation."""
        if self._profile.watch is not None:
            self._profile.watch.begin("validation")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Back to training."""
        if self._profile.watch is not None:
            self._profile.watch.end()


def _part_of(action: str) -> str | None:
    return next((part for ending, part in _ACTIONS.items() if action.endswith(ending)), None)


@contextmanager
def profiled(trainer: L.Trainer, stage: str, folder: Path, console: Console) -> Iterator[None]:
    """Around a stage's loop: if its trainer has a `StageProfile`, report where the time went when it is done.

    Leaves `profile.json` in the stage's folder: the stage, its batches, the data workers and processes, and the seconds
    and share of each part on the first process. A stage that was interrupted reports on its last run.

    Args:
        trainer: trainer of the stage.
        stage: name of the stage.
        folder: folder of the stage.
        console: console to print on.
    """
    profile = trainer.profiler  # type: ignore[attr-defined]
    if not isinstance(profile, StageProfile):
        yield
        return
    with profile.running(trainer.strategy.root_device):
        yield
    assert profile.watch is not None
    spent = profile.watch.seconds()
    workers = trainer.datamodule.num_workers  # type: ignore[attr-defined]
    if workers == 0:
        # nobody else decodes: waiting is decoding
        spent["decode"] = spent.pop("data", 0.0)
    whole = sum(spent.values())
    parts = {name: {"seconds": spent[name], "share": spent[name] / whole} for name in PARTS if spent.get(name)}
    if trainer.is_global_zero:
        about = {
            "stage": stage,
            "seconds": whole,
            "batches": profile.batches,
            "workers": workers,
            "processes": trainer.world_size,
            "device": str(trainer.strategy.root_device),
        }
        write_json(folder / "profile.json", {**about, "parts": parts})
        console.print(_table(stage, parts, profile.batches))
        with SummaryWriter(str(folder / TENSORBOARD)) as writer:
            writer.add_figure("profile", _figure(stage, parts))


def _table(stage: str, parts: dict[str, dict[str, float]], batches: int) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(f"  time of {stage}")
    for name in ("seconds", "share", "ms a batch"):
        table.add_column(name, justify="right")
    table.add_column("")
    for name, values in parts.items():
        each = f"{1000 * values['seconds'] / batches:.1f}" if batches else "-"
        table.add_row(f"  {name}", f"{values['seconds']:.2f}", f"{values['share']:.1%}", each, PARTS[name])
    whole = sum(values["seconds"] for values in parts.values())
    table.add_row("  all", f"{whole:.2f}", f"{1:.1%}", f"{1000 * whole / batches:.1f}" if batches else "-", "")
    return table


def _figure(stage: str, parts: dict[str, dict[str, float]]) -> Figure:
    figure = Figure(figsize=(7, 0.6 + 0.3 * len(parts)), dpi=110, layout="constrained", facecolor="#ffffff")
    axes = figure.subplots()
    names = list(parts)
    bars = axes.barh(names, [parts[name]["seconds"] for name in names], color="#3b6ea8")
    axes.bar_label(bars, [f"{parts[name]['share']:.1%}" for name in names], padding=3, fontsize=8)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.set_title(f"time of {stage}".replace("$", r"\$"), fontsize=10)
    return figure
