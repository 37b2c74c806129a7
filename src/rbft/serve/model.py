"""The model of a finished run, kept loaded; one video at a time, answered as `rbft predict` answers it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from rbft import __version__
from rbft.errors import VideoError
from rbft.files import read_json
from rbft.predict import Classifier, Rule, VideoInput
from rbft.runs.names import METRICS
from rbft.video.clip import Clip, read_clip
from rbft.video.clip_cache import ClipCache
from rbft.video.clip_spec import ClipSpec
from rbft.video.container import reading_within


@dataclass(frozen=True)
class Answered:
    """What the model says of a video.

    Args:
        predicted: The likeliest class.
        probabilities: (class, probability), the likeliest first; of all classes, or of the five likeliest.
        calibrated: whether the probabilities are calibrated by the run's temperature.
        rationale: The model's own words; None where none were asked for.
        frames: (T, 3, H, W) uint8: what the model was shown.
        timestamps: timestamps of the frames, in seconds.
        duration: duration of the video, in seconds.
        at_least: whether the probabilities are lower bounds, as the likeliest classes alone were scored exactly.
    """

    predicted: str
    probabilities: tuple[tuple[str, float], ...]
    calibrated: bool
    rationale: str | None
    frames: Tensor
    timestamps: tuple[float, ...]
    duration: float
    at_least: bool = False


class _LastClip:
    """Remembers the clip that was read last: the model and a person look at the same frames, decoded once."""

    def __init__(self) -> None:
        self._asked: tuple[str, ClipSpec, Path | None] | None = None
        self.clip: Clip | None = None

    def read(self, path: str | Path, spec: ClipSpec, root: Path | None = None, rng: object = None) -> Clip:
        """As `read_clip`; the frames of a test are never random, so `rng` is not used."""
        asked = (str(path), spec, root)
        if self.clip is None or asked != self._asked:
            self.clip, self._asked = read_clip(path, spec, root), asked
        return self.clip

    def forget(self) -> None:
        self.clip = self._asked = None


class ServedModel:
    """A finished run with its weights loaded.

    Args:
        run: The run's folder.
        flags: settings of speed, see `rbft.predict.Classifier`.
        time_limit: Seconds that reading one video may take.
        best_only: whether only the likeliest classes are scored exactly (`rbft.predict.Classifier.predict`).

    Raises:
        RBFTError: The folder is no finished run with a test stage, its weights were changed or cannot be loaded, or
            `best_only` does not go with how the run answers.
    """

    def __init__(
        self, run: Path, flags: Sequence[str] = (), time_limit: float = math.inf, *, best_only: bool = False
    ) -> None:
        # what strangers send is kept nowhere
        private = ["--data.cache_clips", "false", "--data.cache_features", "false", "--data.num_workers", "0"]
        self._classifier = Classifier(run, [*flags, *private], time_limit)
        self._best_only = best_only
        if best_only:
            self._classifier.check_best_only(None, Rule())
        self.labels = self._classifier.labels.names
        # whatever is sent here is nothing that the built-in model was made for
        self.cautions = self._classifier.recorded.cautions(own_videos=True)
        self._clips = _LastClip()

    def load(self) -> str:
        """Load the weights now rather than with the first video; gives the name of the base model."""
        model = self._classifier.model
        model.data.cache = cast("ClipCache", self._clips)
        return model.module.name

    def predict(self, video: Path, *, rationale: bool) -> Answered:
        """Answer one video.

        Args:
            video: The file; it alone is read, and a link that leads out of its folder is refused.
            rationale: whether the model explains its answer, even where the run answers directly.

        Raises:
            VideoError: It cannot be read.
        """
        model = self._classifier.model
        try:
            with reading_within(self._classifier.time_limit):
                clip = model.data.at(video.parent).clip(video.name)
            # a run whose two questions are one and the same has no second way to ask
            why = rationale and model.book.blind_prompt() != model.book.label_prompt()
            asked = [VideoInput(video.name, video.name, video.parent)]
            (said,) = self._classifier.predict(asked, rationale=why, best_only=self._best_only)
        finally:
            self._clips.forget()
        if said.predicted is None:
            raise VideoError(video.name, (said.error or "").removeprefix(f"{video.name}: "))
        chances = said.calibrated or said.raw
        ranked = sorted(zip(self.labels, chances, strict=True), key=lambda pair: -pair[1])
        return Answered(
            said.predicted,
            said.top if said.at_least else tuple(ranked),
            bool(said.calibrated),
            said.rationale,
            clip.frames,
            clip.timestamps,
            clip.duration,
            said.at_least,
        )


@dataclass(frozen=True)
class About:
    """The run behind the page.

    Args:
        title: `experiment / variant / seed`.
        model: The base model's name.
        labels: The classes.
        metrics: metrics of its test; empty where the folder has none.
        cautions: reasons against using it.
    """

    title: str
    model: str
    labels: tuple[str, ...]
    metrics: dict[str, Any]
    cautions: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The answer of `GET /api/run`."""
        return {
            "run": self.title,
            "model": self.model,
            "labels": list(self.labels),
            "metrics": self.metrics,
            "warnings": list(self.cautions),
            "rbft": __version__,
        }


def about(run: Path, model: str, labels: tuple[str, ...], cautions: Sequence[str] = ()) -> About:
    """Read a run's folder.

    Args:
        run: The folder.
        model: The base model's name.
        labels: The classes.
        cautions: reasons against using it.

    Raises:
        DataError: Its metrics.json is damaged.
    """
    file = run / METRICS
    metrics = read_json(file) if file.is_file() else {}
    title = " / ".join(run.resolve().parts[-3:])
    return About(title, model, labels, metrics if isinstance(metrics, dict) else {}, tuple(cautions))
