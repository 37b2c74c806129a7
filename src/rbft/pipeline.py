"""`rbft fit`: check everything, print the plan, run the stages in order, skip what is done."""

from __future__ import annotations

import gc
import logging
import shlex
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from rich.console import Console
from rich.markup import escape

from rbft import stages
from rbft.cli import StageCLI
from rbft.data.datamodule import VideoDataModule
from rbft.environment import describe_environment, model_fingerprint
from rbft.errors import ConfigError, DataError, StageError
from rbft.experiment import Experiment, Stage
from rbft.files import read_json, set_aside, write_atomic, write_json
from rbft.lineage import (
    StageRecord,
    changed_keys,
    fingerprint,
    hash_outputs,
    read_record,
    verify_outputs,
    write_record,
)
from rbft.plan import print_plan, probe_videos
from rbft.ranks import first_rank, wait_for_all
from rbft.rationales.prompts import PromptBook
from rbft.training.callbacks import GracefulStop
from rbft.training.module import VLMFineTuner
from rbft.vlm.processing import ClipProcessor

_STARTED = "started.json"
# Of Lightning's settings those that leave batches as they are; weights in half precision are loaded so by model.dtype.
_PRECISIONS = ("None", "32", "32-true", "16", "16-mixed", "bf16", "bf16-mixed")
# What of the configuration shapes a stage's result, by what the stage does. Learning rates do not shape rationales,
# and the number of devices shapes nothing that a finished stage would have to be repeated for.
_MODEL_KEYS = ("vlm", "revision", "dtype", "attn_implementation", "prompts")
_SAMPLING_KEYS = ("num_frames", "fps", "max_frames", "max_pixels")
_TRAINING_MODEL_KEYS = ("tuning", "objective", "optim")
_TRAINING_DATA_KEYS = ("frames", "batch_size")
_TRAINING_TRAINER_KEYS = ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val",
                          "gradient_clip_algorithm", "limit_train_batches")  # fmt: skip


@dataclass
class Prepared:
    """A stage whose configuration was read and checked.

    Args:
        stage: Which.
        cli: Its module and data.
        config: Its resolved configuration.
        book: The experiment's prompts for the data set's classes.
        processor: The model's processor.
        inputs: What its result depends on.
        fingerprint: Of `inputs`.
        rationale_samples: Rationales a video that it trains on; 0 where it needs none.
    """

    stage: Stage
    cli: StageCLI
    config: dict[str, Any]
    book: PromptBook
    processor: ClipProcessor
    inputs: dict[str, Any]
    fingerprint: str
    rationale_samples: int

    @property
    def module(self) -> VLMFineTuner:
        """The stage's LightningModule."""
        module: VLMFineTuner = self.cli.model
        return module

    @property
    def datamodule(self) -> VideoDataModule:
        """The stage's LightningDataModule."""
        data: VideoDataModule = self.cli.datamodule
        return data


def print_help() -> None:
    """Every key of an experiment file as a flag."""
    StageCLI(["--help"])


