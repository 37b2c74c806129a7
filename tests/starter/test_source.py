"""One line from clips to a run: the file that is written for them, and the files of the package."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.starter.test_layout import CLIPS, fill
from tests.support.runs import REPOSITORY, write_clips

from rbft.__main__ import main
from rbft.errors import ConfigError, DataError
from rbft.experiment import read_experiment
from rbft.pipeline.stage_cli import StageCLI
from rbft.starter import source
from rbft.starter.source import builtin_experiments, experiment_arguments
from rbft.vlm.tuning import FullFineTuning, LoRA


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rbft.sweep.launchers.visible_gpus", list)
    fill(tmp_path / "my clips", *CLIPS)
    return "my clips"


def test_clips_become_an_experiment_file_that_every_flag_changes(clips: str):
    args, said = experiment_arguments([clips, "--about", "a hall", "--preset=quick", "--data.num_frames", "6"])
    assert "6 clips of 2 classes, from a folder for each class" in said
    assert "rehearsal with the built-in model" in said
    path = Path("runs/my_clips/my_clips.yaml")
    assert args == ["--config", str(path), "--data.num_frames", "6"]
    experiment = read_experiment(args)
    assert experiment.run_dir == Path("runs/my_clips/rbft/seed0")
    cli = StageCLI(experiment.arguments(experiment.stages[1]))
    assert cli.datamodule.root == Path.cwd() / "my clips"
    assert (cli.datamodule.shots, cli.datamodule.spec.sampling.num_frames) == (None, 6)
    assert (cli.model.name, cli.model.tuning) == ("builtin/tiny", FullFineTuning(layers=0.5))


def test_the_same_line_finds_the_same_file_and_another_archives_it(clips: str):
    experiment_arguments([clips])
    path = Path("runs/my_clips/my_clips.yaml")
    before = path.stat().st_mtime_ns
    experiment_arguments([clips])
    assert path.stat().st_mtime_ns == before
    path.write_text(path.read_text() + "# mine\n")
    _, said = experiment_arguments([clips])
    assert "what stood" not in said and "is now" in said
    (old,) = Path("runs/my_clips").glob("my_clips.yaml.old-*")
    assert old.read_text().endswith("# mine\n")


@pytest.mark.parametrize("name", ["~/clips", "~clips"])
def test_a_tilde_is_the_home_folder_of_a_user_that_there_is(
    name: str, clips: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / name.replace("~/", "home/")
    fill(folder, *CLIPS)
    args, _ = experiment_arguments([name, "--run_root", "~/runs"])
    experiment = read_experiment(args)
    assert experiment.run_dir.parents[2] == tmp_path / "home" / "runs" == Path(args[1]).parents[1]
    assert StageCLI(experiment.arguments(experiment.stages[1])).datamodule.root == folder
    flags = ["--data.root", name, "--data.cache_dir", "~none of this name"]
    data = StageCLI([*experiment.arguments(experiment.stages[1]), *flags]).datamodule
    assert data.root == (folder if name == "~/clips" else Path(name))
    assert data.cache_folder == Path("~none of this name")


def test_a_real_model_gets_prompts_with_what_the_videos_are(clips: str):
    args, said = experiment_arguments([clips, "--vlm", "some/model", "--about", "home camera."])
    assert "rehearsal" not in said
    experiment = read_experiment(args)
    cli = StageCLI(experiment.arguments(experiment.stages[0]))
    assert (cli.model.name, cli.model.tuning) == ("some/model", LoRA(layers=0.5))
    whole = read_experiment([*args, "--model.tuning.layers", "null"])
    assert StageCLI(whole.arguments(whole.stages[0])).model.tuning == LoRA()
    prompts = cli.model.prompts
    assert prompts.label_question.startswith("About the videos: home camera. Which of these classes")
    assert "home camera" in prompts.rationale_question and "home camera" in prompts.hinted_question
    assert experiment_arguments([clips, "--model.vlm", "some/model"])[0][-2:] == ["--model.vlm", "some/model"]


def test_on_a_gpu_nothing_is_downloaded_that_nobody_asked_for(clips: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rbft.sweep.launchers.visible_gpus", lambda: ["0"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    with pytest.raises(ConfigError, match=r"Say --vlm Qwen/.* \(7\.5 GB\).*builtin/tiny"):
        experiment_arguments([clips])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: "y")
    experiment_arguments([clips])
    written = yaml.safe_load(Path("runs/my_clips/my_clips.yaml").read_text())
    assert written["model"]["vlm"] == source._SUGGESTED[0] and written["model"]["dtype"] == "bfloat16"
    assert written["trainer"]["precision"] == "bf16-mixed"


def test_init_prints_the_file_alone(clips: str, capsys: pytest.CaptureFixture[str]):
    assert main(["init", clips, "--about", "a hall"]) == 0
    captured = capsys.readouterr()
    content = yaml.safe_load(captured.out)
    assert content["data"]["root"] == clips and "# for a real model: a hall" in captured.out
    assert "6 clips" in captured.err
    assert main(["init"]) == 2 and main(["init", clips, "--preset", "huge"]) == 2


def test_files_and_files_of_the_package(clips: str, tmp_path: Path):
    known = builtin_experiments()
    assert {"quickstart", "unions", "rounds", "controls", "map"} == set(known)
    for name, path in known.items():
        assert path.read_bytes() == (REPOSITORY / "experiments" / f"{name}.yaml").read_bytes()
    quickstart = str(known["quickstart"])
    packaged = ["--config", quickstart]
    assert experiment_arguments(["builtin:quickstart", "--method", "sft"])[0] == [*packaged, "--method", "sft"]
    assert experiment_arguments(["--config", "builtin:quickstart"])[0] == packaged
    both = ["--config", "a.yaml", "--config", "b.yaml", "--model.vlm", "x"]
    assert experiment_arguments(["a.yaml", "b.yaml", "--vlm", "x"])[0] == both
    assert read_experiment(["--config", quickstart]).run_dir == Path("runs/quickstart/rbft/seed0")


def records_of(args: list[str]) -> list[tuple[str, str]]:
    """The clips that a run of a command line has."""
    experiment = read_experiment(args)
    data = StageCLI(experiment.arguments(experiment.stages[1])).datamodule
    return sorted((record.path, record.label) for record in data.format.read(data.root))


def test_what_is_said_of_the_format_finds_the_labels(clips: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [f"{clip},{clip[-5]}" for clip in CLIPS if clip[-5] != "2"]
    (tmp_path / clips / "list.csv").write_text("\n".join(["Datei,Art", *rows]))
    columns = ["--data.format.path_column", "Datei", "--data.format.label_column=Art"]
    listed = [("fall/0.mp4", "0"), ("fall/1.mp4", "1"), ("other/0.mp4", "0"), ("other/1.mp4", "1")]
    args, said = experiment_arguments([clips, *columns, "--method", "sft"])
    assert "4 clips of 2 classes, from the table list.csv" in said
    assert args[2:] == ["--method", "sft"], "the file says it all"
    assert records_of(args[:2]) == listed
    assert records_of(experiment_arguments([f"{clips}/list.csv", *columns])[0]) == listed
    (tmp_path / clips / "lists").mkdir()
    (tmp_path / clips / "list.csv").rename(tmp_path / clips / "lists" / "list.csv")
    named = ["--data.format", "Table", "--data.format.file", "lists/list.csv", *columns]
    assert records_of(experiment_arguments([clips, *named])[0]) == listed
    assert main(["init", *columns, "--data.format.file=lists/list.csv", clips]) == 0
    written = yaml.safe_load(capsys.readouterr().out)["data"]["format"]
    assert written["init_args"] == {"file": "lists/list.csv", "path_column": "Datei", "label_column": "Art"}


def test_folders_are_taken_where_they_are_asked_for(clips: str, tmp_path: Path):
    (tmp_path / clips / "labels.csv").write_text("path;label\n" + "".join(f"{clip};x\n" for clip in CLIPS))
    (tmp_path / clips / "annotations").mkdir()
    with pytest.raises(DataError, match=r"separated by semicolons.*--data\.format ClassFolders"):
        experiment_arguments([clips])
    with pytest.raises(DataError, match=r"""annotations holds no video.*--data\.format\.skip '\["annotations"\]'"""):
        experiment_arguments([clips, "--data.format", "ClassFolders"])
    said = ["--data.format", "rbft.data.formats.ClassFolders", "--data.format.skip", "[annotations]"]
    args, _ = experiment_arguments([clips, *said])
    assert records_of(args) == sorted((clip, clip.split("/")[0]) for clip in CLIPS)


def test_no_text_ends_a_comment_of_the_file(clips: str, tmp_path: Path):
    """A table may have any name, and a person may say what the videos are in several lines."""
    named = tmp_path / clips / "a\u2028seed_everything: 7\u2028b.csv"
    named.write_text("path,label\n" + "".join(f"{clip},{clip[-5]}\n" for clip in CLIPS))
    args, _ = experiment_arguments([clips, "--about", "a hall\nmethod: sft"])
    written = Path(args[1]).read_text()
    assert yaml.safe_load(written)["seed_everything"] == 0 and "method" not in yaml.safe_load(written)
    assert "# for a real model: a hall method: sft\n" in written
    assert len(records_of(args)) == 6


def test_runs_may_lie_among_the_clips(clips: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path / clips)
    every = sorted((clip, clip.split("/")[0]) for clip in CLIPS)
    for _ in range(2):
        args, said = experiment_arguments(["."])
        assert Path("runs/my_clips/my_clips.yaml").is_file() and "6 clips of 2 classes" in said
        assert records_of(args) == every


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--data.format.frame_rate=fast", r"frame_rate fast: must be a number of frames a second"),
        ("--data.format.label_column=x", r"the format ClassFolders has no such setting \(skip, frame_rate\)"),
        ("--data.format.skip=[a", r"--data\.format\.skip \[a: not valid YAML"),
        ("--data.format.skip=7", r"skip 7: must be a list of names, such as '\[a, b\]'"),
        ("--data.format.frame_rate=null", r"frame_rate null: must be a number"),
        ("--data.format.text_columns=[]", r"ClassFolders has no such setting"),
    ],
)
def test_what_the_format_cannot_take_is_said_of_the_flag(flag: str, message: str, clips: str):
    with pytest.raises(ConfigError, match=message):
        experiment_arguments([clips, flag])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["builtin:quickstrt"], r"builtin:quickstrt: no experiment of the package; did you mean 'quickstart'"),
        (["my clips", "a.yaml"], "not both"),
        (["my clips", "--config", "a.yaml"], "not both"),
        (["a.yaml", "--about", "x"], r"--about: it shapes the file that is written for clips"),
        (["my clips", "--about", "a {b}"], r"--about: braces"),
        (["my clips", "--preset", "huge"], r"--preset huge: it is one of quick, good, best"),
    ],
)
def test_what_is_unclear_is_refused(args: list[str], message: str, clips: str):
    with pytest.raises(ConfigError, match=message):
        experiment_arguments(args)


@pytest.mark.slow
def test_one_line_from_clips_to_a_run_that_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rbft.sweep.launchers.visible_gpus", list)
    write_clips(tmp_path / "clips", {"train": (4, 4), "test": (2, 2)})
    assert main(["fit", "clips", "--preset", "quick"]) == 0
    run = tmp_path / "runs" / "clips" / "rbft" / "seed0"
    assert (run / "report.html").is_file()
    assert main(["predict", "--run", str(run), str(next((tmp_path / "clips").rglob("*.mp4")))]) == 0
    capfd.readouterr()
    assert main(["fit", "clips", "--preset", "quick"]) == 0
    assert "everything was done already" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["fold{}/fall/a.mp4", "fold{}/walk/a.mp4"], "one name (fall, walk). If these are the classes, list"),
        (["fall/p{}/a.mp4", "walk/p{}/a.mp4"], "one name (p1, p2, p3). If these are the classes, list"),
        (
            ["test/fall/p{}/a.mp4", "test/walk/p{}/a.mp4", "train/fall/p{}/b.mp4", "train/walk/p{}/b.mp4"],
            "(p1, p2, p3)",
        ),
        (["fall/fall{}/a.mp4", "walk/walk{}/a.mp4"], ""),
        (["fall/{}.mp4", "walk/{}.mp4", "fall/more/{}.mp4"], ""),
    ],
)
def test_folders_of_one_name_in_several_classes_are_asked_about(
    names: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rbft.sweep.launchers.visible_gpus", list)
    fill(tmp_path, *(name.format(number) for name in names for number in (1, 2, 3)))
    _, _, told = source.write_text(str(tmp_path), [])
    assert ("several class folders hold folders of one name" in told) == bool(said)
    assert said in told


def test_classes_that_are_numbers_are_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rbft.sweep.launchers.visible_gpus", list)
    fill(tmp_path / "numbers", *(f"{label}/{number}.mp4" for label in ("0", "1") for number in range(3)))
    fill(tmp_path / "words", *CLIPS)
    _, _, told = source.write_text(str(tmp_path / "numbers"), [])
    assert (
        "called by numbers (0, 1), which tell a model nothing: say what they are in model.prompts.label_texts" in told
    )
    assert "called by numbers" not in source.write_text(str(tmp_path / "words"), [])[2]
