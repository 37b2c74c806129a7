"""The rows of a stage, as its model will read them, and what they cost: tokens, memory, and time roughly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from rbft.estimate.clip_costs import ClipCosts, KnownCosts, readable
from rbft.estimate.device import Device, Speed, matrix_dtype
from rbft.estimate.on_device import held, seconds_of
from rbft.estimate.stage_cost import (
    Memory,
    Row,
    StageEstimate,
    Work,
    encoding_memory,
    encoding_work,
    kept_states,
    scoring_memory,
    scoring_work,
    training_memory,
    training_work,
    writing_memory,
    writing_work,
)
from rbft.experiment import KINDS
from rbft.vlm.cost import ModelSize
from rbft.vlm.prompt import Prompt

if TYPE_CHECKING:
    from rbft.data.records import VideoRecord
    from rbft.stages.read_stage import ReadStage


class StageRows:
    """The rows of a stage and their cost.

    Args:
        entry: the stage.
        device: device that it runs on.
        encoded: clips whose features earlier stages leave; its own are added.
        known: costs of clips.
        size: size of its model.

    Attributes:
        folded: training stages that it runs again for each fold of a cross-fit.
    """

    def __init__(
        self,
        entry: ReadStage,
        device: Device,
        encoded: set[tuple[Any, ...]],
        known: KnownCosts,
        size: ModelSize,
    ) -> None:
        self._entry, self._writer, self._device, self._encoded = entry, entry.writer, device, encoded
        self._config, self._module, self._data = entry.config, entry.module, entry.datamodule
        self._costs = ClipCosts(entry, known)
        self._size = size
        prompt = entry.book.label_prompt()
        self._label_ids = [entry.module.processor.target_ids(prompt, text) for text in entry.book.texts]
        self._labels = list(map(len, self._label_ids))
        # where steps alone end it there are no more epochs than steps
        own = entry.epochs if entry.epochs >= 0 else int(entry.config["trainer"]["max_steps"])
        self.epochs = max(1.0, float(own) + _matched_epochs(entry, self._labels))
        self._demonstrated = self._demonstration_tokens()
        self.folded: Sequence[StageRows] = ()
        self.rows = self._rows()

    def _demonstration_tokens(self) -> int:
        """Tokens of the labelled videos' descriptions in a question, at most."""
        if self._entry.stage.kind != "demonstrations" or self._writer is None:
            return 0
        videos = [record.label for record in self._data.splits.train]
        return self._module.demonstrations.most(videos) * (
            self._writer.module.writer.max_new_tokens + max(self._labels)
        )

    def _rows(self) -> list[Row]:
        splits, book, stage = self._data.splits, self._entry.book, self._entry.stage
        every = (*splits.train, *splits.val, *splits.test)
        records = readable(self._data, splits.test if stage.asks else every if stage.tests else splits.train)
        if KINDS[stage.kind].follows_tests:
            return []
        if stage.kind == "caption_probe":
            return [self._row(record, book.blind_prompt(), self._module.writer.max_new_tokens) for record in records]
        if stage.tests:
            return [self._row(record, book.label_prompt()) for record in records]
        if stage.kind == "answer":
            most, every = self._module.answering.max_new_tokens, (*records, *self._unlabelled(self._entry))
            return [self._row(record, book.blind_prompt(), most) for record in every for _ in range(stage.views)]
        if stage.kind == "write":
            most = self._module.writer.max_new_tokens
            asked = [(record, book.writing_prompt(record.label)) for record in records]
            asked += [(record, book.blind_prompt()) for record in self._unlabelled(self._entry)]
            if self._module.writer.contrast:
                asked += [(record, book.contrast_prompt(record.id, record.label)) for record in records]
            return [self._row(record, prompt, most) for record, prompt in asked]
        more = [] if self._writer is None else self._unlabelled(self._writer)
        views = self._writer.stage.views if self._writer is not None and stage.answers_from else 1
        return [self._training_row(record) for record in [*records, *more] for _ in range(views)]

    def _unlabelled(self, writer: ReadStage) -> list[VideoRecord]:
        """Videos without a label that a write stage writes about, as far as this stage knows what they look like."""
        return readable(self._data, [r for r in writer.datamodule.unlabelled_videos if r.path in self._data.facts])

    def _training_row(self, record: VideoRecord) -> Row:
        """A video's clip with all that is learned about it: questions and answers follow the clip in one row."""
        book, stage = self._entry.book, self._entry.stage
        question, answers = book.label_prompt(), 0
        if stage.kind in ("classification", "joint") and record.label:
            answers += self._labels[book.labels.index(record.label)]
        if stage.kind == "distil":
            answers += sum(self._labels)
        sampling = getattr(self._module.objective, "sampling", None)  # of an objective that has the model write
        if sampling is not None:
            question = book.blind_prompt()
            answers += sampling.samples * sampling.max_new_tokens
        between = 0
        if stage.kind in ("rationale", "joint", "reasoned", "preference"):
            assert self._writer is not None, f"the stage {stage.name!r} has no stage that writes its rationales"
            label = record.label or book.labels.names[0]  # the model will name one
            writer, conclusion = self._writer.module.writer, book.rationale_target("", label)
            after = len(self._entry.module.processor.target_ids(question, conclusion)) if conclusion else 0
            if stage.kind == "reasoned":
                after += sum(self._labels)
            both = 2 if self._module.objective is not None and self._module.objective.contrasts else 1
            answers += both * writer.samples * (writer.max_new_tokens + after)
            if stage.kind == "joint":
                between = self._costs.cost(record).text_tokens
            question = book.training_prompt(record.label) if record.label else book.blind_prompt()
        row = self._row(record, question, answers)
        return replace(row, prompt=row.prompt + between)

    def _row(self, record: VideoRecord, prompt: Prompt, answer: int = 0) -> Row:
        cost = self._costs.cost(record)
        return Row(
            self._costs.prompt_tokens(record, prompt) + self._demonstrated,
            cost.visual_tokens,
            cost.pixel_values,
            answer,
            self._times_encoded(record),
        )

    def _times_encoded(self, record: VideoRecord) -> float:
        trains = self._entry.stage.trains
        random = trains and self._data.frames == "random"
        times = self.epochs if trains else 1.0
        if self._data.features is None or random or (trains and self._size.vision_trained):
            return times
        # features of a tower that was trained are not those of the stages before
        tower = self._entry.stage.weights_from if self._size.vision_trained else None
        key = (self._module.name, self._module.revision, tower, record.path, self._costs.shape(record))
        if key in self._encoded:
            return 0.0
        self._encoded.add(key)
        return 1.0

    def estimate(self, speed_of: Callable[[torch.dtype], Speed] | None) -> StageEstimate:
        """What the stage costs on a device of such a speed; without one, no time."""
        data, processes = self._data, self._device.processes
        steps, prepared, memory, work = self._cost()
        # each of n folds trains on n - 1 of n parts of the labelled videos: together n - 1 trainings
        trainings = self._entry.folds - 1 if self.folded else 0
        for stage in self.folded:
            _, more_rows, more_memory, more = stage._cost()
            prepared += trainings * more_rows
            work += more * trainings
            memory = max(memory, more_memory, key=lambda memory: memory.total)
        memory = held(memory, self._entry, self._size, processes)
        lengths = [row.length for row in self.rows]
        seconds = None
        if speed_of is not None:
            speed = speed_of(matrix_dtype(str(self._config["trainer"]["precision"]), self._size.element))
            seconds = seconds_of(work, speed) + prepared * self._costs.seconds_a_row() / max(1, data.num_workers)
            seconds /= processes
        return StageEstimate(
            self._entry.stage.name,
            self._entry.stage.kind,
            len(self.rows),
            steps,
            (min(lengths), median(lengths), max(lengths)),
            memory,
            seconds,
            kept_states(self._size, self.rows) if self._entry.keeps_states else 0,
        )

    def _cost(self) -> tuple[int, float, Memory, Work]:
        """Its steps, the rows that are prepared for it, and what all of that takes; of a test, without the folds."""
        kind, data = self._entry.stage.kind, self._data
        processes = self._device.processes
        if self._entry.stage.trains:
            steps = self._entry.steps(len(self.rows), processes, round(self.epochs))
            epochs = min(self.epochs, steps * self._entry.rows_a_step(processes) / len(self.rows))
            memory, work = self._training(steps, epochs)
            prepared = epochs * len(self.rows) + self._entry.validations(len(self.rows), processes, epochs) * len(
                readable(data, data.splits.val)
            )
        else:
            steps, prepared = -(-len(self.rows) // (data.eval_batch_size * processes)), len(self.rows)
            if kind in ("write", "caption_probe"):
                samples = self._module.writer.samples
                memory = writing_memory(self._size, self.rows, data.eval_batch_size, samples)
                work = writing_work(self._size, self.rows, data.eval_batch_size, samples)
            elif kind == "answer":
                memory, work = self._reasoning(self.rows)
            elif kind == "probe":
                memory = encoding_memory(self._size, self.rows, data.eval_batch_size)
                work = encoding_work(self._size, self.rows)
            else:
                memory, work = self._testing()
        return steps, prepared, memory, work

    def _training(self, steps: int, epochs: float) -> tuple[Memory, Work]:
        """Of the training, with the validation after each epoch."""
        size, data, checkpointing = self._size, self._data, self._module.activation_checkpointing
        memory = training_memory(
            size,
            self.rows,
            data.batch_size,
            checkpointing=checkpointing,
            processes=self._device.processes,
            kind=self._device.kind,
        )
        work = training_work(
            size,
            self.rows,
            epochs,
            steps,
            data.batch_size,
            checkpointing=checkpointing,
            kind=self._device.kind,
            keeps=self._entry.keeps_states,
        )
        if (sampling := getattr(self._module.objective, "sampling", None)) is not None:
            texts = [replace(row, answer=sampling.max_new_tokens, encode=0.0) for row in self.rows]
            written = writing_memory(size, texts, data.batch_size, sampling.samples)
            memory = replace(memory, activations=max(memory.activations, written.activations + written.cache))
            work += writing_work(size, texts, data.batch_size, sampling.samples) * epochs
        if val := readable(data, data.splits.val):
            read, validation = self._validating(val)
            work += validation * self._entry.validations(len(self.rows), self._device.processes, epochs)
            memory = replace(memory, activations=max(memory.activations, read.activations + read.cache))
        return memory, work

    def _validating(self, val: Sequence[VideoRecord]) -> tuple[Memory, Work]:
        """Of one validation: by the label question, or by what the model writes where that chooses."""
        book, module, batch = self._entry.book, self._module, self._data.eval_batch_size
        if not module.chooses_after_rationales:
            return self._scoring([self._row(record, book.label_prompt()) for record in val])
        rows = [self._row(record, book.blind_prompt(), module.writer.max_new_tokens) for record in val]
        after = self._scoring([replace(row, prompt=row.length, answer=0) for row in rows])
        written = writing_memory(self._size, rows, batch, 1)
        return max(written, after[0], key=lambda m: m.total), writing_work(self._size, rows, batch, 1) + after[1]

    def _testing(self) -> tuple[Memory, Work]:
        """Of answering, after own rationales where they are asked for; of labelled videos too, where those decide."""
        answering, splits = self._module.answering, self._data.splits
        memory, work = self._answering(readable(self._data, splits.test))
        work *= 1 + self._module.robustness.passes
        chosen_on = splits.train if answering.crossfits else splits.val
        needed = answering.crossfits or answering.needs_validation or answering.calibrate
        if needed and (labelled := readable(self._data, chosen_on)):
            tuned = self._entry.stage.weights_from is not None
            work += self._answering(labelled)[1] * len(answering.tried_strengths(tuned=tuned))
        return memory, work

    def _answering(self, records: Sequence[VideoRecord]) -> tuple[Memory, Work]:
        answering, book = self._module.answering, self._entry.book
        direct = self._scoring([self._row(record, book.label_prompt()) for record in records])
        if not answering.writes:
            return direct
        rows = [self._row(record, book.blind_prompt(), answering.max_new_tokens) for record in records]
        memory, work = self._arguing(rows) if answering.mode == "argued" else self._reasoning(rows)
        return max(direct[0], memory, key=lambda memory: memory.total), direct[1] + work

    def _arguing(self, rows: Sequence[Row]) -> tuple[Memory, Work]:
        """Of a rationale for each class, one class at a time, with each text read again with and without the clip."""
        memory, work = self._reasoning(rows)
        for row in rows:
            blind = row.length - row.visual
            read = self._size.read_flops(row.length, row.answer) + self._size.read_flops(blind, row.answer)
            work += Work(read + 2 * self._size.head_flops(row.answer))
        return memory, work * min(self._module.answering.most_argued, len(self._labels))

    def _reasoning(self, rows: Sequence[Row]) -> tuple[Memory, Work]:
        """Of writing about clips and scoring the labels after what was written."""
        samples, batch = self._module.answering.samples, self._data.eval_batch_size
        written = writing_memory(self._size, rows, batch, samples)
        after = self._scoring([replace(row, prompt=row.length, answer=0) for row in rows])
        work = writing_work(self._size, rows, batch, samples) + after[1] * samples
        return max(written, after[0], key=lambda memory: memory.total), work

    def _scoring(self, rows: Sequence[Row]) -> tuple[Memory, Work]:
        batch, most = self._data.eval_batch_size, int(self._config["model"]["scoring"]["max_tokens"])
        memory = scoring_memory(self._size, rows, batch, self._label_ids, most)
        return memory, scoring_work(self._size, rows, batch, self._labels)


def _matched_epochs(entry: ReadStage, labels: Sequence[int]) -> float:
    """Epochs that make up for the tokens of rationales, at most.

    Args:
        entry: the stage.
        labels: tokens of each class.
    """
    if not entry.stage.rationale_epochs or entry.writer is None:
        return 0.0
    settings = entry.writer.module.writer
    most = settings.samples * (settings.max_new_tokens + max(labels))
    return entry.stage.rationale_epochs * most * len(labels) / sum(labels)
