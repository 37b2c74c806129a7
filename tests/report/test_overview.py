"""The page over many runs: its figures are the statistics', what is missing says so, and names are text."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from tests.support.finished_runs import RIGHT, VIDEOS, write_grid, write_run
from tests.support.scenes import write_scene

from rbft.evaluation.comparison import compare
from rbft.evaluation.statistics import cautions, holm, mean_interval, paired_difference
from rbft.report.collection import choose_baseline, collect
from rbft.report.exports import markdown, write_tensorboard
from rbft.report.gallery import gallery
from rbft.report.overview import Overview, group_words, make_overview, method_of
from rbft.report.overview_page import write_overview

EVIL = "<script>alert(1)</script>"


def overview(root: Path, clips: int = 0) -> Overview:
    entries = collect([str(root)])
    return make_overview(entries, choose_baseline(entries, None), clips)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("grid")
    for number in range(0, VIDEOS, 2):
        write_scene(root / "data" / "test" / f"{number}.mp4", number, num_frames=4)
    return write_grid(root / "runs", str(root / "data"))


def words(page: str) -> str:
    """The page as it is read, without its pictures."""
    text = re.sub(r"<(style|script)>.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def test_the_table_has_the_figures_of_the_statistics(grid):
    found = overview(grid)
    assert [group_words(group.point) for group in found.groups][:4] == [
        "zero_shot, 8 shots",
        "sft, 4 shots",
        "sft, 8 shots",
        "rbft, 4 shots",
    ]
    shares = {key: [right / VIDEOS for right in RIGHT[key[0]][key[1]]] for key in (("sft", 8), ("rbft", 8))}
    mean, difference = mean_interval(shares["rbft", 8]), paired_difference(shares["rbft", 8], shares["sft", 8])
    group = next(group for group in found.groups if group_words(group.point) == "rbft, 8 shots")
    assert group.accuracy == mean
    assert group.comparison is not None and group.comparison.difference == difference
    tested = [
        one.comparison.difference.p_permutation
        for one in found.groups
        if one.comparison and one.comparison.difference.difference.count > 1
    ]
    assert len(tested) == 4
    assert group.comparison.p in holm(tested)
    page = words(write_overview(found, "tiny"))
    change = difference.difference
    assert (
        f"rbft 8 3/3 {mean.mean:.1%} {mean.low:.1%} to {mean.high:.1%} 33.3% 33.3% {100 * change.mean:+.1f} "
        f"{100 * change.low:+.1f} to {100 * change.high:+.1f} {group.comparison.p:.3f}"
    ) in page
    for caution in cautions(3, group.comparison.tests):
        assert f"rbft, 8 shots: {caution}" in page
    assert "zero_shot, 8 shots: 1 pair of runs: fewer than 3 seeds" in page
    assert words(write_overview(found, "tiny")) == page, "the same runs give the same page"


def test_what_is_missing_is_a_dash_and_never_a_zero(tmp_path):
    write_run(tmp_path, "sft", 12)
    folder = write_run(tmp_path, "rbft", 12, seed=1)
    (folder / "metrics.json").unlink()
    page = words(write_overview(overview(tmp_path), "tiny"))
    assert "1 of 2 runs are finished" in page
    assert "rbft 4 0/1 - - - - - -" in page
    assert "A curve needs runs with two or more numbers of labelled videos" in page
    assert " 0.0%" not in page.split("Confusions")[0]


def test_recall_of_each_class_is_compared(grid):
    page = words(write_overview(overview(grid), "tiny"))
    mine, base = sum((20, 21, 20)), sum((16, 18, 17))
    lift = {right: len(range(0, right, 3)) for right in (20, 21, 16, 18, 17)}
    change = (lift[20] + lift[21] + lift[20] - lift[16] - lift[18] - lift[17]) / 24
    assert mine > base
    part = page.split("Recall of each class beside sft")[1].split("Points of recall")[0]
    assert f"{100 * change:+.1f}" in part.split("push & pull")[0].split()


def test_rationales_and_cost_are_told(grid):
    page = words(write_overview(overview(grid), "tiny"))
    assert "rbft, 8 shots 84.7% 75.0% 75.0% 37.5%" in page
    assert "zero_shot write rationale classification test probe all stages" in page
    assert "rbft, 8 shots 60 60 60 60 60 300 240 - -" in page, "GPU memory is known of training stages alone here"
    assert "sft, 8 shots 60 60 120 120" in page


def test_names_are_text_everywhere(tmp_path):
    for shots in (4, 8):
        write_run(tmp_path, "sft", 12, shots, classes=(EVIL, "b"), experiment="a")
        write_run(
            tmp_path,
            "rbft",
            12,
            shots,
            classes=(EVIL, "b"),
            experiment="a",
            words=EVIL,
            changes={"model": {"vlm": EVIL}},
        )
        write_run(tmp_path, "rbft", 12, shots, 1, classes=(EVIL, "b"), experiment="a")
    found = overview(tmp_path, 4)
    page = write_overview(found, EVIL)
    assert page.count("<script") == 1
    assert EVIL in words(page)
    assert EVIL not in markdown(found)


def test_errors_come_first_and_the_gallery_is_bounded(grid):
    found = overview(grid, 7)
    cards = found.cards["tiny"]
    assert (len(cards), found.videos["tiny"]) == (7, VIDEOS)
    wrong = [len(card.wrong) for card in cards]
    assert wrong == sorted(wrong, reverse=True)
    assert sum(card.disagree for card in cards) >= 3
    for card in cards:
        assert (card.frames is not None) is (int(Path(card.video).stem) % 2 == 0)
        assert card.frames or card.missing == "the video is not there any more"
        assert card.classes[0][0] == card.label
    assert [one.name for one in cards[0].verdicts] == ["zero_shot", "sft", "rbft", "probe"]
    assert not overview(grid, 0).cards


def test_a_video_outside_of_the_data_root_is_not_shown(tmp_path):
    write_scene(tmp_path / "secret.mp4", 1, num_frames=4)
    folder = write_run(tmp_path / "runs", "sft", 12, data=str(tmp_path / "data"))
    (tmp_path / "data" / "test").mkdir(parents=True)
    path = folder / "predictions.jsonl"
    path.write_text(re.sub(r"test/\d+\.mp4", "../secret.mp4", path.read_text()))
    entries = collect([str(tmp_path / "runs")])
    digests = [one for one in make_overview(entries, None, 0).digests if one is not None]
    cards, _ = gallery(digests, [method_of(digests[0].group.point)], 2)
    assert all(card.frames is None and "cannot be shown" in card.missing for card in cards)


def test_markdown_has_a_row_for_each_group(grid):
    lines = markdown(overview(grid)).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + 7
    assert {line.count("|") for line in rows} == {12}
    assert rows[2].startswith("| zero\\_shot | 8 | 1/1 | 37.5% | - | 33.3% | 33.3% | -29.2 | - |")
    assert any(line.startswith("- rbft, 8 shots: 24 test videos are too few") for line in lines)


def test_tensorboard_has_a_curve_a_method_the_table_and_hyper_parameters(grid, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_tensorboard(overview(grid), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["00-zero_shot", "01-sft", "02-rbft", "03-probe", "methods"]
    curve = EventAccumulator(str(tmp_path / "02-rbft")).Reload()
    events = curve.Scalars("accuracy")
    assert [(event.step, round(event.value, 4)) for event in events] == [(4, 0.6944), (8, 0.8472)]
    assert [event.step for event in curve.Scalars("accuracy_low")] == [4, 8]
    table = EventAccumulator(str(tmp_path / "methods")).Reload()
    assert "| rbft | 8 | 3/3 | 84.7%" in table.Tensors("methods/text_summary")[0].tensor_proto.string_val[0].decode()
    settings = EventAccumulator(str(tmp_path / "02-rbft" / "shots-8")).Reload()
    assert "_hparams_/session_start_info" in settings.PluginTagToContent("hparams")


def test_a_page_needs_no_baseline(tmp_path):
    write_run(tmp_path, "rbft", 12)
    found = overview(tmp_path)
    assert found.baseline is None
    page = words(write_overview(found, "tiny"))
    assert "compared with" not in page and "Recall of each class" not in page
    assert compare([], None, ()) == []
