"""A stage's folder in a run: done, ready to start, or with something of an earlier run in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape

from rbft.errors import StageError
from rbft.experiment import Experiment
from rbft.files import archive, read_json, remove_unfinished, write_atomic, write_json
from rbft.ranks import first_rank
from rbft.runs.names import CONFIG, EXPERIMENT, STARTED
from rbft.runs.stage_record import (
    StageRecord,
    changed_keys,
    fingerprint,
    hash_outputs,
    read_record,
    verify_outputs,
    write_record,
)
from rbft.stages.context import StageResult
from rbft.stages.read_stage import ReadStage


@dataclass(frozen=True)
class StageFolder:
    """The folder of a stage.

    Args:
        experiment: experiment that is run.
        entry: the stage.
    """

    experiment: Experiment
    entry: ReadStage

    @property
    def path(self) -> Path:
        """Where it is, or will be."""
        return self.experiment.run_dir / self.entry.stage.name

    def is_done(self) -> bool:
        """Whether the stage's output is there, unharmed, and made from the very same inputs."""
        record = read_record(self.path)
        if self.experiment.restart or record is None or record.fingerprint != self.entry.fingerprint:
            return False
        verify_outputs(self.path, record)
        return True

    def require_sources(self, prepared: Sequence[ReadStage]) -> None:
        """Refuse to start the stage if its inputs are not there or are not this experiment's.

        Args:
            prepared: all stages of the experiment.

        Raises:
            StageError: An earlier stage is missing; names it.
        """
        by_name = {other.stage.name: other for other in prepared}
        stage = self.entry.stage
        for source, what in (
            (stage.weights_from, "weights"),
            (stage.rationales_from, "rationales"),
            (stage.answers_from, "answers"),
            *((name, "predictions") for name in stage.predictions_from),
        ):
            if source is None:
                continue
            folder = self.experiment.run_dir / source
            record = read_record(folder)
            if record is None:
                raise StageError(
                    f"the stage {stage.name!r} starts from the {what} of the stage {source!r}, and there are none in "
                    f"{folder}. Run `--stage {source}` first, or choose a method without it (--method sft trains "
                    "directly)."
                )
            if record.fingerprint != by_name[source].fingerprint:
                changed = ", ".join(changed_keys(record.inputs, by_name[source].inputs)) or "the version"
                raise StageError(
                    f"the {what} in {folder} were made with other settings ({changed}); "
                    f"run `--stage {source}` again first, or restore the settings."
                )
            verify_outputs(folder, record)

    def make_room(self, console: Console) -> None:
        """Archive what a changed input or --restart made old; keep what an interrupted run can go on from."""
        folder, name = self.path, escape(self.entry.stage.name)
        if not first_rank() or not folder.exists():
            return
        record = read_record(folder)
        started = read_json(folder / STARTED) if (folder / STARTED).is_file() else None
        inputs = record.inputs if record is not None else started.get("inputs") if isinstance(started, dict) else None
        if self.experiment.restart:
            reason = "starting again"
        elif not isinstance(inputs, dict):
            reason = "the folder holds something that no stage of this version left"
        elif fingerprint(inputs) == self.entry.fingerprint:
            console.print(f"{name}: continuing where it stopped")
            return
        else:
            reason = f"{', '.join(changed_keys(inputs, self.entry.inputs)) or 'the version'} changed; running again"
        console.print(f"{name}: {escape(reason)}; what was there is now {escape(str(archive(folder)))}")

    def begin(self) -> None:
        """Note what the stage is begun from, on the first rank."""
        if not first_rank():
            return
        for killed in (self.experiment.run_dir, self.path):
            remove_unfinished(killed)
        write_json(self.path / STARTED, {"inputs": self.entry.inputs})
        # resolved: what this stage ran with, whatever the files say later
        write_atomic(self.path / CONFIG, yaml.safe_dump(self.entry.config, sort_keys=False, allow_unicode=True))

    def finish(self, result: StageResult, seconds: float, figures: dict[str, Any]) -> None:
        """Mark the stage as done, on the first rank.

        Args:
            result: what it left.
            seconds: its duration in seconds.
            figures: figures beside its own.

        Raises:
            StageError: Somebody removed the folder meanwhile.
        """
        if not first_rank():
            return
        if not (self.path / STARTED).is_file():
            raise _removed(self.path)
        record = StageRecord(
            stage=self.entry.stage.name,
            kind=self.entry.stage.kind,
            fingerprint=self.entry.fingerprint,
            inputs=self.entry.inputs,
            outputs=hash_outputs(self.path, result.outputs),
            seconds=round(seconds, 1),
            summary=result.summary | figures,
        )
        write_record(self.path, record)


@contextmanager
def noticing_removal(run_dir: Path) -> Iterator[None]:
    """Around a run: a file that is missing because somebody removed the run's folder meanwhile is reported so."""
    try:
        yield
    except FileNotFoundError as error:
        if (run_dir / EXPERIMENT).is_file():
            raise
        raise _removed(run_dir) from error


def _removed(folder: Path) -> StageError:
    return StageError(
        f"{folder} was removed while the run was going; the same command makes again what is missing there."
    )
