"""What a finished run recorded of how its test answered: stage, classes, weights, choices, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rbft.answering.choice import Choice
from rbft.data.labels import LabelSet
from rbft.errors import StageError
from rbft.evaluation.calibration import Calibration, read_calibration
from rbft.evaluation.predictions import Prediction, read_predictions
from rbft.experiment import Experiment, Stage, read_experiment
from rbft.files import expanded, read_json
from rbft.runs.names import ADAPTER, ANSWERING, CALIBRATION, EXPERIMENT, LABELS, VALIDATION
from rbft.runs.run_folder import RunFolder
from rbft.runs.stage_record import read_record, verify_outputs
from rbft.stages.cautions import built_in_cautions, run_cautions

_READ = (ANSWERING, CALIBRATION, VALIDATION)


@dataclass(frozen=True)
class Recorded:
    """A finished run.

    Args:
        run: run folder.
        experiment: experiment that was run.
        stage: The last test.
        labels: The classes.
        weights: Folder of the trained weights that were tested; None for the base model.
        choice: how the test answered.
        prior: Scores (C) after a blank clip that are subtracted; None where none are.
        calibration: calibration of the probabilities.
    """

    run: Path
    experiment: Experiment
    stage: Stage
    labels: LabelSet
    weights: Path | None
    choice: Choice
    prior: tuple[float, ...] | None
    calibration: Calibration

    @property
    def folder(self) -> Path:
        """Of the test."""
        return self.run / self.stage.name

    def arguments(self, flags: Sequence[str] = ()) -> list[str]:
        """The command line of the test."""
        return [*self.experiment.arguments(self.stage), *flags]

    @property
    def weights_chosen_from(self) -> int:
        """Number of weights that the validation videos chose the tested ones from; 1 where they chose none.

        Raises:
            RBFTError: A file of the run is damaged.
        """
        by_name = {stage.name: stage for stage in self.experiment.stages}
        count, name = 1, self.stage.weights_from
        while name is not None:
            record = read_record(self.run / name)
            if record is not None and "best_epoch" in record.summary:
                # a run of before their number was noted chose from no more than its steps
                count *= max(1, int(record.summary.get("validations") or record.summary["steps"]))
            name = by_name[name].weights_from
        return count

    @property
    def data_root(self) -> Path:
        """Folder of the videos that the run was made from, links followed."""
        return expanded(str(RunFolder(self.run).data.get("root", "."))).resolve()

    @property
    def frame_rate(self) -> float | None:
        """Frames a second of folders of images, as the run's data format says; None where it takes none for videos."""
        format = RunFolder(self.run).data.get("format")
        settings = format.get("init_args") if isinstance(format, dict) else None
        rate = settings.get("frame_rate") if isinstance(settings, dict) else None
        return float(rate) if isinstance(rate, (int, float)) else None

    def cautions(self, *, own_videos: bool) -> list[str]:
        """What speaks against using the run.

        Args:
            own_videos: whether it is asked about videos in other folders than those it was made from.

        Raises:
            RBFTError: A file of the run is damaged.
        """
        folder = RunFolder(self.run)
        own = built_in_cautions(str(folder.setting("model.vlm")), None) if own_videos else []
        return list(dict.fromkeys([*own, *run_cautions(folder)]))

    def validation(self) -> list[Prediction]:
        """What was predicted of the validation videos.

        Raises:
            StageError: They were not scored.
        """
        path = self.folder / VALIDATION
        if not path.is_file():
            raise StageError(
                f"{path}: the run has no predictions of validation videos. Give it some (data.val_shots "
                "or data.val_fraction) with model.answering.calibrate on, and test it again."
            )
        return read_predictions(path)


def read_run(run: str | Path) -> Recorded:
    """What a run folder says.

    Raises:
        StageError: It is no finished run with a test, or what it left was changed afterwards.
    """
    run = expanded(run)
    if not (run / EXPERIMENT).is_file() or not (run / LABELS).is_file():
        raise StageError(f"--run {run}: no run folder; name the folder that holds experiment.yaml and {LABELS}.")
    # a copy may lie less deep than a run root's runs do; the folder is read as it is, wherever the root is
    root = run.resolve().parent.parent.parent
    experiment = read_experiment(["--config", str(run / EXPERIMENT), "--run_root", str(root)])
    tests = [stage for stage in experiment.stages if stage.kind == "test"]
    record = read_record(run / tests[-1].name) if tests else None
    if not tests and any(stage.tests for stage in experiment.stages):
        raise StageError(
            f"--run {run}: its method ends in {experiment.stages[-1].kind}, a control that nothing is predicted with; "
            "name a run whose method ends in a test stage."
        )
    for kind, what in (("combine", "mixed with those of"), ("rationale_probe", "those of")):
        if any(stage.kind == kind for stage in experiment.stages):
            raise StageError(
                f"--run {run}: its answers are {what} a probe that is fitted beside the model and not kept, "
                "so nothing is predicted with it; name a run whose method ends in a test stage."
            )
    if record is None:
        raise StageError(f"--run {run}: its test is not finished; run `rbft fit` to the end first.")
    stage = tests[-1]
    read = {name: digest for name, digest in record.outputs.items() if name in _READ}
    verify_outputs(run / stage.name, replace(record, outputs=read))
    weights = None
    if stage.weights_from is not None:
        source = run / stage.weights_from
        trained = read_record(source)
        if trained is None:
            raise StageError(f"{source} holds no finished stage, so there are no weights to predict with.")
        verify_outputs(source, trained)
        weights = source / ADAPTER
    recorded = _json(run / stage.name / ANSWERING) or {"mode": "direct", "mixture_weight": 0.0, "strength": 1.0}
    prior = recorded.get("label_prior")
    calibration = run / stage.name / CALIBRATION
    return Recorded(
        run=run,
        experiment=experiment,
        stage=stage,
        labels=LabelSet(tuple(read_json(run / LABELS))),
        weights=weights,
        choice=Choice(
            recorded["mode"],
            float(recorded["mixture_weight"]),
            float(recorded["strength"]),
            gate=recorded.get("gate"),
        ),
        prior=None if prior is None else tuple(map(float, prior)),
        calibration=read_calibration(_json(calibration), calibration),
    )


def _json(path: Path) -> Any:
    """The content of a file that not every run has."""
    return read_json(path) if path.is_file() else None
