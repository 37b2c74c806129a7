"""How a stage stands in its run folder: done, ready to start, or with something of an earlier run in its place."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from rbft.errors import StageError
from rbft.experiment import Experiment
from rbft.files import archive, read_json
from rbft.ranks import first_rank
from rbft.runs.names import STARTED
from rbft.runs.stage_record import changed_keys, fingerprint, read_record, verify_outputs
from rbft.stages.context import Prepared


def is_done(experiment: Experiment, entry: Prepared) -> bool:
    """Whether a stage's output is there, unharmed, and made from the very same inputs."""
    folder = experiment.run_dir / entry.stage.name
    record = read_record(folder)
    if experiment.restart or record is None or record.fingerprint != entry.fingerprint:
        return False
    verify_outputs(folder, record)
    return True


def make_room(experiment: Experiment, entry: Prepared, console: Console) -> None:
    """Archive what a changed input or --restart made old; keep what an interrupted run can go on from."""
    folder, name = experiment.run_dir / entry.stage.name, entry.stage.name
    if not first_rank() or not folder.exists():
        return
    record = read_record(folder)
    started = read_json(folder / STARTED) if (folder / STARTED).is_file() else None
    inputs = record.inputs if record is not None else started.get("inputs") if isinstance(started, dict) else None
    if experiment.restart:
        reason = "starting again"
    elif not isinstance(inputs, dict):
        reason = "the folder holds something that no stage of this version left"
    elif fingerprint(inputs) == entry.fingerprint:
        console.print(f"{escape(name)}: continuing where it stopped")
        return
    else:
        reason = f"{', '.join(changed_keys(inputs, entry.inputs)) or 'the version'} changed; running again"
    console.print(f"{escape(name)}: {escape(reason)}; what was there is now {escape(str(archive(folder)))}")


def require_sources(experiment: Experiment, entry: Prepared, prepared: Sequence[Prepared]) -> None:
    """Refuse to start a stage whose inputs are not there or are not this experiment's.

    Raises:
        StageError: An earlier stage is missing; names it.
    """
    by_name = {other.stage.name: other for other in prepared}
    stage = entry.stage
    sources = ((stage.weights_from, "weights"), (stage.rationales_from, "rationales"), (stage.answers_from, "answers"))
    for source, what in sources:
        if source is None:
            continue
        folder = experiment.run_dir / source
        record = read_record(folder)
        if record is None:
            raise StageError(
                f"the stage {stage.name!r} starts from the {what} of the stage {source!r}, and there are none in "
                f"{folder}. Run `--stage {source}` first, or choose a method without it (--method sft trains directly)."
            )
        if record.fingerprint != by_name[source].fingerprint:
            changed = ", ".join(changed_keys(record.inputs, by_name[source].inputs)) or "the version"
            raise StageError(
                f"the {what} in {folder} were made with other settings ({changed}); "
                f"run `--stage {source}` again first, or restore the settings."
            )
        verify_outputs(folder, record)
