"""From what a run sees to suggestions: clips to label next, and labels to look at again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rbft.evaluation.predictions import Prediction, read_predictions
from rbft.runs.run_folder import RunFolder
from rbft.suggest.choose import badge, diverse, margin, margins, typical
from rbft.suggest.clips import Clip, Seen
from rbft.suggest.doubts import cross_fitted, find_doubts

Array = NDArray[np.float64]
_SHOWN = 3


@dataclass(frozen=True)
class NextClip:
    """A clip that is worth a label.

    Args:
        clip: the clip.
        top: the likeliest classes with their probabilities, at most three.
        margin: probability of the likeliest class less that of the second.
    """

    clip: Clip
    top: tuple[tuple[str, float], ...]
    margin: float


@dataclass(frozen=True)
class DoubtedClip:
    """A clip whose label looks wrong.

    Args:
        clip: the clip.
        label: label that it has.
        other: class that it rather looks like.
        label_probability: probability of its label.
        other_probability: probability of that class.
        judged_by: classifier that has not seen the clip: `test` or `validation` of the run, or a `probe` on its
            features that was fitted to the other clips.
    """

    clip: Clip
    label: str
    other: str
    label_probability: float
    other_probability: float
    judged_by: str


def choose_next(
    seen: Seen, known: Array, names: Sequence[str], count: int, method: str, seed: int = 0
) -> list[NextClip]:
    """The clips to label next, in the order in which they were chosen.

    Args:
        seen: clips without labels with the run's answers.
        known: (M, H) features of the labelled clips.
        names: classes of the run.
        count: number of clips to choose.
        method: `diverse`, `badge`, `margin` or `typiclust`.
        seed: seed of the choice.
    """
    if not seen.clips:
        return []
    chances = seen.probabilities()
    if method == "typiclust":
        places = typical(seen.features, known, count, seed)
    else:
        choose = {"diverse": diverse, "badge": badge, "margin": margin}[method]
        places = choose(seen.features, chances, count, np.random.default_rng(seed))
    found = margins(chances)
    chosen = []
    for place in places:
        ranked = sorted(zip(names, chances[place].tolist(), strict=True), key=lambda pair: -pair[1])
        chosen.append(NextClip(seen.clips[place], tuple(ranked[:_SHOWN]), float(found[place])))
    return chosen


def held_out_answers(run: Path) -> dict[str, list[Prediction]]:
    """Answers of a run to clips that its weights were not trained on, by what they were for.

    Raises:
        DataError: A file of predictions is damaged.
    """
    folder = RunFolder(run)
    paths = {"test": folder.predictions, "validation": folder.validation}
    return {kind: read_predictions(path) for kind, path in paths.items() if path is not None and path.is_file()}


@dataclass(frozen=True)
class Judge:
    """A classifier that judged labels of clips it had not seen.

    Args:
        name: `test`, `validation` or `probe`, as `DoubtedClip.judged_by`.
        clips: number of clips it judged.
        agreement: share of the labels that it would give, too.
        majority: share of the class that most of these clips have.
    """

    name: str
    clips: int
    agreement: float
    majority: float

    def describe(self) -> str:
        """What its doubts are worth, in a sentence."""
        who = {
            "probe": "A linear probe that was fitted to other clips",
            "test": "The run's test",
            "validation": "The run's validation",
        }[self.name]
        text = f"{who} judged {self.clips} labels and agrees with {self.agreement:.0%} of them"
        weak = self.agreement <= self.majority
        return text + (
            f", no more than the largest class has ({self.majority:.0%}): its doubts mean little." if weak else "."
        )


def doubted_clips(
    seen: Seen, held_out: Mapping[str, Sequence[Prediction]], run_names: Sequence[str]
) -> tuple[list[DoubtedClip], list[Judge]]:
    """Labels that look wrong, the least likely first.

    A clip that the run tested or validated on is judged by that answer; all others by a linear probe on the model's
    visual features that was fitted to other clips. The two kinds are judged apart, because their probabilities are not
    on one scale. Answers of a run that had other classes are left out.

    Args:
        seen: labelled clips.
        held_out: what `held_out_answers` gives.
        run_names: classes of the run.

    Returns:
        The doubted clips, and who judged.
    """
    pairs = [(clip, clip.record) for clip in seen.clips if clip.record is not None]
    names = sorted({record.label for _, record in pairs})
    if set(names) <= set(run_names):
        names = list(run_names)
    labels = np.array([names.index(record.label) for _, record in pairs], dtype=np.int64)
    judged_by = ["probe"] * len(pairs)
    chances = np.full((len(pairs), len(names)), np.nan)
    places = {record.id: place for place, (_, record) in enumerate(pairs)}
    for kind, predictions in held_out.items() if names == list(run_names) else ():
        for said in predictions:
            if said.predicted is not None and (place := places.get(said.id)) is not None:
                judged_by[place] = kind
                chances[place] = said.calibrated or said.probabilities
    probed = np.array([kind == "probe" for kind in judged_by])
    if probed.any():
        groups = [record.group for _, record in pairs]
        chances[probed] = cross_fitted(seen.features, labels, len(names), groups)[probed]
    found: list[DoubtedClip] = []
    judges: list[Judge] = []
    for kinds in (("probe",), ("test", "validation")):
        rows = np.array([place for place, kind in enumerate(judged_by) if kind in kinds], dtype=np.int64)
        judged = rows[np.isfinite(chances[rows]).all(1)]
        for doubt in find_doubts(chances[judged], labels[judged]):
            place = int(judged[doubt.place])
            clip, label, other = pairs[place][0], names[labels[place]], names[doubt.other]
            given, rather = doubt.given_probability, doubt.other_probability
            found.append(DoubtedClip(clip, label, other, given, rather, judged_by[place]))
        judges += [_judge(kind, chances, labels, [p for p in judged if judged_by[p] == kind]) for kind in kinds]
    doubts = sorted(found, key=lambda clip: (clip.label_probability, -clip.other_probability))
    return doubts, [judge for judge in judges if judge.clips]


def _judge(kind: str, chances: Array, labels: NDArray[np.int64], rows: Sequence[int]) -> Judge:
    if not rows:
        return Judge(kind, 0, 0.0, 0.0)
    chosen = labels[list(rows)]
    agreement = float((chances[list(rows)].argmax(1) == chosen).mean())
    return Judge(kind, len(rows), agreement, float(np.bincount(chosen).max() / len(rows)))
