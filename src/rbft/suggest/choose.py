"""Which clips to label next: methods of active learning on class probabilities and visual features."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Chooser = Callable[[Array, Array, int, np.random.Generator], list[int]]
"""Called with features (N, H), probabilities (N, C), the number of clips to choose and a source of chance."""

_NEIGHBOURS = 20  # as in the paper
_MOST_CLUSTERS = 500  # as in the paper
_PREFILTER = 10  # the paper's beta


def scaled(features: Array) -> Array:
    """Features (N, H) with every column standardised and every row of length 1, so that no column decides alone."""
    spread = features.std(0)
    centred = (features - features.mean(0)) / np.where(spread > 0, spread, 1.0)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.where(length > 0, length, 1.0))


def margins(probabilities: Array) -> Array:
    """Probability of the likeliest class less that of the second (N); small where the classifier cannot decide."""
    top = np.sort(probabilities, axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0])


def margin(features: Array, probabilities: Array, count: int, rng: np.random.Generator) -> list[int]:
    """The clips with the smallest margin (Scheffer et al. 2001), the smallest first."""
    return [int(place) for place in np.argsort(margins(probabilities), kind="stable")[:count]]


def diverse(features: Array, probabilities: Array, count: int, rng: np.random.Generator) -> list[int]:
    """Clips that the classifier is unsure about and that are unlike each other (Zhdanov, arXiv 1901.05954).

    Of the clips with the smallest margin, ten times as many as are asked for, the features are put into as many
    clusters (k-means, weighted by 1 - margin), and the clip nearest to each centre is chosen; the smallest margin comes
    first.
    """
    from sklearn.cluster import KMeans

    doubt = margins(probabilities)
    near = np.argsort(doubt, kind="stable")[: _PREFILTER * count]
    if len(near) <= count:
        return [int(place) for place in near]
    rows = scaled(features)[near]
    # a weight of 0 would leave a clip out, whose features count all the same
    weights = np.maximum(1.0 - doubt[near], 1e-6)
    means = KMeans(count, n_init=1, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings():
        # copies make fewer clusters than were asked for; margins fill up
        warnings.filterwarnings("ignore", message="Number of distinct clusters")
        distances = means.fit(rows, sample_weight=weights).transform(rows)
    chosen: list[int] = []
    for number in np.unique(means.labels_):
        members = np.flatnonzero(means.labels_ == number)
        chosen.append(int(near[members[distances[members, number].argmin()]]))
    chosen += [int(place) for place in near if place not in chosen][: count - len(chosen)]
    return sorted(chosen, key=lambda place: (doubt[place], place))


def badge(features: Array, probabilities: Array, count: int, rng: np.random.Generator) -> list[int]:
    """Clips that the classifier is unsure about and that are unlike each other: BADGE (Ash et al., arXiv 1906.03671).

    Each clip stands for the gradient of the loss at its likeliest class with respect to a linear classifier on its
    features, (p - e) x h, which is long where the classifier is unsure. The first clip is the one with the longest
    gradient; each further one is drawn with a chance in proportion to its squared distance from the nearest that is
    chosen (k-means++). The gradients (C x H numbers each) are never made: their products are products of the factors'.
    """
    rows = scaled(features)
    errors = probabilities.copy()
    errors[np.arange(len(errors)), probabilities.argmax(1)] -= 1.0
    lengths = (errors**2).sum(1) * (rows**2).sum(1)
    nearest = np.full(len(rows), np.inf)
    chosen: list[int] = []
    while len(chosen) < min(count, len(rows)):
        if not chosen:
            place = int(lengths.argmax())
        elif (total := nearest.sum()) > 0:
            place = int(rng.choice(len(rows), p=nearest / total))
        else:  # all that is left equals what is chosen
            place = int(rng.choice(np.setdiff1d(np.arange(len(rows)), chosen)))
        chosen.append(place)
        products = (errors @ errors[place]) * (rows @ rows[place])
        distance = np.maximum(lengths + lengths[place] - 2 * products, 0.0)
        nearest = np.minimum(nearest, distance)
        nearest[chosen] = 0.0
    return chosen


def typical(features: Array, known: Array, count: int, seed: int) -> list[int]:
    """Typical clips of groups that hold no labelled clip: TypiClust (Hacohen et al., arXiv 2202.02794).

    All clips are put into as many clusters as there are labelled clips and clips to choose (k-means, at most 500). From
    the largest cluster without a labelled clip comes the clip whose nearest neighbours there are closest, and so on.
    It needs no classifier and is made for the first labels.

    Args:
        features: (N, H) of the clips to choose from.
        known: (M, H) features of the labelled clips; M may be 0.
        count: number of clips to choose.
        seed: seed of k-means.
    """
    from sklearn.cluster import KMeans

    count = min(count, len(features))
    rows = scaled(np.concatenate([features, known]))
    clusters = min(len(known) + count, _MOST_CLUSTERS, len(np.unique(rows, axis=0)))
    cluster = KMeans(clusters, n_init=1, random_state=seed).fit_predict(rows)
    labelled = np.bincount(cluster[len(features) :], minlength=clusters)
    free = np.ones(len(features), bool)
    chosen: list[int] = []
    while len(chosen) < count:
        sizes = np.bincount(cluster[: len(features)][free], minlength=clusters)
        # clusters with the fewest labels first, the largest of these
        best = max(range(clusters), key=lambda number: (sizes[number] > 0, -labelled[number], sizes[number]))
        members = np.flatnonzero((cluster[: len(features)] == best) & free)
        place = int(members[_typicality(rows[members]).argmax()])
        chosen.append(place)
        free[place] = False
        labelled[best] += 1
    return chosen


def _typicality(rows: Array) -> Array:
    """The inverse of the mean distance to the nearest neighbours (N), of rows (N, H)."""
    if len(rows) == 1:
        return np.ones(1)
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(rows) - 1)).fit(rows)
    distances, _ = near.kneighbors()
    return np.asarray(1.0 / np.maximum(distances.mean(1), 1e-12))


def at_random(features: Array, probabilities: Array, count: int, rng: np.random.Generator) -> list[int]:
    """Any clips: what the others are measured against."""
    return [int(place) for place in rng.permutation(len(features))[:count]]