def _quieten() -> None:
    """Leave the terminal to the plan, the progress and the figures."""
    import transformers

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    for message in (
        ".*does not have many workers.*",  # decoding in this process is a choice
        ".*is_gradient_checkpointing.*",  # peft asks transformers by its old name
        ".*isinstance.treespec, LeafSpec.*",  # lightning asks torch by its old name
        ".*custom batch sampler `EvaluationSampler`.*",  # it does return every index
        ".*predict returned None.*",  # rationales go to the store
        ".*your dataloader is not resumable.*",  # the sampler skips what was computed
        ".*in eval mode at the start of training.*",  # the module sets modes when an epoch starts
        ".*Glyph .* missing from font.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def _console() -> Console:
    return Console(quiet=not first_rank(), highlight=False, soft_wrap=True)


def _inputs(stage: Stage, config: dict[str, Any], data: VideoDataModule, done: dict[str, str]) -> dict[str, Any]:
    """Everything a stage's result depends on, as plain values."""
    model, trainer = config["model"], config["trainer"]
    keys = {"model": list(_MODEL_KEYS), "data": list(_SAMPLING_KEYS), "trainer": ["precision"]}
    if stage.kind == "write":
        keys["model"].append("writer")
        videos = data.fingerprint("train")
    elif stage.trains:
        keys["model"] += _TRAINING_MODEL_KEYS
        keys["data"] += _TRAINING_DATA_KEYS
        keys["trainer"] += _TRAINING_TRAINER_KEYS
        videos = data.fingerprint("train")
    else:
        videos = data.fingerprint("train", "test")
    return {
        "kind": stage.kind,
        "seed": config["seed_everything"],
        "model": {key: model[key] for key in keys["model"]} | {"files": model_fingerprint(model["vlm"])},
        "data": {key: config["data"][key] for key in keys["data"]} | {"videos": videos},
        "trainer": {key: trainer[key] for key in keys["trainer"]},
        "weights": done.get(stage.weights_from or ""),
        "rationales": done.get(stage.rationales_from or ""),
    }


def _check_precision(cli: StageCLI) -> None:
    precision = cli.config["trainer"]["precision"]
    if str(precision) not in _PRECISIONS:
        raise ConfigError(f"trainer.precision: {precision!r} is not supported; use one of {', '.join(_PRECISIONS[1:])}."
                          " For weights in half precision set model.dtype, for example to bfloat16.")  # fmt: skip


def prepare(experiment: Experiment, console: Console) -> list[Prepared]:
    """Read and check all stages before any model is loaded.

    Raises:
        RBFTError: Anything that would make a stage fail or its result worthless.
    """
    clis = [StageCLI(experiment.arguments(stage)) for stage in experiment.stages]
    processors: dict[tuple[str, str | None], ClipProcessor] = {}
    probed: set[tuple[Path, str]] = set()
    found: list[Prepared] = []
    books = []
    for stage, cli in zip(experiment.stages, clis, strict=True):
        data: VideoDataModule = cli.datamodule
        _check_precision(cli)
        books.append(PromptBook(cli.model.prompts, data.labels))
        splits = data.splits
        if stage.kind != "test" and not splits.train:
            raise DataError(f"the stage {stage.name!r} needs training videos, and this split has none.")
        if stage.kind == "test" and not splits.test:
            raise DataError(f"the stage {stage.name!r} needs test videos, and this split has none; "
                            "give the data set a test split or lower data.shots and data.val_fraction.")  # fmt: skip
        records = [record for record in (*splits.train, *splits.val, *splits.test)
                   if (data.root, record.path) not in probed]  # fmt: skip
        probe_videos(data.root, records, console)
        probed |= {(data.root, record.path) for record in records}
    done: dict[str, str] = {}
    samples: dict[str, int] = {}
    for stage, cli, book in zip(experiment.stages, clis, books, strict=True):
        module: VLMFineTuner = cli.model
        key = (module.name, module.revision)
        if key not in processors:
            processors[key] = ClipProcessor(*key)
        config = cli.resolved()
        seed = int(config["seed_everything"])
        module.connect(processors[key], book, seed)
        inputs = _inputs(stage, config, cli.datamodule, done)
        done[stage.name] = fingerprint(inputs)
        if stage.kind == "write":
            samples[stage.name] = module.writer.samples
        count = samples.get(stage.rationales_from or "", 0)
        found.append(Prepared(stage, cli, config, book, processors[key], inputs, done[stage.name], count))
    return found


def _is_done(experiment: Experiment, entry: Prepared) -> bool:
    """Whether a stage's output is there, unharmed, and made from the very same inputs."""
    folder = experiment.run_dir / entry.stage.name
    record = read_record(folder)
    if experiment.restart or record is None or record.fingerprint != entry.fingerprint:
        return False
    verify_outputs(folder, record)
    return True


def _clear(experiment: Experiment, entry: Prepared, console: Console) -> None:
    """Set aside what a changed input or --restart made old; keep what an interrupted run can go on from."""
    folder, name = experiment.run_dir / entry.stage.name, entry.stage.name
    if not first_rank() or not folder.exists():
        return
    record = read_record(folder)
    started = read_json(folder / _STARTED)["inputs"] if (folder / _STARTED).is_file() else None
    inputs = record.inputs if record is not None else started
    if experiment.restart:
        reason = "starting anew"
    elif inputs is not None and fingerprint(inputs) == entry.fingerprint:
        console.print(f"{escape(name)}: continuing where it stopped")
        return
    elif inputs is not None:
        reason = f"{', '.join(changed_keys(inputs, entry.inputs)) or 'the version'} changed; running again"
    else:
        reason = "the folder holds something that no stage of this version left"
    console.print(f"{escape(name)}: {escape(reason)}; what was there is now {escape(str(set_aside(folder)))}")


def _require(experiment: Experiment, entry: Prepared, finished: dict[str, Prepared]) -> None:
    """Refuse to start a stage whose inputs are not there or are not this experiment's.

    Raises:
        StageError: Names the stage to run first.
    """
    for source, what in ((entry.stage.weights_from, "weights"), (entry.stage.rationales_from, "rationales")):
        if source is None:
            continue
        folder = experiment.run_dir / source
        record = read_record(folder)
        if record is None:
            raise StageError(
                f"the stage {entry.stage.name!r} starts from the {what} of the stage {source!r}, and there are none in "
                f"{folder}. Run `--stage {source}` first, or choose a method without it (--method sft trains directly)."
            )
        if record.fingerprint != finished[source].fingerprint:
            changed = ", ".join(changed_keys(record.inputs, finished[source].inputs)) or "the version"
            raise StageError(f"the {what} in {folder} were made with other settings ({changed}); "
                             f"run `--stage {source}` again first, or restore the settings.")  # fmt: skip
        verify_outputs(folder, record)


def _run_stage(experiment: Experiment, entry: Prepared, command: Sequence[str], console: Console) -> None:
    folder = experiment.run_dir / entry.stage.name
    if first_rank():
        write_json(folder / _STARTED, {"inputs": entry.inputs})
        # resolved: what this stage ran with, whatever the files say later
        write_atomic(folder / "config.yaml", yaml.safe_dump(entry.config, sort_keys=False, allow_unicode=True))
    L.seed_everything(int(entry.config["seed_everything"]), workers=True, verbose=False)
    start = time.monotonic()
    work = stages.Work(
        entry=entry,
        folder=folder,
        run_dir=experiment.run_dir,
        console=console,
        stop=GracefulStop(
            folder / "checkpoints" / "last.ckpt", again=shlex.join(part for part in command if part != "--restart")
        ),
    )
    outcome = stages.RUNS[entry.stage.kind](work)
    if first_rank():
        record = StageRecord(
            stage=entry.stage.name,
            kind=entry.stage.kind,
            fingerprint=entry.fingerprint,
            inputs=entry.inputs,
            outputs=hash_outputs(folder, outcome.outputs),
            seconds=round(time.monotonic() - start, 1),
            summary=outcome.summary,
        )
        write_record(folder, record)
    # no rank looks for this stage's output before it is marked
    wait_for_all()
    entry.module.vlm = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def run(experiment: Experiment, command: Sequence[str]) -> None:
    """Run an experiment.

    Args:
        experiment: What to do.
        command: The command line, for the advice on how to continue.

    Raises:
        RBFTError: With a message for the person who ran it.
    """
    console = _console()
    _quieten()
    prepared = prepare(experiment, console)
    print_plan(experiment, prepared, console)
    if experiment.dry_run:
        return
    by_name = {entry.stage.name: entry for entry in prepared}
    chosen = [entry for entry in prepared if experiment.only in (None, entry.stage.name)]
    ran = 0
    for entry in chosen:
        if _is_done(experiment, entry):
            console.print(f"{escape(entry.stage.name)}: done already")
            continue
        _require(experiment, entry, by_name)
        if ran == 0 and first_rank():
            _write_run_files(experiment, prepared)
        _clear(experiment, entry, console)
        # no rank looks for a place to continue from before the old one is set aside
        wait_for_all()
        console.print(f"[bold]{escape(entry.stage.name)}[/]")
        _run_stage(experiment, entry, command, console)
        ran += 1
    if first_rank():
        publish = ran > 0 or not all((experiment.run_dir / name).is_file() for name in stages.PUBLISHED)
        if publish and ran == 0:
            _write_run_files(experiment, prepared)
        stages.conclude(experiment, prepared, console, publish=publish)
        if ran == 0:
            console.print("everything was done already; --restart does it anew")


def _write_run_files(experiment: Experiment, prepared: Sequence[Prepared]) -> None:
    """experiment.yaml, environment.json and the split, so that the run can be understood and repeated.

    Figures of an earlier run in the same folder would pass for this one's until it ends; they are set aside.
    """
    root = experiment.run_dir
    for name in stages.PUBLISHED:
        set_aside(root / name)
    bare = StageCLI([part for file in experiment.files for part in ("--config", file)] + list(experiment.flags))
    # named as it is here, whatever the file is called: run again, it finds this folder
    content = bare.resolved() | {"experiment": experiment.name, "variant": experiment.variant}
    write_atomic(root / "experiment.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    data = prepared[0].datamodule
    write_json(
        root / "environment.json",
        describe_environment() | {"data_fingerprint": data.fingerprint("train", "val", "test")},
    )
    write_json(root / "splits.json", data.splits.to_json())
