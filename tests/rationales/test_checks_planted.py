"""In a world whose truth is known, each check finds the faults of its kind and leaves true descriptions alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.planted import CHECKS, EACH, KINDS, WORLDS, Planted, failures, plant, print_failures

from rbft.rationales.checks.base import Check
from rbft.rationales.checks.contradiction import Contradiction
from rbft.rationales.checks.grounding import Grounding
from rbft.rationales.checks.leak import Leak
from rbft.rationales.checks.reconstruction import Reconstruction
from rbft.rationales.checks.text import Repetition, Truncation
from rbft.rationales.quality import Filter, verify

# The check that is there for each kind of fault.
OWN = {check.name: check.name for check in CHECKS if check.name in KINDS}


def shares(planted: Planted, check: Check) -> dict[str, float]:
    return {kind: bad / count for kind, (bad, count) in failures(planted, check).items()}


@pytest.fixture(scope="module", params=list(WORLDS))
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    style, per_class = WORLDS[request.param]
    return plant(tmp_path_factory.mktemp("world") / "clips", request.param, style, per_class, EACH)


@pytest.mark.slow
def test_each_check_finds_its_kind_and_leaves_the_truth_alone(planted):
    counted = {check.name: failures(planted, check) for check in CHECKS}
    print_failures("seed 0", counted)
    found = {name: {kind: bad / count for kind, (bad, count) in row.items()} for name, row in counted.items()}
    for name, row in found.items():
        assert row[""] < 0.05 or name == "reconstruction", name
    for kind, name in OWN.items():
        assert found[name][kind] >= 0.9, kind


@pytest.mark.slow
def test_a_classifier_of_words_finds_contradictions_where_classes_are_single_events(tmp_path):
    found = shares(plant(tmp_path / "clips", "pairs", "plain", 24, 32, kinds=("contradiction",)), Reconstruction())
    assert found["contradiction"] >= 0.9
    assert found[""] < 0.05


@pytest.mark.slow
def test_what_is_kept_is_true(planted):
    checks: list[Check] = [Leak(), Repetition(), Truncation(), Contradiction(), Grounding()]
    verified = verify(checks, Filter(), planted.material)
    bad = sum(bool(kind) for kind, r in zip(planted.kinds, verified, strict=True) if r.kept)
    assert bad / sum(r.kept for r in verified) < 0.05, "half of them were bad"
    lost = [r.reason for kind, r in zip(planted.kinds, verified, strict=True) if not kind and not r.kept]
    assert len(lost) / len(planted.of("")) < 0.08
    assert {r.reason for kind, r in zip(planted.kinds, verified, strict=True) if kind == "empty"} == {"empty"}


def test_the_cheap_half_of_it(tmp_path: Path):
    """A smaller world, the checks that watch no video."""
    small = plant(
        tmp_path / "clips", "pairs", "plain", 6, 4, kinds=("contradiction", "leak", "repetition", "truncation")
    )
    for check in (Contradiction(), Leak(), Repetition(), Truncation()):
        found = shares(small, check)
        assert found[check.name] >= 0.75, check.name
        assert found[""] == 0, check.name
