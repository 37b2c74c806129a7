"""`rbft report` as a command: it starts without torch, says what it wrote, and writes over nothing but its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.finished_runs import predictions, write_grid, write_planned, write_run

from rbft.__main__ import main
from rbft.evaluation.predictions import write_predictions
from rbft.files import write_json


def report(*args: str | Path) -> int:
    return main(["report", *map(str, args)])


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grid(tmp_path_factory.mktemp("grid"))


def test_it_writes_a_page_and_a_table_and_prints_the_methods(grid, tmp_path, capsys):
    page, table = tmp_path / "r.html", tmp_path / "r.md"
    assert report(grid, "--to", page, "--markdown", table, "--clips", "2", "--tensorboard", tmp_path / "tb") == 0
    out = capsys.readouterr().out
    assert "tiny: 19 of 19 runs are finished" in out
    assert "rbft data.shots=8" in out and "84.7%" in out and "- sft" in out
    assert "caution, zero_shot data.shots=8: 1 pair of runs" in out
    assert page.read_text().count('<article class="card"') == 2
    assert table.read_text().startswith("| method | shots |")
    assert list((tmp_path / "tb").glob("*/events*"))


def test_its_own_page_is_replaced_and_anything_else_is_set_aside(grid, tmp_path, capsys):
    page = tmp_path / "report.html"
    page.write_text("<html>mine</html>")
    assert report(grid, "--to", page, "--clips", "0") == 0
    assert "what was there is now" in capsys.readouterr().out
    assert (tmp_path / "report.html.old-1").read_text() == "<html>mine</html>"
    assert report(grid, "--to", page, "--clips", "0", "--baseline", "probe") == 0
    assert "points over probe" in page.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.html.old-1"]


def test_a_sweep_that_is_under_way_shows_what_is_missing(tmp_path, capsys):
    assert report(write_planned(tmp_path), "--to", tmp_path / "r.html", "--markdown", tmp_path / "r.md") == 0
    assert "tiny: 3 of 4 runs are finished" in capsys.readouterr().out
    assert "| rbft | 4 | 1/2 | 50.0% | - | 33.3% | 33.3% | +0.0 | - | - | - |" in (tmp_path / "r.md").read_text()


def write_tuned(root: Path) -> Path:
    """A sweep over two rates and two seeds; validation prefers the rate that is worse in the test."""
    planned = {}
    for seed in (0, 1):
        for lr, right, validated in ((0.001, 12, 20), (0.01, 18, 10)):
            where = root / "runs" / f"lr{lr}"
            run = write_run(where, "sft", right, seed=seed, changes={"model": {"optim": {"lr": lr}}})
            write_predictions(run / "test" / "validation.jsonl", predictions(validated))
            point = {"method": "sft", "model.optim.lr": lr, "seed_everything": seed}
            planned[f"{lr}-{seed}"] = {"point": point, "folder": str(run)}
    plan = {"where": str(root), "choose": ["model.optim.lr", "model.optim.warmup"], "runs": planned}
    write_json(root / "sweeps" / "rates" / "plan.json", plan)
    return root / "sweeps" / "rates"


def test_validation_videos_choose_what_a_sweep_or_a_flag_says(tmp_path, capsys):
    sweep, page, table = write_tuned(tmp_path), tmp_path / "r.html", tmp_path / "r.md"
    for args in ([sweep], [tmp_path / "runs", "--choose", "model.optim.lr"]):
        assert report(*args, "--to", page, "--markdown", table, "--clips", "0") == 0
        out = capsys.readouterr().out
        assert "tiny: 4 of 4 runs are finished" in out
        assert "chosen on validation videos, sft data.shots=4: model.optim.lr=0.001 in 2 of 2" in out
        assert "| sft | 4 | 2/2 | 50.0% |" in table.read_text(), "the test has no say"
        assert "chosen on validation videos: model.optim.lr=0.001 in 2 of 2" in table.read_text()
        assert "<li>sft, 4 shots: model.optim.lr=0.001 in 2 of 2</li>" in page.read_text()
    assert report(tmp_path / "runs", "--to", page, "--markdown", table, "--clips", "0") == 0
    assert "75.0%" in table.read_text(), "otherwise each rate is a method"


def test_tables_need_no_torch(grid, tmp_path):
    code = (
        "import sys; from rbft.__main__ import main; code = main(sys.argv[1:]); "
        "assert not {'torch', 'lightning'} & set(sys.modules); sys.exit(code)"
    )
    page, table = str(tmp_path / "r.html"), str(tmp_path / "r.md")
    args = ["report", str(grid), "--to", page, "--markdown", table, "--clips", "0"]
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--to", "x.pdf"], "--to x.pdf: name a .html file"),
        (["--markdown", "x.txt"], "--markdown x.txt: name a .md file"),
        (["--clips", "-1"], "--clips -1"),
        (["--baseline", "sfd"], "--baseline sfd: no run is of that method; did you mean 'sft'?"),
        (["--tensorboard", "."], "--tensorboard .: it is not empty"),
        (["--choose", "data.draw"], "--choose data.draw: no runs of a method differ in it"),
        (["--nothing"], "rbft report: unrecognized arguments: --nothing"),
    ],
)
def test_wrong_flags_say_what_to_do(grid, tmp_path, monkeypatch, capsys, flags, said):
    (tmp_path / "something").touch()
    monkeypatch.chdir(tmp_path)
    assert report(grid, *flags) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["something"], "nothing is written"


def test_unfinished_runs_alone_make_no_report(tmp_path, capsys):
    (write_run(tmp_path, "sft", 12) / "metrics.json").unlink()
    assert report(tmp_path, "--to", tmp_path / "r.html") == 2
    assert "none of 1 runs is finished" in capsys.readouterr().err
