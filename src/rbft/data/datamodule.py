"""The LightningDataModule: a data set's files, the low-data split, and loaders that decode clips."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import lightning as L
from torch.utils.data import DataLoader, Dataset

from rbft.data.bad_videos import Policy, apply_policy
from rbft.data.dataset import Example, ExampleDataset
from rbft.data.fingerprint import records_fingerprint
from rbft.data.formats import ClassFolders, DatasetFormat
from rbft.data.labels import LabelSet
from rbft.data.loaders import Collate, make_loader
from rbft.data.records import VideoRecord, split_part
from rbft.data.sampler import EvaluationSampler, TrainSampler, limited_batches
from rbft.data.setting_checks import require_counts, require_open_files, require_room, require_state_room
from rbft.data.splits import Splits, make_splits
from rbft.data.unlabelled import read_unlabelled, without_labels
from rbft.data.video_facts import VideoFacts
from rbft.data.worker_errors import collate_carried, unpack
from rbft.errors import ConfigError, DataError
from rbft.files import expanded
from rbft.video.clip import Clip, read_clip
from rbft.video.clip_cache import ClipCache, default_folder
from rbft.video.clip_spec import ClipControl, ClipSpec
from rbft.video.container import DEFAULT_LIMITS
from rbft.video.content import content_digest, is_there
from rbft.video.sampling import FrameSampling
from rbft.vlm.feature_cache import FeatureCache
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.state_cache import StateCache

Role = Literal["train", "val", "test", "predict"]

_HELD_BYTES = 64_000_000


class VideoDataModule(L.LightningDataModule):
    """Labelled videos, cut to a low-data split, as batches of one model's inputs.

    Args:
        root: Folder that holds the videos; nothing outside of it is read.
        format: How the data set's files are laid out.
        shots: Labelled training videos a class; None takes all there are. Where few groups would all be used, whole
            groups are kept for validation and test first.
        draw: Which draw of the few videos (and of validation and test, where the data set states none).
        nested: Whether the videos of fewer shots are among those of more shots of the same draw.
        pool_shots: Videos a class that are kept out of validation and test, so that they stay the same for all
            `shots` up to this number; None: `shots`.
        val_shots: Validation videos a class; None: by `val_fraction`, or as many as `shots` where the data set
            states its test split. No effect where the data set states its validation split.
        val_fraction: Part of what training leaves over that validates, where the data set states no test split.
        num_frames: Frames of a clip. Exactly one of `num_frames` and `fps`.
        fps: Frames a second of a clip.
        max_frames: Upper bound where `fps` is given.
        frames: `uniform` takes the same frames always; `random` draws one from each segment when training.
        max_pixels: Most pixels (height x width) of a frame, and so of its visual tokens in families that take any frame
            size; None: what the model's processor makes of the source.
        max_visual_tokens: Most visual tokens of a clip; None for no bound. In families that take any frame size, frames
            are made smaller first, down to one token for each group of frames that shares its tokens, and only then
            fewer; in the others they are made fewer.
        clip_control: Takes something from every clip that a stage reads, for controls: `blank` makes all frames grey,
            `reversed` runs them backwards, `shuffled` puts them out of order, `dropped` has each second frame repeat
            the one before, `blurred` blurs them.
        batch_size: Clips of a training micro-batch on each device.
        eval_batch_size: Clips of a batch for writing and scoring.
        num_workers: Decoding processes of each loader.
        on_bad_video: What becomes of a video that cannot be read whole: `error` refuses to start; `skip` leaves it out
            of training and validation, and in the test it counts as wrong; `replace_same_class` also puts an unused
            video of the same class in the place of a training one.
        cache_clips: Whether decoded clips are kept on disk, for all epochs, stages and runs. With `frames` set to
            `random`, training clips are decoded every time: they hardly repeat and would only fill the disk.
        cache_dir: Folder of the kept clips; None: the one that the environment variable RBFT_CACHE names, else
            `~/.cache/rbft/clips`.
        cache_gb: Most gigabytes (1e9 bytes) of kept clips; a clip takes frames x height x width x 3 bytes.
        cache_features: Whether the visual features of clips are kept on disk too, in the folder `features` of
            `cache_dir`, so that no later epoch, stage or run with the same vision weights decodes or encodes them
            again; results stay the same to the last bit. Has no effect where the vision tower or the projector is
            trained, and on training clips with random frames. Training and validation clips that were read so stay in
            memory for later epochs, with the tokens of what is asked about them, up to 64 MB each in a process.
        feature_cache_gb: Most gigabytes of kept features; a clip takes visual tokens x width of the language model x
            bytes of a number, in Qwen3-VL four times that.
        cache_states: Whether what leaves the frozen layers of a language model of which the upper layers alone are
            trained (`model.tuning.layers`) is kept for each training row, so that no later epoch or run computes those
            layers again. Has no effect where all layers are trained or the features of clips are not kept.
        state_memory_gb: Most gigabytes of these states in memory; a row takes tokens x width of the language model x
            bytes of a number.
        state_cache_gb: Most gigabytes of these states on disk, in the folder `states` of `cache_dir`; 0: none.
        max_seconds: most seconds that a video may last which is read as one clip; it may have 60 frames for each. Parts
            of longer ones are looked at by `rbft predict --window`.
        unlabelled: Videos without labels, of which stage 1 alone learns, under the class that the model's own words
            state: a folder, or a table with a column `path` (and `group`), relative to `root`; or `unused` for the
            training videos that `shots` leaves over, without their labels. Validation and test may know none of them.
    """

    def __init__(
        self,
        root: str,
        format: DatasetFormat | None = None,
        shots: int | None = None,
        draw: int = 0,
        nested: bool = True,
        pool_shots: int | None = None,
        val_shots: int | None = None,
        val_fraction: float = 0.2,
        num_frames: int | None = None,
        fps: float | None = None,
        max_frames: int = 64,
        frames: Literal["uniform", "random"] = "uniform",
        max_pixels: int | None = None,
        max_visual_tokens: int | None = None,
        clip_control: ClipControl = "none",
        batch_size: int = 1,
        eval_batch_size: int = 8,
        num_workers: int = 0,
        on_bad_video: Policy = "error",
        cache_clips: bool = True,
        cache_dir: str | None = None,
        cache_gb: float = 20.0,
        cache_features: bool = True,
        feature_cache_gb: float = 20.0,
        cache_states: bool = True,
        state_memory_gb: float = 4.0,
        state_cache_gb: float = 20.0,
        unlabelled: str | None = None,
        max_seconds: float = DEFAULT_LIMITS.max_seconds,
    ) -> None:
        super().__init__()
        require_counts(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            max_visual_tokens=max_visual_tokens,
        )
        require_open_files(num_workers)
        require_room(cache_gb, feature_cache_gb)
        require_state_room(state_memory_gb, state_cache_gb)
        self.root = expanded(root)
        self.format = format if format is not None else ClassFolders()
        self.shots, self.draw, self.nested, self.pool_shots = shots, draw, nested, pool_shots
        self.val_shots, self.val_fraction = val_shots, val_fraction
        sampling = FrameSampling(num_frames=num_frames, fps=fps, max_frames=max_frames)
        self.frames: Literal["uniform", "random"] = frames
        self.max_pixels, self.max_visual_tokens = max_pixels, max_visual_tokens
        if not 0 < max_seconds < math.inf:
            raise ConfigError(f"data.max_seconds: must be a number of seconds above 0, not {max_seconds}.")
        limits = replace(DEFAULT_LIMITS, max_seconds=max_seconds, max_frames=math.ceil(60 * max_seconds))
        self.spec = ClipSpec(sampling, max_pixels, control=clip_control, limits=limits)
        self._processor: ClipProcessor | None = None
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.on_bad_video: Policy = on_bad_video
        self.unlabelled = unlabelled
        self.unreadable: tuple[VideoRecord, ...] = ()
        self.facts: Mapping[str, VideoFacts] = {}
        self.cache_folder = default_folder() if cache_dir is None else expanded(cache_dir)
        self.cache = ClipCache(self.cache_folder, int(cache_gb * 1e9), content_digest) if cache_clips else None
        kept = FeatureCache(self.cache_folder / "features", int(feature_cache_gb * 1e9))
        self.features = kept if cache_features else None
        folder = self.cache_folder / "states" if state_cache_gb else None
        states = StateCache(folder, int(state_cache_gb * 1e9), int(state_memory_gb * 1e9))
        self.states = states if cache_states and cache_features else None
        self.seed = 0
        self.accumulate = 1
        self._datasets: dict[Role, ExampleDataset] = {}
        self._train: TrainSampler | None = None
        self._place = (0, 0)

    def at(self, root: Path) -> Self:
        """The same way to read videos, for those below another folder; nothing is kept of what was read of a data set.

        Args:
            root: folder of the videos.
        """
        other = copy.copy(self)
        for known in ("records", "unlabelled_videos", "labels", "splits"):
            vars(other).pop(known, None)
        other.root, other.unreadable, other.facts, other._datasets = root, (), {}, {}
        return other

    @cached_property
    def records(self) -> list[VideoRecord]:
        """Every labelled video of the data set.

        Raises:
            DataError: The root is missing or its files are not as the format says.
        """
        self.format.prepare(self.root)
        if not self.root.is_dir():
            raise DataError(f"data.root: no folder {self.root}. Say where the videos are with --data.root FOLDER.")
        return without_labels(self.format.read(self.root), self.root, self.unlabelled)

    @cached_property
    def unlabelled_videos(self) -> tuple[VideoRecord, ...]:
        """The videos without labels, by id; none unless `unlabelled` names some."""
        where = self.unlabelled
        return (
            ()
            if where is None
            else tuple(read_unlabelled(self.root, where, self.records, self.splits, self.format.frame_rate))
        )

    @cached_property
    def labels(self) -> LabelSet:
        """The closed set of classes."""
        return LabelSet.from_records(self.records, self.format.label_names(self.root))

    @cached_property
    def splits(self) -> Splits:
        """Which videos train, validate and test."""
        return make_splits(
            self.records,
            self.labels,
            shots=self.shots,
            draw=self.draw,
            val_shots=self.val_shots,
            val_fraction=self.val_fraction,
            pool_shots=self.pool_shots,
            nested=self.nested,
        )

    def train_on_validation(self) -> None:
        """Have the validation videos train, too: choices are made by cross-fitting, which answers all of them."""
        splits = self.splits
        self.splits = replace(splits, train=(*splits.train, *splits.val), val=())

    @property
    def split_notes(self) -> list[str]:
        """What the data set's own splits leave of the settings, for people."""
        if self.val_shots is None or not self.splits.val or not any(record.split == "val" for record in self.records):
            return []
        return [
            f"data.val_shots ({self.val_shots}) has no effect: the data set states its validation videos, and all "
            f"{len(self.splits.val)} of them validate."
        ]

    @property
    def used(self) -> list[VideoRecord]:
        """The videos of all splits; those that may stand in for a bad one included."""
        splits = self.splits
        spare = splits.unused if self.on_bad_video == "replace_same_class" else ()
        return [*splits.train, *splits.val, *splits.test, *spare]

    def take_out_bad(self, facts: Mapping[str, VideoFacts]) -> None:
        """Apply `on_bad_video` to the splits.

        `unreadable` then holds the test videos that count as wrong, and `facts` what is known of all videos by path.

        Raises:
            DataError: The policy does not allow to go on; names the videos and why they cannot be read.
        """
        bad = {r.id: facts[r.path].reason or "cannot be read" for r in self.used if not facts[r.path].readable}
        splits, self.unreadable = apply_policy(self.splits, self.labels, bad, self.on_bad_video, shots=self.shots)
        self.splits, self.facts = splits, facts

    def fingerprint(self, *roles: Literal["train", "val", "test", "unlabelled"]) -> str:
        """Of the videos of some splits, by content, and of the classes."""
        every = {"unlabelled": self.unlabelled_videos} | vars(self.splits)
        records = [record for role in roles for record in every[role]]
        return records_fingerprint(self.root, records) + ":" + ",".join(self.labels.names)

    def use_processor(self, processor: ClipProcessor) -> None:
        """Settle how clips are read: as this processor of a model wants them.

        Raises:
            ConfigError: Not even a clip of one frame keeps to `max_visual_tokens`.
        """
        self._processor = processor
        spec = processor.clip_spec(self.spec.sampling, self.max_pixels, self.max_visual_tokens, self.spec.control)
        self.spec = replace(spec, limits=self.spec.limits)

    def use_frames(self, number: int) -> None:
        """Settle how clips are read: so many frames, for an encoder that takes no others."""
        self.spec = replace(self.spec, sampling=FrameSampling(num_frames=number))

    def clip(self, path: str) -> Clip:
        """The clip of a video, or of a part (`part_name`), as scoring reads it.

        Before `use_processor` it is bound by `max_pixels` alone.
        """
        read = read_clip if self.cache is None else self.cache.read
        file, part = split_part(path)
        return read(file, self.spec.of_part(part), self.root)

    def files_there(self, names: Sequence[str]) -> list[str]:
        """The files of videos, or of parts of recordings, that lie in the data root; each once, in order."""
        paths = dict.fromkeys(split_part(name)[0] for name in names)
        return [path for path in paths if is_there(self.root / path)]

    def connect(self, seed: int, accumulate: int, **rows: Sequence[Example]) -> None:
        """Say what the loaders yield, after `use_processor`.

        Args:
            seed: seed of the order of training rows.
            accumulate: micro-batches of an optimiser step.
            rows: examples by role: train, val, test, predict.
        """
        assert self._processor is not None, "use_processor comes first"
        self.seed, self.accumulate = seed, accumulate
        self._datasets = {
            role: ExampleDataset(  # type: ignore[misc]
                examples,
                self.root,
                self.spec.with_mode(self.frames if role == "train" else "uniform"),
                self._processor,
                self.cache,
                self.features,
                {path: fact.digest for path, fact in self.facts.items()},
                [path for path, fact in self.facts.items() if fact.retimed],
                # the others are read once
                _HELD_BYTES if role in ("train", "val") else 0,
            )
            for role, examples in rows.items()
        }

    def dataset(self, role: Role) -> ExampleDataset:
        """The rows of a role."""
        return self._datasets[role]

    def use_vision(self, digest: str | None) -> None:
        """Take clips that were encoded as `digest` says from where they are kept; None: encode all.

        To be said between `connect` and the making of loaders.
        """
        for dataset in self._datasets.values():
            dataset.use_vision(digest)

    @property
    def may_keep_states(self) -> bool:
        """Whether states of training rows may be kept, by the settings alone."""
        return self.states is not None and self.frames == "uniform"

    @property
    def keeps_states(self) -> bool:
        """Whether states of training rows are kept: frames that are drawn anew in every epoch hardly repeat."""
        rows = self._datasets["train"].examples
        return self.may_keep_states or (self.states is not None and any(r.frames_seed is not None for r in rows))

    def batches_per_epoch(self, world_size: int, limit: float | None = None) -> int:
        """Training micro-batches of an epoch on each process, of which `trainer.limit_train_batches` leaves a part."""
        return limited_batches(len(self._train_sampler(0, world_size)), limit)

    def steps_per_epoch(self, world_size: int, limit: float | None = None) -> int:
        """Optimiser steps of an epoch; the last one may have fewer micro-batches."""
        return math.ceil(self.batches_per_epoch(world_size, limit) / self.accumulate)

    def resume(self, epoch: int, batches: int) -> None:
        """Start training in `epoch`, after the micro-batches that were computed before.

        To be said before the loader is made: its workers draw rows as soon as they exist.
        """
        self._place = (epoch, batches)

    def set_epoch(self, epoch: int) -> None:
        """Draw the order and the frames of `epoch` when the training loader is iterated next."""
        assert self._train is not None, "no training loader has been made"
        self._train.set_epoch(epoch)

    def _train_sampler(self, rank: int, world_size: int) -> TrainSampler:
        dataset = self._datasets["train"]
        return TrainSampler(
            dataset.supervised, dataset.lengths, self.batch_size, self.accumulate, rank, world_size, self.seed
        )

    def _loader(self, role: Role) -> DataLoader[Any]:
        trainer = self.trainer
        rank, world = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        dataset = self._datasets[role]
        sampler: TrainSampler | EvaluationSampler
        if role == "train":
            sampler = self._train = self._train_sampler(rank, world)
            sampler.set_epoch(self._place[0])
            sampler.resume(*self._place)
        else:
            sampler = EvaluationSampler(len(dataset), self.eval_batch_size, rank, world)
        pin = trainer is not None and trainer.strategy.root_device.type == "cuda"
        return make_loader(dataset, sampler, collate_carried, self.num_workers, pin=pin, persistent=role == "train")

    def once(self, rows: Dataset[Any], size: int, collate: Collate, trainer: L.Trainer) -> DataLoader[Any]:
        """Batches of rows that a trainer of another module draws, each once over all ranks.

        Args:
            rows: rows by `rbft.data.sampler.Draw`; those of weight 0 only fill a rank's batch up.
            size: number of rows.
            collate: function that puts rows together; of several loader processes it also gets refusals.
            trainer: the trainer.
        """
        sampler = EvaluationSampler(size, self.eval_batch_size, trainer.global_rank, trainer.world_size)
        return make_loader(rows, sampler, collate, self.num_workers)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Raise here what a loader's process met."""
        return unpack(batch)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training micro-batches of this rank."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches of this rank."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Test batches of this rank."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches to write rationales for."""
        return self._loader("predict")
