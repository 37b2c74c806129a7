"""How far descriptions of a clip agree, by hand, and beside what stage 1 gains."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from tools.sample_agreement import agreements_of, gains_of, main, shared

from rbft.errors import ConfigError
from rbft.files import write_json, write_jsonl
from rbft.rationales.store import Rationale

UP, BLINKS = "the red ring goes left then goes up .", "the blue star waits then blinks ."


def test_what_objects_do_is_compared_and_nothing_else():
    assert shared([f"{UP} {BLINKS}", f"{BLINKS} the cyan ring goes left then goes up ."]) == 1.0
    assert shared([f"{UP} {BLINKS}", UP]) == pytest.approx(2 / 3)
    # of three pairs one agrees; the order of what is done counts
    assert shared([UP, UP, "the red ring goes up then goes left ."]) == pytest.approx(1 / 3)
    assert shared([f"{UP} {UP}", UP]) == pytest.approx(2 / 3), "said twice is not said once"
    assert shared(["nothing happens .", "nothing happens ."]) == 1.0


@pytest.fixture
def sweeps(tmp_path: Path) -> tuple[Path, Path]:
    """Three draws of a model that agree by 1, 2/3 and 0, and gain 20, 10 and -5 points."""
    described, tested = {}, {}
    others = (UP, f"{UP} {BLINKS}", BLINKS)
    for seed, (other, own) in enumerate(zip(others, (0.7, 0.6, 0.45), strict=True)):
        point = {"model.vlm": "a", "seed_everything": seed}
        texts = [
            Rationale("clip", n, "clip.mp4", "dax", "", "blind", "a", text, None, text, False)
            for n, text in enumerate((UP, other))
        ]
        write_jsonl(tmp_path / f"described{seed}" / "explore" / "rationales.jsonl", [asdict(text) for text in texts])
        described[f"{seed}"] = {"point": point | {"method": "described_often"}, "folder": f"described{seed}"}
        for method, accuracy in (("concluded_mixture_upper", 0.9), ("caption_probe", 0.5)):
            folder = tmp_path / f"{method}{seed}"
            write_json(folder / "metrics.json", {"test/accuracy": accuracy})
            tested[f"{method}{seed}"] = {"point": point | {"method": method}, "folder": folder.name}
        write_json(tmp_path / f"concluded_mixture_upper{seed}" / "test_upper" / "metrics.json", {"test/accuracy": own})
    for name, runs in (("agreement", described), ("gains", tested)):
        write_json(tmp_path / name / "plan.json", {"where": str(tmp_path), "runs": runs})
    return tmp_path / "agreement", tmp_path / "gains"


def test_draws_are_met_with_the_gain_of_stage_1(sweeps, monkeypatch, capsys):
    agreement, gains = sweeps
    assert [one.words for one in agreements_of(agreement)] == pytest.approx([1, 2 / 3, 0])
    # of the stage that concludes itself, not of the mixture
    assert gains_of(gains) == pytest.approx({("a", 0): 0.2, ("a", 1): 0.1, ("a", 2): -0.05})
    monkeypatch.setattr(sys, "argv", ["sample_agreement", str(agreement), "--gains", str(gains)])
    main()
    said = capsys.readouterr().out
    assert "| a | 3 | 55.6 | +8.3 |" in said and "all draws: rank correlation 1.00" in said


def test_a_sweep_without_several_texts_is_refused(sweeps):
    with pytest.raises(ConfigError, match="no finished run has several texts of a clip in its stage 'explore'"):
        agreements_of(sweeps[1])
