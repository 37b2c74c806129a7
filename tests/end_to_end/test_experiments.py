"""Every experiment file parses with the real parser and runs to its end on fabricated videos in its own layout."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.support.scenes import write_scene

from rbft.__main__ import main
from rbft.experiment import read_experiment
from rbft.pipeline.stage_cli import StageCLI
from rbft.sweep.grid import read_sweep

FOLDER = Path(__file__).parents[2] / "experiments"
SWEEPS = sorted((FOLDER / "sweeps").glob("*.yaml"))
EXPERIMENTS = sorted(set(FOLDER.rglob("*.yaml")) - set(SWEEPS))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Small videos, all different, to copy from."""
    folder = tmp_path_factory.mktemp("clips")
    return [write_scene(folder / f"{number}.mp4", number) for number in range(50)]


def _ucf101(root: Path, clips: list[Path]) -> None:
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 HandstandPushups\n")
    stems = {"ApplyEyeMakeup": "ApplyEyeMakeup", "HandstandPushups": "HandStandPushups"}
    train, test, unused = [], [], iter(clips)
    for number, (name, stem) in enumerate(stems.items(), start=1):
        (root / name).mkdir()
        for group in range(1, 26):
            path = f"{name}/v_{stem}_g{group:02d}_c01.avi"
            shutil.copy(next(unused), root / path)
            test.append(path) if group <= 3 else train.append(f"{path} {number}")
    (lists / "trainlist01.txt").write_text("\n".join(train) + "\n")
    (lists / "testlist01.txt").write_text("\n".join(test) + "\n")


