"""The Lightning CLI of one stage: typed parsing of files, layers and flags, then module, data and trainer."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from enum import Enum
from typing import Any, ClassVar

import lightning as L
import yaml
from jsonargparse import get_loader, set_loader
from jsonargparse.typing import NonNegativeFloat
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Checkpoint,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelSummary,
    ProgressBar,
)
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from omegaconf.errors import OmegaConfBaseException

# class names alone suffice in experiment files because these are imported
import rbft.objectives.classification
import rbft.objectives.closed_set
import rbft.objectives.distil
import rbft.objectives.joint
import rbft.objectives.policy
import rbft.objectives.preference
import rbft.objectives.rationale
import rbft.objectives.reasoned
import rbft.objectives.self_distil
import rbft.rationales.checks.contradiction
import rbft.rationales.checks.grounding
import rbft.rationales.checks.reconstruction  # noqa: F401
from rbft.data.datamodule import VideoDataModule
from rbft.errors import ConfigError
from rbft.experiment import Experiment
from rbft.files import NOT_YAML
from rbft.pipeline.allowed_classes import allow_named, functions_in, not_allowed_message
from rbft.pipeline.config_errors import StageParser, class_errors, readable_errors
from rbft.stages.read_stage import ReadStage
from rbft.training.module import VLMFineTuner

# what the records of a data set depend on
_DATA_SET = ("root", "format", "unlabelled")

# callbacks that would do what a run does by itself, with what there is instead
_INSTEAD = (
    (Checkpoint, "a run saves by itself; save_every says how often, model.selection which weights are kept"),
    (ProgressBar, "a run shows its progress by itself"),
    (ModelSummary, "`rbft fit --dry_run` says what a run costs"),
    (
        BatchSizeFinder,
        "a batch that does not fit in memory is cut by itself; data.batch_size says how many clips it has",
    ),
    (LearningRateFinder, "set model.optim.lr; rbft sweep tries several"),
    (GradientAccumulationScheduler, "set trainer.accumulate_grad_batches; it is the same in all epochs"),
)

# Lightning's classes have text enumerations as defaults (Timer), with which no configuration could be written down
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, value: dumper.represent_data(value.value))


# a value that YAML cannot read is taken as text, whatever it is that YAML raises
set_loader("omegaconf+", get_loader("yaml"), exceptions=(yaml.YAMLError, *NOT_YAML))


class StageCLI(LightningCLI):
    """Module and data of one stage from its command line; the trainer is made when the stage runs.

    Args:
        args: Files, layer and flags, as `rbft.experiment.Experiment.arguments` gives them.

    Raises:
        ConfigError: A key or value is wrong, or names code of a package that is neither one of `PACKAGES` nor allowed
            by `--allow-class NAME`.
    """

    _shared: ClassVar[LightningArgumentParser | None] = None

    def __init__(self, args: Sequence[str]) -> None:
        self._allowed, args = allow_named(args)
        with warnings.catch_warnings(), readable_errors(args):
            # the command line is given by `args`; what else stands in sys.argv has been read already
            warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
            super().__init__(
                VLMFineTuner,
                VideoDataModule,
                parser_class=StageParser,
                save_config_callback=None,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                # an abbreviated flag is more often a typing error than a wish
                parser_kwargs={"parser_mode": "omegaconf+", "prog": "rbft fit", "allow_abbrev": False},
                args=list(args),
                run=False,
            )

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """One parser for all stages: it follows from signatures alone, and reading those takes longer than parsing."""
        if StageCLI._shared is None:
            super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
            StageCLI._shared = self.parser
        self.parser = StageCLI._shared

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Keys that choose the run rather than shape a stage; read by `rbft.experiment` before."""
        parser.add_argument("--stages", type=dict[str, Any], default={}, help="Stages as layers, in order.")
        parser.add_argument("--methods", type=dict[str, list[str]], default={}, help="Stage lists by name.")
        parser.add_argument("--method", type=str, default="rbft", help="Which stage list runs.")
        parser.add_argument("--experiment", type=str, default=None, help="Folder name; the file's name by default.")
        parser.add_argument("--variant", type=str, default=None, help="Folder name; the method by default.")
        parser.add_argument("--run_root", type=str, default="runs", help="Where run folders are made.")
        parser.add_argument(
            "--save_every", type=int, default=100, help="Optimiser steps between two checkpoints; 0: epochs."
        )
        parser.add_argument(
            "--save_seconds",
            type=NonNegativeFloat,
            default=20.0,
            help="Least seconds between a checkpoint and one at the end of an epoch; 0: at the end of each. "
            "A signal saves at once, whatever this says.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read files and flags; whatever the parser trips over is an error of theirs."""
        try:
            super().parse_arguments(parser, args)
        except OmegaConfBaseException:
            raise  # `readable_errors` knows these
        except (TypeError, ValueError) as error:
            parser.error(str(error), error)

    def _set_seed(self) -> None:
        """Seeding happens where a stage starts."""

    def instantiate_classes(self) -> None:
        """Module and data; no trainer yet."""
        code = (
            function for key in ("model", "data", "trainer") for function in functions_in(self.config.get(key), key)
        )
        for key, path in code:
            if not any(f"{path}.".startswith(f"{name}.") for name in self._allowed):
                raise ConfigError(not_allowed_message(key, path))
        if self.config.trainer.logger is False:
            raise ConfigError(
                "trainer.logger: every run writes TensorBoard files; leave the key out, or name loggers "
                "that get the same."
            )
        with class_errors():
            self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        for callback in self.callbacks:
            for kind, why in _INSTEAD:
                if isinstance(callback, kind):
                    raise ConfigError(f"trainer.callbacks: take {type(callback).__name__} out; {why}.")
        for plugin in self._configured("plugins"):
            if isinstance(plugin, CheckpointIO):
                raise ConfigError(
                    f"trainer.plugins: take {type(plugin).__name__} out; a run saves its checkpoints by itself."
                )

    def resolved(self) -> dict[str, Any]:
        """The whole configuration as plain values."""
        # what the parser gave needs no second look
        text = self.parser.dump(self.config, format="json", skip_none=False, skip_validation=True)
        config: dict[str, Any] = json.loads(text)
        return config

    @property
    def callbacks(self) -> list[L.Callback]:
        """Those of the configuration."""
        return self._configured("callbacks")

    def _configured(self, key: str) -> list[Any]:
        """What a key of the trainer names, which may be one thing, several or none."""
        return _listed(self._get(self.config_init, "trainer", default={}).get(key))

    def make_trainer(self, callbacks: Sequence[L.Callback], **settings: Any) -> L.Trainer:
        """The trainer of the configuration with what a stage adds to it.

        Args:
            callbacks: Behind those of the configuration, of which each trainer has copies: what one of them noted in a
                training is not to act in the next, as of another fold.
            settings: In the place of the configuration's; after a logger, and after plugins, come those of the
                configuration.
        """
        if isinstance(logger := settings.get("logger"), Logger):
            settings["logger"] = [logger, *self._configured("logger")]
        if "plugins" in settings:
            settings["plugins"] = [*settings["plugins"], *self._configured("plugins")]
        return self.instantiate_trainer(callbacks=[*copy.deepcopy(self.callbacks), *callbacks], **settings)


def read_stages(experiment: Experiment) -> list[ReadStage]:
    """Every stage of an experiment; a data set that several stages name is read once.

    Where one of them answers by cross-fitting, all labelled videos train.

    Args:
        experiment: experiment whose stages are read.

    Raises:
        ConfigError: A setting is wrong.
        DataError: A data set is missing or wrong, where more than one stage is of it.
    """
    stages: dict[str, ReadStage] = {}
    for stage in experiment.stages:
        cli = StageCLI(experiment.arguments(stage))
        stages[stage.name] = ReadStage(
            stage, cli.model, cli.datamodule, cli.resolved(), cli.make_trainer, before=dict(stages)
        )
    for entry in stages.values():
        named = [entry.config["data"][key] for key in _DATA_SET]
        for earlier in entry.before.values():
            if [earlier.config["data"][key] for key in _DATA_SET] == named:
                entry.datamodule.records = list(earlier.datamodule.records)
                break
    if any(entry.crossfits for entry in stages.values()):
        for entry in stages.values():
            entry.datamodule.train_on_validation()
    return list(stages.values())


def _listed(value: Any) -> list[Any]:
    """What may be given once, several times or not at all."""
    if value is None or value is True:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
