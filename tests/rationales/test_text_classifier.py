"""The text classifier: what it learns, and that it never sees a text of the same group."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.errors import ConfigError
from rbft.rationales.checks.base import Material
from rbft.rationales.checks.reconstruction import Reconstruction
from rbft.rationales.checks.text_classifier import cross_validated, vectors
from rbft.rationales.checks.wording import ngrams, numbered_runs
from rbft.rationales.store import Rationale

BOOK = PromptBook(Prompts(), LabelSet(("fall", "sit")))


def texts(count: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """Texts that differ in the order of the same words."""
    rng = np.random.default_rng(seed)
    labels = [number % 2 for number in range(count)]
    orders = ("he stands then lies", "he lies then stands")
    return [f"{rng.choice(['a room', 'a hall', 'a yard'])} where {orders[label]} again" for label in labels], labels


def test_rows_are_of_unit_length_and_lone_runs_are_left_out():
    rows = vectors(["he walks home", "he walks on", "quite something else"])
    assert rows.shape == (3, 3)  # he, walks, he walks
    assert np.asarray(rows.multiply(rows).sum(1)).ravel().tolist() == pytest.approx([1, 1, 0])


def test_values_are_damped_counts_times_inverse_document_frequencies():
    said = ["he walks walks home", "he walks on", "he", ""]
    # he: 3 texts of 4; walks and he walks: 2
    often, seldom = np.log(5 / 4) + 1, np.log(5 / 3) + 1
    first = np.array([often, (1 + np.log(2)) * seldom, seldom])
    assert vectors(said).toarray()[0] == pytest.approx(first / np.linalg.norm(first))
    assert vectors([]) is None and vectors(["", ""]) is None


def test_equal_runs_and_no_others_have_equal_numbers():
    rng = np.random.default_rng(0)
    said = [rng.choice(["a", "b", "c"], rng.integers(0, 9)).tolist() for _ in range(40)]
    for n, (rows, numbers) in enumerate(numbered_runs(said, 4), start=1):
        runs = [(row, run) for row, words in enumerate(said) for run in ngrams(words, n)]
        assert rows.tolist() == [row for row, _ in runs]
        pairs = {(run, number) for (_, run), number in zip(runs, numbers.tolist(), strict=True)}
        assert len(pairs) == len({run for run, _ in pairs}) == len({number for _, number in pairs})
        assert sorted({number for _, number in pairs}) == list(range(len(pairs)))


def test_the_order_of_words_is_told_apart():
    said, labels = texts(60)
    chances = cross_validated(said, labels, [str(i) for i in range(60)], 2, 5)
    assert chances.sum(1).tolist() == pytest.approx([1.0] * 60)
    assert chances.argmax(1).tolist() == labels


def test_what_cannot_be_told_is_not_told():
    rng = np.random.default_rng(1)
    said, _ = texts(200)
    labels = rng.integers(2, size=200).tolist()
    right = (cross_validated(said, labels, [str(i) for i in range(200)], 2, 5).argmax(1) == labels).mean()
    assert 0.35 < right < 0.65


def test_samples_of_a_video_are_never_on_both_sides():
    """Each video has words of its own: a classifier that saw its other sample would know the class."""
    rng = np.random.default_rng(2)
    groups = [str(i // 2) for i in range(80)]
    labels = [int(label) for label in rng.integers(2, size=40) for _ in range(2)]
    said = [f"video{group} word{group} only{group}" for group in groups]
    alone = (cross_validated(said, labels, [str(i) for i in range(80)], 2, 5).argmax(1) == labels).mean()
    together = (cross_validated(said, labels, groups, 2, 5).argmax(1) == labels).mean()
    # one in five is held back beside its other sample, and then guessed
    assert alone > 0.8
    assert together < 0.7


def test_classes_weigh_the_same():
    """Nine in ten of one class, and nothing to tell them by: both are as likely."""
    said = ["nothing to be told"] * 40
    labels = [0] * 36 + [1] * 4
    chances = cross_validated(said, labels, [str(i) for i in range(40)], 2, 4)
    assert chances == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_summed_loss_is_weighed_against_half_the_squared_norm(classes):
    """Of one feature, the same in all texts of a class: the optimum by a search over its scores."""
    said = [f"word{i % classes}" for i in range(6 * classes)]
    labels = [i % classes for i in range(6 * classes)]
    chances = cross_validated(said, labels, [str(i) for i in range(len(said))], classes, 2)
    # by symmetry the score of the own class is `a` above 0, that of each other class a / (classes - 1) below
    others = classes - 1

    def loss(a: float) -> float:
        own = 1 / (1 + others * np.exp(-a - a / others))
        return -3 * classes * np.log(own) + 0.5 * classes * (a**2 + a**2 / others)

    best = minimize_scalar(loss, bounds=(0, 10), method="bounded", options={"xatol": 1e-9}).x
    assert chances.max(1) == pytest.approx(1 / (1 + others * np.exp(-best - best / others)), abs=1e-4)


def test_texts_that_share_no_word_tell_nothing():
    assert cross_validated(["a", "b", "c", ""], [0, 0, 1, 1], list("wxyz"), 2, 2).tolist() == [[0.5, 0.5]] * 4


def test_more_folds_than_videos_of_a_class_are_as_many_as_those():
    said, labels = texts(12)
    few = cross_validated(said, labels, [str(i) for i in range(12)], 2, 6)
    assert np.array_equal(cross_validated(said, labels, [str(i) for i in range(12)], 2, 50), few)


def rationales(said: list[str], labels: list[int]) -> tuple[Rationale, ...]:
    return tuple(
        Rationale(f"v{i}", 0, f"v{i}.mp4", BOOK.labels.names[label], "", "blind", "me", text, None, text, False)
        for i, (text, label) in enumerate(zip(said, labels, strict=True))
    )


def test_the_check_finds_the_one_that_reads_like_the_other_class():
    said, labels = texts(40)
    labels[7] = 1 - labels[7]
    scores = Reconstruction().scores(Material(rationales(said, labels), BOOK))
    low = [place for place, score in enumerate(scores) if score is not None and score < Reconstruction().threshold]
    assert low == [7]


def test_the_names_of_classes_do_not_help():
    rng = np.random.default_rng(3)
    labels = rng.integers(2, size=100).tolist()
    said = [f"someone seems to {BOOK.labels.names[label]} there" for label in labels]
    guessed = Reconstruction().guessed(Material(rationales(said, labels), BOOK))
    assert guessed is not None
    assert 0.3 < np.mean(np.argmax(guessed, 1) == labels) < 0.7


def test_too_few_videos_are_not_scored():
    said, labels = texts(14)
    assert Reconstruction().scores(Material(rationales(said, labels), BOOK)) == [None] * 14
    assert None not in Reconstruction(min_videos=7).scores(Material(rationales(said, labels), BOOK))


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="folds and min_videos of Reconstruction"):
        Reconstruction(folds=1)