def _smarthome(root: Path, clips: list[Path]) -> None:
    videos = root / "Videos"
    videos.mkdir(parents=True)
    tags = ["Normal", "Abnormal", "Normal", "Abnormal", "Vague Abnormal", "Normal"] * 4
    columns = ["Title", "Category", "Anomaly Tag", "Video Description", "Reasoning"]
    with (videos / "Video_Annotation.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for number, tag in enumerate(tags, start=1):
            title = f"smartbench_{number:04d}"
            writer.writerow([title, "Security", tag, "A person walks.", "It is as usual."])
            if number > 1:  # some of the real ones are gone
                shutil.copy(clips[number], videos / f"{title}.mp4")
    with (videos / "Video_url.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["Video Name", "URL"])
        for number in range(1, len(tags) + 1):
            writer.writerow([f"smartbench_{number:04d}", f"https://www.youtube.com/watch?v=video{number:06d}"])


def _fights(root: Path, clips: list[Path]) -> None:
    root.mkdir(parents=True)
    rows, unused = [], iter(clips)
    for label in ("fight", "noFight"):
        (root / label).mkdir()
        for number in range(24):
            path = f"{label}/{number:03d}.mp4"
            shutil.copy(next(unused), root / path)
            rows.append(f"{path},{label},{label}{min(number, 20)}")
    (root / "labels.csv").write_text("path,label,scene_group\n" + "\n".join(rows) + "\n")


def _hmdb51(root: Path, clips: list[Path]) -> None:
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    unused = iter(clips)
    for name in ("brush_hair", "wave"):
        rows = []
        for number in range(12):
            clip = f"film{number}_{name}_f_cm_np1_ba_med_0.avi"
            shutil.copy(next(unused), root / clip)
            rows.append(f"{clip} {2 if number < 3 else 1}")
        (lists / f"{name}_test_split1.txt").write_text("\n".join(rows) + "\n")


def _ssv2(root: Path, clips: list[Path]) -> None:
    root.mkdir(parents=True)
    templates = ["Pushing [something] so that it falls", "Pretending to push [something]"]
    unused = iter(enumerate(clips))
    for name, each in (("train", 8), ("validation", 3)):
        rows = []
        for template in templates:
            for _ in range(each):
                number, clip = next(unused)
                shutil.copy(clip, root / f"{number}.webm")
                rows.append(
                    {"id": str(number), "label": template.replace("[something]", "a cup"), "template": template}
                )
        (root / f"something-something-v2-{name}.json").write_text(json.dumps(rows))
    numbers = {template.replace("[", "").replace("]", ""): str(i) for i, template in enumerate(templates)}
    (root / "something-something-v2-labels.json").write_text(json.dumps(numbers))


def _multihateclip(root: Path, clips: list[Path]) -> None:
    folder = root / "English_data" / "annotation"
    folder.mkdir(parents=True)
    (root / "videos").mkdir()
    unused = iter(clips)
    for split, each in (("train", 4), ("valid", 2), ("test", 2)):
        rows = ["Video_ID\tMajority_Voting"]
        for label in ("Normal", "Offensive", "Hateful"):
            for number in range(each):
                shutil.copy(next(unused), root / "videos" / f"{split}{label}{number}.mp4")
                rows.append(f"{split}{label}{number}\t{label}")
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")


# how to fabricate the data of each experiment, and what makes it small
FABRICATE: dict[str, tuple[Callable[[Path, list[Path]], None] | None, list[str]]] = {
    "quickstart": (
        None,
        ["--data.format.test_per_class", "1", "--data.format.val_per_class", "1", "--data.format.train_per_class", "4"],
    ),
    "unions": (
        None,
        [
            "--data.format.test_per_class",
            "1",
            "--data.format.val_per_class",
            "2",
            "--data.val_shots",
            "2",
            "--data.format.train_per_class",
            "2",
        ],
    ),
    "controls": (
        None,
        ["--data.format.test_per_class", "1", "--data.format.val_per_class", "1", "--data.format.train_per_class", "4"],
    ),
    "rounds": (
        None,
        ["--data.format.test_per_class", "1", "--data.format.val_per_class", "1", "--data.format.train_per_class", "5"],
    ),
    "fights_lowdata": (_fights, []),
    "map": (
        None,
        [
            "--data.format.test_per_class",
            "1",
            "--data.format.val_per_class",
            "2",
            "--data.val_shots",
            "2",
            "--data.format.train_per_class",
            "4",
        ],
    ),
    "methods": (None, ["--data.format.test_per_class", "1", "--data.format.train_per_class", "5"]),
    "ucf_lowdata": (_ucf101, []),
    "hmdb_lowdata": (_hmdb51, ["--data.shots", "2", "--data.val_shots", "1"]),
    "ssv2_lowdata": (_ssv2, ["--data.shots", "2", "--data.val_shots", "1"]),
    "multihateclip_lowdata": (_multihateclip, ["--data.shots", "2", "--data.val_shots", "1"]),
    "smarthome_lowdata": (_smarthome, []),
}


def test_every_experiment_has_its_fabricated_data():
    assert {path.stem for path in EXPERIMENTS if "stages" in yaml.safe_load(path.read_text())} == set(FABRICATE)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_header_says_how_to_launch_it(path: Path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"rbft fit --config experiments/{path.name}" in line for line in head)
    assert any("Needs:" in line for line in head)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweeps_expand_to_runs_of_an_experiment_that_is_tested(path: Path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"rbft sweep --config experiments/sweeps/{path.name}" in line for line in head)
    assert any("Needs:" in line for line in head)
    sweep = read_sweep(str(path), [], {})
    experiment = read_experiment(sweep.runs[0].args)
    assert Path(experiment.files[0]).stem in FABRICATE
    parsed: set[str] = set()
    for run in sweep.runs:
        experiment = read_experiment(run.args)
        if experiment.method not in parsed:  # with the real parser: a misspelt key ends here
            parsed.add(experiment.method)
            for stage in experiment.stages:
                StageCLI(experiment.arguments(stage))
    if (count := re.search(r"(\d+) runs\.", path.read_text())) is not None:
        assert int(count.group(1)) == len(sweep.runs)


@pytest.mark.filterwarnings("ignore:.*not on disk.*")
@pytest.mark.parametrize(
    "path",
    [
        # the others are made of the same parts
        pytest.param(p, marks=() if p.stem in ("quickstart", "ucf_lowdata", "fights_lowdata") else pytest.mark.slow)
        for p in EXPERIMENTS
        if p.stem in FABRICATE
    ],
    ids=lambda path: path.stem,
)
def test_runs_to_its_end(
    path: Path, tmp_path: Path, clips: list[Path], family_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
):
    fabricate, small = FABRICATE[path.stem]
    root = tmp_path / "data"
    if fabricate is not None:
        fabricate(root, clips)
    # one step of each training stage is enough to see that the file is whole
    content = yaml.safe_load(path.read_text())
    for stage in content["stages"].values():
        if stage and "trainer" in stage:
            stage["trainer"]["max_epochs"] = 1
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / path.name
    copy.write_text(yaml.safe_dump(content))
    flags = [
        "--data.root",
        str(root),
        "--data.num_workers",
        "0",
        "--data.batch_size",
        "8",
        "--trainer.max_steps",
        "1",
        "--trainer.accelerator",
        "cpu",
        "--trainer.accumulate_grad_batches",
        "1",
        "--model.vlm",
        str(family_folder("qwen2_5_vl")),
        "--model.writer.max_new_tokens",
        "4",
    ]
    assert main(["fit", "--config", str(copy), *flags, *small]) == 0
    run = tmp_path / "runs" / path.stem / "rbft" / "seed0"
    run = run if run.exists() else run.with_name(f"seed{content['seed_everything']}")
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 <= metrics["test/accuracy"] <= 1
    assert metrics["test/num_videos"] == len((run / "predictions.jsonl").read_text().splitlines()) > 0
    assert ("zero_shot/accuracy" in metrics) is ("zero_shot" in content["methods"]["rbft"])


@pytest.mark.parametrize("path", [p for p in EXPERIMENTS if p.stem in FABRICATE], ids=lambda path: path.stem)
def test_every_method_parses(path: Path):
    content = yaml.safe_load(path.read_text())
    seen: set[str] = set()
    for method in content.get("methods") or {}:
        experiment = read_experiment(["--config", str(path), "--method", method])
        for stage in experiment.stages:
            if stage.name not in seen:  # with the real parser: a misspelt key ends here
                seen.add(stage.name)
                StageCLI(experiment.arguments(stage))
    if len(content["methods"]) > 3:
        assert seen == set(content["stages"]), "a stage that no method has"
