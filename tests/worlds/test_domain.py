"""A domain on disk: whole or absent, the same for the same settings, and true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rbft.errors import ConfigError, DataError
from rbft.worlds import domain as domain_module
from rbft.worlds.domain import write_domain
from rbft.worlds.events import RULES, TARGETS, UNNAMED, Domain
from rbft.worlds.language import meaning

SETTINGS = {
    "domain": "pairs",
    "style": "plain",
    "seed": 0,
    "train_per_class": 2,
    "val_per_class": 1,
    "test_per_class": 1,
}


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("domain") / "pairs"
    write_domain(root, **SETTINGS)
    return root


def truth(root: Path) -> list[dict]:
    return [json.loads(line) for line in (root / "truth.jsonl").read_text().splitlines()]


def test_layout_and_truth(written: Path):
    rows = truth(written)
    assert len(rows) == 8 * 4
    assert {row["path"] for row in rows} == {p.relative_to(written).as_posix() for p in written.rglob("*.mp4")}
    for row in rows:
        assert row["path"].startswith(f"{row['split']}/{row['label']}/{row['label']}_0")
        labelled = row["objects"][0]
        phrase = meaning(row["label"])
        assert f"the {labelled['colour']} {labelled['shape']} {phrase} ." in row["description"]
        assert row["description"].count(" .") == len(row["objects"])


def test_same_settings_same_bytes_and_other_seeds_other_clips(written: Path, tmp_path: Path):
    write_domain(tmp_path / "again", **SETTINGS)
    assert contents(tmp_path / "again") == contents(written)
    write_domain(tmp_path / "other", **SETTINGS | {"seed": 1})
    videos = {p.read_bytes() for p in written.rglob("*.mp4")}
    assert not videos & {p.read_bytes() for p in (tmp_path / "other").rglob("*.mp4")}


def test_more_training_clips_leave_the_test_clips_as_they_are(written: Path, tmp_path: Path):
    write_domain(tmp_path / "more", **SETTINGS | {"train_per_class": 3})
    more, before = contents(tmp_path / "more"), contents(written)
    assert all(more[name] == data for name, data in before.items() if name.endswith(".mp4"))


def test_a_second_call_does_nothing(written: Path):
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    write_domain(written, **SETTINGS)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


def test_a_folder_with_other_content_is_refused_and_kept(written: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(DataError, match="is not a generated domain"):
        write_domain(tmp_path / "mine", **SETTINGS)
    assert contents(tmp_path / "mine") == {"notes.txt": b"keep me"}
    before = contents(written)
    with pytest.raises(DataError, match="another domain: settings"):
        write_domain(written, **SETTINGS | {"seed": 5})
    assert contents(written) == before


def test_damage_is_noticed(tmp_path: Path):
    root = tmp_path / "domain"
    settings = SETTINGS | {"domain": "unions", "train_per_class": 1, "val_per_class": 0}
    write_domain(root, **settings)
    next(root.rglob("*.mp4")).unlink()
    with pytest.raises(DataError, match="was changed since it was written"):
        write_domain(root, **settings)


def test_a_killed_run_leaves_no_half_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: Path):
    root = tmp_path / "domain"
    real, calls = domain_module.write_mp4, []

    def killed(*args):
        calls.append(args)
        if len(calls) == 10:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(domain_module, "write_mp4", killed)
    with pytest.raises(KeyboardInterrupt):
        write_domain(root, **SETTINGS)
    assert not root.exists()
    monkeypatch.setattr(domain_module, "write_mp4", real)
    write_domain(root, **SETTINGS)
    assert contents(root) == contents(written)


def test_unions_show_their_events_in_turn(tmp_path: Path):
    write_domain(tmp_path / "u", **SETTINGS | {"domain": "unions", "train_per_class": 4})
    for row in truth(tmp_path / "u"):
        labelled = row["objects"][0]
        assert (labelled["first"], labelled["second"]) == TARGETS["unions"][row["label"]][row["event"]]
    shown = {(row["label"], row["event"]) for row in truth(tmp_path / "u") if row["split"] == "train"}
    assert len(shown) == 16


@pytest.mark.parametrize(("key", "value"), [("domain", "triples"), ("style", "striped"), ("test_per_class", -1)])
def test_bad_settings_are_named(tmp_path: Path, key: str, value: object):
    with pytest.raises(ConfigError, match=key):
        write_domain(tmp_path / "x", **SETTINGS | {key: value})
    assert not (tmp_path / "x").exists()


def test_decoded_clips_show_the_truth(written: Path):
    """The eight frames a reader takes from a file are those that the model was made for."""
    from rbft.video.clip import read_clip
    from rbft.video.clip_spec import ClipSpec
    from rbft.video.sampling import FrameSampling
    from rbft.worlds.scenes import COLOURS

    for row in truth(written):
        clip = read_clip(written / row["path"], ClipSpec(FrameSampling(num_frames=8), 64 * 64))
        frames = clip.frames.permute(0, 2, 3, 1).numpy().astype(int)  # (8, 64, 64, 3)
        background = np.median(frames, axis=(0, 1, 2))
        for thing in row["objects"]:
            paint = np.array(COLOURS[thing["colour"]])
            painted = (np.abs(frames - paint).sum(-1) < 110) & (np.abs(frames - background).sum(-1) > 60)
            seen = painted.sum((1, 2)) >= 12
            if "blink" in (thing["first"], thing["second"]):
                assert not seen.all()
                assert seen.sum() >= 4
            else:
                assert seen.all(), (row, seen)


@pytest.mark.parametrize("domain", RULES)
def test_clips_of_a_rule_follow_it_with_two_objects(domain: Domain, tmp_path: Path):
    write_domain(tmp_path / "rules", **SETTINGS | {"domain": domain})
    rows = truth(tmp_path / "rules")
    assert {row["label"] for row in rows} == set(RULES[domain])
    for row in rows:
        one, other = ((thing["first"], thing["second"]) for thing in row["objects"])
        assert RULES[domain][row["label"]][row["event"]] == (one, other)
    assert len({row["description"] for row in rows}) == len(rows)


def test_labelled_clips_can_show_some_of_a_unions_events_only(tmp_path: Path):
    write_domain(
        tmp_path / "some",
        **SETTINGS
        | {"domain": "unions", "train_per_class": 5, "val_per_class": 3, "test_per_class": 4, "events_shown": 2},
    )
    shown = {
        split: {row["event"] for row in truth(tmp_path / "some") if row["split"] == split}
        for split in ("train", "val", "test")
    }
    assert shown == {"train": {0, 1}, "val": {0, 1}, "test": {0, 1, 2, 3}}
    with pytest.raises(ConfigError, match="events_shown"):
        write_domain(tmp_path / "none", **SETTINGS | {"events_shown": 0})


def test_labelled_clips_of_wide_unions_show_four_of_six_events_unless_all_are_asked_for(tmp_path: Path):
    wide = SETTINGS | {"domain": "wide_unions", "train_per_class": 7, "test_per_class": 6}
    for name, more, shown in (("some", {}, set(range(4))), ("all", {"events_shown": 6}, set(range(6)))):
        write_domain(tmp_path / name, **wide | more)
        rows = truth(tmp_path / name)
        assert {row["event"] for row in rows if row["split"] == "train"} == shown
        assert {row["event"] for row in rows if row["split"] == "test"} == set(range(6))
        for row in rows:
            one, *others = ((thing["first"], thing["second"]) for thing in row["objects"])
            assert one == TARGETS["wide_unions"][row["label"]][row["event"]]
            assert set(others) <= set(UNNAMED)
    with pytest.raises(DataError, match="another domain: settings"):
        write_domain(tmp_path / "all", **wide)


def test_a_domain_written_before_there_was_a_choice_of_events_is_still_known(written: Path):
    settings = json.loads((written / "world.json").read_text())["settings"]
    assert "events_shown" not in settings
