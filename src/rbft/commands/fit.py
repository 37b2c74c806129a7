"""`rbft fit`: run an experiment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from rbft.arguments import Parser, PlainEpilog, exit_code, say
from rbft.experiment import make_parser
from rbft.starter.source import add_arguments, experiment_arguments

KEYS = {
    "method": "list of stages: rbft, sft, zero_shot, joint, probe, or one of the file's own",
    "seed_everything": "seed of everything that is random",
    "experiment": "name of the run's folder; the file's name by default",
    "variant": "name of the folder below it; the method by default",
    "run_root": "folder of all runs",
    "save_every": "optimiser steps between two checkpoints",
    "save_seconds": "least seconds before an epoch's end saves one, too; 20",
    "data.root": "folder of the videos",
    "data.format": "how the labels are listed: ClassFolders, Table, UCF101, ...",
    "data.shots": "labelled training clips a class; null for all",
    "data.val_shots": "labelled clips a class that are kept for choosing",
    "data.draw": "number of the random draw of the labelled clips",
    "data.num_frames": "frames of a clip, spread over the whole video",
    "data.fps": "frames a second, in place of num_frames",
    "data.max_pixels": "most pixels of a frame",
    "data.batch_size": "rows of an optimiser step on one device",
    "model.vlm": "model: a folder, a hub id, or builtin/tiny",
    "model.dtype": "type of the weights: auto, float32, bfloat16, float16",
    "model.tuning": "what is trained: LoRA or FullFineTuning",
    "model.optim.lr": "learning rate",
    "model.prompts": "wording of the questions",
    "trainer.max_epochs": "epochs of each training stage",
    "trainer.devices": "number of GPUs or processes",
}
"""The keys of an experiment file that are set most often."""


def parser() -> Parser:
    """The command's own flags; every key of an experiment file is one as well."""
    made = make_parser("rbft fit")
    made.description = "Run an experiment: rationales, fine-tuning on them, labels, test."
    add_arguments(made)
    made.add_argument("--allow-class", metavar="NAME", help="class of another package that the file may name")
    made.add_argument("--help-all", action="store_true", help="every key of an experiment file")
    width = max(map(len, KEYS)) + 2
    rows = "\n".join(f"  --{key:<{width}}{text}" for key, text in KEYS.items())
    made.formatter_class = PlainEpilog
    made.epilog = (
        f"keys of the file that are set most often, each a flag too:\n{rows}\n\n"
        "examples:\n"
        "  rbft fit builtin:quickstart\n"
        "  rbft fit clips --vlm Qwen/Qwen2.5-VL-3B-Instruct --about 'home camera, an old person lives alone'\n"
        "  rbft fit falls.yaml --method sft --data.shots 4 --seed_everything 1\n"
        "  rbft fit falls.yaml --stage test --restart\n\n"
        "The same command again continues where the last one stopped."
    )
    return made


def run(args: Sequence[str]) -> int:
    """Carry out the command."""
    if "--help-all" in args:
        from rbft.pipeline.stage_cli import StageCLI

        StageCLI(["--help"])
    if {"--help", "-h"} & set(args):
        parser().print_help()
        return 0
    from rbft.experiment import read_experiment

    arguments, said = experiment_arguments(args)
    experiment = read_experiment(arguments)

    from rbft.pipeline.finished import print_finished
    from rbft.ranks import first_rank

    if said and first_rank():
        say(said, sys.stdout)
    if print_finished(experiment):
        return 0
    from rbft.pipeline.run import run as run_experiment

    run_experiment(experiment, ["rbft", "fit", *args])
    return 0


def preload() -> Callable[[Sequence[str]], int]:
    """Import what every run needs, once for all runs of a worker process.

    Returns:
        `rbft fit` for the forks of that process.
    """
    import torch

    import rbft.pipeline.run  # noqa: F401

    def fit(args: Sequence[str]) -> int:
        # the worker's threads; torch was imported for one alone
        threads = os.environ.get("OMP_NUM_THREADS", "")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(int(threads) if threads.isdecimal() else cores)
        return exit_code(lambda: run(args))

    return fit
