"""Tables at equal labels: whole draws alone, the best control by its mean, differences paired by draw."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tools.equal_labels import cells_of, figure, seen_events, table

from rbft.errors import ConfigError
from rbft.files import write_json, write_jsonl

# accuracy by method, for the draws 1, 2 and 3; the last draw lacks a run
FOUND = {"sft": (0.5, 0.7, 0.9), "caption_probe": (0.6, 0.7, 0.9), "rationale_only_upper": (0.8, 0.8, None)}
SHOTS = (4, 12)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    runs = {}
    for method, figures in FOUND.items():
        for (seed, accuracy), shots in product(enumerate(figures, 1), SHOTS):
            folder = Path("runs") / method / f"shots{shots}-seed{seed}"
            rest = {"data.shots": shots, "data.format.init_args.style": "plain", "method": method}
            runs[f"{method}-{shots}-{seed}"] = {"point": {"seed_everything": seed} | rest, "folder": str(folder)}
            if accuracy is not None:
                figures_of = {"test/accuracy": accuracy}
                if method != "caption_probe":  # a probe has one way of answering
                    figures_of |= {"test/accuracy_direct": accuracy / 2, "test/accuracy_rationale": accuracy}
                write_json(tmp_path / folder / "metrics.json", figures_of)
    write_json(tmp_path / "cell" / "plan.json", {"where": str(tmp_path), "runs": runs})
    return tmp_path / "cell"


def test_whole_draws_are_compared_with_the_best_control(sweep: Path):
    cells = cells_of(sweep)
    assert [(cell.name, cell.shots, cell.draws) for cell in cells] == [("cell style=plain", n, (1, 2)) for n in SHOTS]
    for cell in cells:
        assert cell.accuracies == {name: figures[:2] for name, figures in FOUND.items()}
        assert cell.best_control == "caption_probe"


def test_the_table_has_paired_differences(sweep: Path):
    rows = {line.split("`")[1]: line for line in table(cells_of(sweep)[0]).splitlines() if line.startswith("| `")}
    assert list(rows) == ["rationale_only_upper", "caption_probe", "sft"]
    # differences of 20 and 10 points: 15, and half a width of t(1) * 7.07 / sqrt(2) = 63.5
    assert "| 80.0 (80.0 to 80.0) | +15.0 (-48.5 to 78.5) | 2 of 2 |" in rows["rationale_only_upper"]
    assert "-5.0" in rows["sft"]


def test_any_method_can_be_compared_with_and_both_ways_told(sweep: Path):
    cell = cells_of(sweep)[0]
    lines = table(cell, ["sft", "caption_probe"], ways=True).splitlines()
    assert lines[2].split("|")[3:8:2] == [" minus `sft` ", " minus `caption_probe` ", " answered directly "]
    rows = {line.split("`")[1]: [entry.strip() for entry in line.split("|")[2:-1]] for line in lines[4:]}
    assert rows["rationale_only_upper"][1].startswith("+20.0") and rows["rationale_only_upper"][3].startswith("+15.0")
    # means over the two whole draws
    assert [row[-2:] for row in rows.values()] == [["40.0", "80.0"], ["", ""], ["30.0", "60.0"]]
    assert rows["sft"][1:3] == ["", ""] and rows["caption_probe"][3:5] == ["", ""]
    with pytest.raises(ConfigError, match="--minus: cell style=plain has no policy; it has sft"):
        table(cell, ["policy"])


def test_earlier_tests_of_a_method_have_rows_of_their_own(sweep: Path):
    for number, accuracy in enumerate((0.7, 0.9), 1):
        for shots in SHOTS:
            folder = sweep.parent / "runs" / "rationale_only_upper" / f"shots{shots}-seed{number}"
            write_json(folder / "test_upper" / "metrics.json", {"test/accuracy": accuracy})
    cell = cells_of(sweep, ["test_upper"])[0]
    assert cell.accuracies["test_upper"] == (0.7, 0.9) and cell.accuracies["rationale_only_upper"] == (0.8, 0.8)
    assert cell.best_control == "caption_probe"
    with pytest.raises(ConfigError, match="no run has a test stage 'test_lower'"):
        cells_of(sweep, ["test_upper", "test_lower"])


def test_the_values_of_another_key_are_compared_method_by_method(tmp_path: Path):
    runs = {}
    # each value has the rate that was chosen for it
    for (layers, rate), method, seed in product({None: 0.001, 0.5: 0.003}.items(), ("sft", "rbft"), (1, 2)):
        folder = f"runs/{method}-{layers}/seed{seed}"
        point = {"seed_everything": seed, "method": method, "model.tuning.layers": layers, "model.optim.lr": rate}
        runs[f"{method}-{layers}-{seed}"] = {"point": point, "folder": folder}
        accuracy = (0.6 if method == "sft" else 0.8) + (0.1 if layers else 0.0)
        write_json(tmp_path / folder / "metrics.json", {"test/accuracy": accuracy})
    write_json(tmp_path / "cell" / "plan.json", {"where": str(tmp_path), "runs": runs})
    sft, rbft = cells_of(tmp_path / "cell", across="model.tuning.layers", leaving_out=["model.optim.lr"])
    assert (sft.name, rbft.name) == ("cell method=sft", "cell method=rbft") and sft.draws == (1, 2)
    assert sft.accuracies == {"null": (0.6, 0.6), "0.5": (0.7, 0.7)}
    assert "| `0.5` | 90.0 (90.0 to 90.0) | +10.0 (10.0 to 10.0) | 2 of 2 |" in table(rbft, ["null"]).splitlines()
    with pytest.raises(ConfigError, match=r"two runs of draw 1 .*differ in model.optim.lr and method alone"):
        cells_of(tmp_path / "cell", across="model.tuning.layers", leaving_out=["model.optim.lr", "method"])
    with pytest.raises(ConfigError, match=r"--across model.layers: .*cell sweeps seed_everything, method"):
        cells_of(tmp_path / "cell", across="model.layers")


def test_a_sweep_without_a_whole_draw_is_refused(sweep: Path):
    for path in sweep.parent.glob("runs/sft/*/metrics.json"):
        path.unlink()
    with pytest.raises(ConfigError, match="no draw has all of its runs"):
        cells_of(sweep)


def test_the_figure_is_a_picture_with_a_mark_for_each_value(sweep: Path):
    picture = ElementTree.fromstring(figure(cells_of(sweep), ["rationale_only_upper", "sft"]))
    marks = [mark for mark in picture.iter("{http://www.w3.org/2000/svg}circle") if mark.get("r") == "3.5"]
    assert len(marks) == 4
    heights = {float(mark.get("cy", 0)) for mark in marks}
    assert max(heights) - min(heights) == pytest.approx(180 * (0.8 - 0.6), abs=0.2)
    with pytest.raises(ConfigError, match="no sweep has several values"):
        figure(cells_of(sweep)[:1], ["sft"])


def test_accuracy_is_told_by_whether_a_labelled_clip_shows_the_event(tmp_path: Path):
    run = tmp_path / "runs" / "sft" / "seed1"
    things = [{"first": "left", "second": "up"}]
    rows = [
        {"path": f"{name}.mp4", "label": "alarm", "event": event, "objects": things}
        for name, event in (("a", 0), ("b", 0), ("c", 1), ("d", 0))
    ]
    write_jsonl(tmp_path / "data" / "truth.jsonl", rows)
    write_json(run / "metrics.json", {"test/accuracy": 0.5})
    write_json(run / "splits.json", {"train": ["a.mp4"]})
    (run / "experiment.yaml").write_text("data: {root: data}\n")
    write_jsonl(
        run / "predictions.jsonl",
        [
            {"id": f"{name}.mp4", "label": "dax", "predicted": answer, "rationale": f"the red ring {doing} ."}
            for name, answer, doing in (
                ("b", "dax", "goes left then goes up"),
                ("c", "wug", "goes left then goes up"),
                ("d", "wug", "goes left"),
            )
        ],
    )
    point = {"seed_everything": 1, "data.shots": 4, "model.vlm": "a", "method": "sft"}
    other = {"point": point | {"model.vlm": "b"}, "folder": "runs/sft/seed1"}
    plan = {"where": str(tmp_path), "runs": {"two": other, "one": {"point": point, "folder": "runs/sft/seed1"}}}
    write_json(tmp_path / "cell" / "plan.json", plan)
    # the same clips, answered by an earlier test of the run
    write_json(run / "test" / "metrics.json", {"test/accuracy": 0.0})
    earlier = {"id": "b.mp4", "label": "dax", "predicted": "wug", "rationale": "the red ring goes left then goes up ."}
    write_jsonl(run / "test" / "predictions.jsonl", [earlier])
    assert "| 4 | `test` | 0.0 of 1 |  | 100.0 | 0.0 of 1 |" in seen_events(tmp_path / "cell", ["test"]).splitlines()
    tables = seen_events(tmp_path / "cell").split("\n\n| ")
    assert "cell vlm=b, all finished runs" in tables[0] and "cell vlm=a" in tables[1], "models are not thrown together"
    assert seen_events(tmp_path / "cell").splitlines()[-1] == "| 4 | `sft` | 50.0 of 2 | 0.0 of 1 | 66.7 | 100.0 of 1 |"
