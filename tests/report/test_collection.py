"""A report is about the runs that were named, each once, and knows in which settings they differ."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from tests.support.finished_runs import write_grid, write_planned, write_run

from rbft.errors import ConfigError, DataError
from rbft.evaluation.comparison import compare
from rbft.files import read_json, write_json
from rbft.report.collection import choose_baseline, collect
from rbft.runs.run_folder import REPLICATES
from rbft.runs.stage_record import read_record, write_record


def points(*folders) -> list[dict]:
    return [entry.point for entry in collect([str(folder) for folder in folders])]


def test_runs_are_told_apart_by_method_shots_seed_and_draw(tmp_path):
    found = points(write_grid(tmp_path))
    assert len(found) == 19
    assert {"method": "sft", "data.shots": 8, "seed_everything": 2, "data.draw": 0} in found
    assert {key for point in found for key in point} == {"method", "data.shots", "seed_everything", "data.draw"}


def test_settings_that_differ_tell_runs_apart_and_those_that_change_no_result_do_not(tmp_path):
    write_run(tmp_path, "sft", 12, changes={"model": {"optim": {"lr": 0.01}}, "data": {"num_workers": 4}})
    write_run(tmp_path / "b", "sft", 14)
    assert [point["model.optim.lr"] for point in points(tmp_path)] == [0.001, 0.01]
    assert not any("data.num_workers" in point for point in points(tmp_path))


def test_a_setting_that_follows_the_seed_or_the_draw_tells_no_runs_apart(tmp_path):
    def changed(seed: int) -> dict:
        return {"data": {"format": {"class_path": "ShapesWorld", "init_args": {"seed": seed}}}}

    for seed in (4, 5):
        write_run(tmp_path / "a", "sft", 12, seed=seed, changes=changed(seed))
        write_run(tmp_path / "b", "sft", 12, seed=seed, changes=changed(seed + (seed == 5)))
    assert [set(point) for point in points(tmp_path / "a")] == [
        {"method", "data.shots", "seed_everything", "data.draw"}
    ] * 2
    assert "data.format.init_args.seed" in points(tmp_path / "b")[0], "it is not the seed in every run"


def test_several_experiments_are_named(tmp_path):
    write_run(tmp_path, "sft", 12)
    write_run(tmp_path, "sft", 12, experiment="falls")
    assert {point["experiment"] for point in points(tmp_path)} == {"tiny", "falls"}


def test_a_run_that_is_named_twice_counts_once_and_a_copy_is_refused(tmp_path):
    run = write_run(tmp_path / "runs", "sft", 12)
    assert len(points(tmp_path / "runs", run, tmp_path / "runs" / "tiny")) == 1
    shutil.copytree(run, tmp_path / "runs" / "copy")
    with pytest.raises(DataError, match="hold the same run"):
        points(tmp_path / "runs")


def rewritten(run: Path, stage: str, **changes: object) -> None:
    record = read_record(run / stage)
    assert record is not None
    write_record(run / stage, dataclasses.replace(record, **changes))


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("write", {"outputs": {"rationales.jsonl": "imported"}}),
        ("classification", {"fingerprint": "other videos"}),
    ],
)
def test_runs_that_differ_in_rationales_or_data_alone_are_told_apart_by_their_variant(tmp_path, stage, changes):
    for seed in (0, 1):
        write_run(tmp_path / "a", "sft", 10, seed=seed)
        write_run(tmp_path / "a", "rbft", 12, seed=seed, changes={"variant": "rbft-draw0"})
        theirs = write_run(tmp_path / "b", "rbft", 16, seed=seed, changes={"variant": "theirs"})
        rewritten(theirs, stage, **changes)
    entries = collect([str(tmp_path)])
    assert [(entry.point["method"], entry.point.get("variant")) for entry in entries] == [
        *[("rbft", "rbft")] * 2,
        *[("sft", None)] * 2,
        *[("rbft", "theirs")] * 2,
    ]
    groups = compare([entry.member() for entry in entries], {"method": "sft"}, REPLICATES)
    wins = {group.point.get("variant"): group.comparison and group.comparison.difference.wins for group in groups}
    assert wins == {None: None, "rbft": 2, "theirs": 2}, "each beside the baseline at its seeds"


def test_runs_of_one_variant_that_nothing_tells_apart_are_refused(tmp_path):
    write_run(tmp_path / "a", "rbft", 12)
    rewritten(write_run(tmp_path / "b", "rbft", 16), "write", fingerprint="other videos")
    with pytest.raises(
        DataError, match=r"a/tiny.* and .*b/tiny.* same settings, seed, draw and variant over other data"
    ):
        points(tmp_path)


def test_a_sweep_folder_says_which_runs_are_missing(tmp_path):
    sweep = write_planned(tmp_path)
    found = collect([str(sweep)])
    assert [entry.finished for entry in found] == [True, True, True, False]
    assert found[3].point == {"method": "rbft", "data.shots": 4, "seed_everything": 1, "data.draw": 0}
    assert found[0].where == tmp_path
    (sweep / "plan.json").write_text('{"runs": 3}')
    with pytest.raises(DataError, match=r"plan\.json"):
        collect([str(sweep)])


def test_a_folder_may_begin_with_a_tilde(tmp_path, monkeypatch):
    write_run(tmp_path / "runs", "sft", 12)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(points("~/runs")) == 1


def test_runs_behind_links_are_found_once(tmp_path):
    write_run(tmp_path / "runs", "sft", 12)
    write_run(tmp_path / "elsewhere", "sft", 14, seed=1)
    (tmp_path / "runs" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "same").symlink_to(tmp_path / "elsewhere" / "tiny")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "runs")
    assert [point["seed_everything"] for point in points(tmp_path / "runs")] == [1, 0]


def test_folders_without_runs_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        points(tmp_path / "none")
    with pytest.raises(ConfigError, match="no run in it"):
        points(tmp_path)


def test_the_baseline_is_sft_unless_another_is_named(tmp_path):
    entries = collect([str(write_grid(tmp_path))])
    assert choose_baseline(entries, None) == {"method": "sft"}
    assert choose_baseline(entries, "probe") == {"method": "probe"}
    with pytest.raises(ConfigError, match="did you mean 'probe'"):
        choose_baseline(entries, "prob")
    assert choose_baseline([entry for entry in entries if entry.point["method"] == "rbft"], None) is None


def test_runs_that_two_sweeps_plan_and_none_has_begun_are_refused_as_the_same(tmp_path):
    folders = [str(write_planned(tmp_path / name)) for name in "ab"]
    shutil.rmtree(tmp_path / "b" / "runs" / "tiny")
    write_run(tmp_path / "b" / "runs", "rbft", 12, seed=1)
    with pytest.raises(DataError, match="hold the same run"):
        collect(folders)


def test_a_sweep_keeps_its_own_baseline_where_no_other_is_asked_for(tmp_path):
    folders = []
    for name, baseline in (
        ("a", {"method": "rbft"}),
        ("b", {"method": "rbft"}),
        ("c", {"method": "gone"}),
        ("d", None),
    ):
        sweep = write_planned(tmp_path / name)
        write_json(sweep / "plan.json", {**read_json(sweep / "plan.json"), "baseline": baseline})
        folders.append(str(sweep))
    entries = collect(folders[:1])
    assert choose_baseline(entries, None, folders[:1]) == {"method": "rbft"}
    assert choose_baseline(entries, None, folders[:2]) == {"method": "rbft"}
    assert choose_baseline(entries, None, [*folders[3:], str(tmp_path)]) == {"method": "sft"}, "it says none"
    assert choose_baseline(entries, None, folders[2:3]) == {"method": "sft"}, "no run has it"
    assert choose_baseline(entries, None, folders[1:3]) == {"method": "sft"}, "they do not agree"
    assert choose_baseline(entries, "sft", folders[:1]) == {"method": "sft"}
