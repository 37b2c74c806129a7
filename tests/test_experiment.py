"""Experiment files: precedence of files, layers and flags, methods as stage lists, and every way to get them wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rbft import __version__
from rbft.__main__ import main
from rbft.errors import ConfigError
from rbft.experiment import METHODS, Experiment, nearest, read_experiment

STAGES = "stages: {write: {}, rationale: {}, classification: {}, joint: {}, test: {}}\n"


@pytest.fixture
def read(tmp_path):
    """Reads an experiment of one or several files, then flags."""

    def read(*contents: str, flags: tuple[str, ...] = ()) -> Experiment:
        args: list[str] = []
        for number, content in enumerate(contents):
            path = tmp_path / f"file{number}.yaml"
            path.write_text(content)
            args += ["--config", str(path)]
        return read_experiment([*args, *flags])

    return read


def test_a_variable_of_the_environment_may_name_the_folder_of_runs(read, tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCH", str(tmp_path / "fast"))
    files = STAGES + "run_root: ${oc.env:SCRATCH}/runs\nexperiment: shots_${data.shots}", "data: {shots: 4}"
    assert read(*files, flags=("--method", "sft")).run_dir == tmp_path / "fast" / "runs" / "shots_4" / "sft" / "seed0"
    flag = read(STAGES, flags=("--run_root=${oc.env:SCRATCH}",))
    assert flag.run_dir == tmp_path / "fast" / "file0" / "rbft" / "seed0"
    monkeypatch.delenv("SCRATCH")
    with pytest.raises(ConfigError, match=r"^run_root: '\$\{oc.env:SCRATCH\}/runs': .*SCRATCH"):
        read(*files)


@pytest.mark.parametrize("seed", ["-1", "1.5", "true", "4294967296", "20261129163000"])
def test_a_seed_that_no_generator_takes_is_refused(read, seed):
    with pytest.raises(ConfigError, match=r"seed_everything: .* must be a whole number from 0 to 4294967295"):
        read(STAGES + f"seed_everything: {seed}")
    assert read(STAGES + "seed_everything: 4294967295").run_dir.name == "seed4294967295"


def test_a_key_that_stands_twice_is_refused(read):
    with pytest.raises(ConfigError, match=r"file0.yaml: .*'model' stands twice in one place, in the lines 2 and 4:"):
        read(STAGES + "model:\n  vlm: a\nmodel:\n  dtype: auto\n")
    with pytest.raises(ConfigError, match=r"'lr' stands twice in one place, in the lines 2 and 2:"):
        read(STAGES + "model: {checks: [{a: 1}], optim: {lr: 1, betas: [0, 0], 'lr': 2}}\n")
    # merged keys may be said otherwise, by several mappings, and an alias may stand in many places
    merged = "stages:\n  write: &a {trainer: {max_epochs: 2}}\n  rationale: &b {<<: *a, trainer: {max_epochs: 3}}\n"
    merged += "  classification:\n    <<: *a\n    <<: *b\n    data: {shots: 2}\n  test: *a\n"
    experiment = read(merged)
    assert experiment.layers["rationale"] == {"trainer": {"max_epochs": 3}}
    assert experiment.layers["test"] == {"trainer": {"max_epochs": 2}}


def test_a_tilde_is_the_home_folder(read, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "runs" / "file0" / "sft" / "seed0"
    assert read(STAGES + "run_root: ~/runs", flags=("--method", "sft")).run_dir == folder
    experiment = read_experiment(["--config", "~/file0.yaml", "--run_root=~/runs", "--method", "sft"])
    assert experiment.run_dir == folder and experiment.arguments(experiment.stages[0])[1] == str(
        tmp_path / "file0.yaml"
    )
    assert read(STAGES, flags=("--run_root", "~no user")).run_dir.parts[0] == "~no user"


def summary(experiment: Experiment) -> list[tuple[str, str, str | None, str | None]]:
    return [(stage.name, stage.kind, stage.weights_from, stage.rationales_from) for stage in experiment.stages]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("zero_shot", [("test", "test", None, None)]),
        ("sft", [("classification", "classification", None, None), ("test", "test", "classification", None)]),
        (
            "rbft",
            [
                ("write", "write", None, None),
                ("rationale", "rationale", None, "write"),
                ("classification", "classification", "rationale", None),
                ("test", "test", "classification", None),
            ],
        ),
        (
            "joint",
            [("write", "write", None, None), ("joint", "joint", None, "write"), ("test", "test", "joint", None)],
        ),
    ],
)
def test_methods_are_stages_that_hand_on_weights_and_rationales(read, method, expected):
    found = read(STAGES, flags=("--method", method))
    assert summary(found) == expected
    assert [stage.trains for stage in found.stages] == [
        kind in ("rationale", "classification", "joint") for _, kind, _, _ in expected
    ]
    assert {
        "zero_shot",
        "sft",
        "rationale_only",
        "rbft",
        "joint",
        "probe",
        "caption_probe",
        "encoder_probe",
        "distil",
    } <= set(METHODS)


@pytest.mark.parametrize("method", ["probe", "caption_probe", "encoder_probe"])
def test_controls_need_no_layer_of_their_own(read, method):
    found = read("stages: {test: {}}", flags=("--method", method))
    assert summary(found) == [(method, method, None, None)] and found.stages[0].tests


def test_the_default_method_is_rbft(read):
    assert read(STAGES).method == "rbft"


def test_a_method_of_ones_own_hands_on_the_last_of_each(read):
    found = read(
        """
        methods: {mine: [before, write, one, again, two, test]}
        stages:
          before: {kind: test}
          write: {}
          one: {kind: rationale}
          again: {kind: write}
          two: {kind: rationale}
          test: {}
        """,
        flags=("--method=mine",),
    )
    assert summary(found) == [
        ("before", "test", None, None),
        ("write", "write", None, None),
        ("one", "rationale", None, "write"),
        ("again", "write", "one", None),
        ("two", "rationale", "one", "again"),
        ("test", "test", "two", None),
    ]


def test_direct_sft_may_be_measured_against_the_rationales(read):
    matched = (
        "stages: {{write: {{}}, s: {{kind: {kind}, rationale_epochs: {epochs}}}}}\nmethods: {{m: [{names}]}}\nmethod: m"
    )
    found = read(matched.format(kind="classification", epochs=20, names="write, s"))
    assert summary(found)[1] == ("s", "classification", None, "write")
    assert found.stages[1].rationale_epochs == 20 and "rationale_epochs" not in found.stages[1].layer
    with pytest.raises(ConfigError, match="'s' is measured against rationales, but no stage before it writes any"):
        read(matched.format(kind="classification", epochs=20, names="s"))
    for kind, epochs in (("rationale", 20), ("classification", -1), ("classification", "two"), ("classification", 1.5)):
        with pytest.raises(ConfigError, match=r"stages\.s\.rationale_epochs: .* must be a whole number of epochs"):
            read(matched.format(kind=kind, epochs=epochs, names="write, s"))


@pytest.mark.parametrize(
    ("kind", "objective"),
    [("rationale", "RationaleObjective"), ("classification", "ClassificationObjective"), ("joint", "JointObjective")],
)
def test_a_kind_sets_its_objective_below_the_layer(read, kind, objective):
    plain = read(STAGES, flags=("--method", "joint" if kind == "joint" else "rbft"))
    stage = next(stage for stage in plain.stages if stage.kind == kind)
    assert stage.layer == {"model": {"objective": {"class_path": f"rbft.objectives.{kind}.{objective}"}}}
    layered = read(
        "method: m\nmethods: {m: [write, s]}\nstages: {write: {}, s: {model: {optim: {lr: 1}, objective: {init_args: "
        f"{{alpha: 0.1}}}}}}, kind: {kind}}}}}",
    )
    assert layered.stages[1].layer["model"]["optim"] == {"lr": 1}
    assert layered.stages[1].layer["model"]["objective"]["init_args"] == {"alpha": 0.1}
    assert layered.stages[1].layer["model"]["objective"]["class_path"].endswith(objective)


def test_arguments_are_files_then_layer_then_flags(read):
    found = read(
        "stages: {test: {trainer: {devices: 1}}}",
        "data: {root: x}",
        flags=("--method", "zero_shot", "--data.shots", "3"),
    )
    args = found.arguments(found.stages[0])
    assert args[:4] == ["--config", found.files[0], "--config", found.files[1]]
    assert args[4] == "--config"
    assert json.loads(args[5]) == {"trainer": {"devices": 1}}
    assert args[6:] == ["--method", "zero_shot", "--data.shots", "3"]


def test_later_files_lay_over_earlier_ones(read):
    found = read(
        "stages: {test: {kind: test, data: {fps: 1, batch_size: 2}}}\nmethods: {m: [test]}\nmethod: zero_shot",
        "stages: {test: {data: {fps: 3}}}\nmethod: m\nmethods: {n: [test]}",
    )
    assert found.method == "m"
    assert found.stages[0].layer == {"data": {"fps": 3, "batch_size": 2}}


@pytest.mark.parametrize(
    ("first", "second", "flags", "run_dir"),
    [
        ("", "", (), "runs/file1/rbft/seed0"),
        ("experiment: one\nvariant: v\nseed_everything: 1\nrun_root: /r", "", (), "/r/one/v/seed1"),
        (
            "experiment: one\nvariant: v\nseed_everything: 1\nrun_root: /r",
            "experiment: two\nvariant: w\nseed_everything: 2\nrun_root: /s",
            (),
            "/s/two/w/seed2",
        ),
        (
            "",
            "experiment: two\nvariant: w\nseed_everything: 2\nrun_root: /s",
            ("--experiment", "three", "--variant=x", "--seed_everything", "3", "--run_root=/t"),
            "/t/three/x/seed3",
        ),
        ("", "method: sft", (), "runs/file1/sft/seed0"),
        ("", "method: sft", ("--method", "zero_shot"), "runs/file1/zero_shot/seed0"),
        ("", "", ("--seed_everything", "1", "--seed_everything", "4"), "runs/file1/rbft/seed4"),
    ],
)
def test_run_folders_follow_flags_then_later_files(read, first, second, flags, run_dir):
    assert read(STAGES + first, second, flags=flags).run_dir == Path(run_dir)


def test_the_pipelines_own_flags_are_taken_off(read):
    found = read(STAGES, flags=("--stage", "write", "--restart", "--dry_run", "--data.root", "x"))
    assert (found.only, found.restart, found.dry_run) == ("write", True, True)
    assert found.flags == ("--data.root", "x")
    plain = read(STAGES)
    assert (plain.only, plain.restart, plain.dry_run) == (None, False, False)
    assert len(read(STAGES, flags=("--stage", "write")).stages) == 4, "one stage still knows where it stands"


def only(text: str) -> str:
    """An experiment whose one method `m` is given with its stages."""
    return f"method: m\n{text}"


# what is written, the flags, what the answer says
WRONG = {
    "no stages": ("data: {root: x}", (), "no `stages:`"),
    "empty file": ("", (), "no `stages:`"),
    "stages as a list": ("stages: [write]", (), "stages must hold keys and values, found list"),
    "methods as a list": (STAGES + "methods: [a]", (), "methods must hold keys and values, found list"),
    "no YAML": ("stages: [", (), r"file0\.yaml: not valid YAML"),
    "top as a list": ("- a", (), "expected keys and values at the top, found list"),
    "unknown method": (STAGES, ("--method", "rbtf"), "method 'rbtf' is unknown; did you mean 'rbft'"),
    "method as a word": (only(STAGES + "methods: {m: test}"), (), "methods.m must be a list of stage names"),
    "empty method": (only(STAGES + "methods: {m: []}"), (), "methods.m must be a list of stage names"),
    "stage twice": (only(STAGES + "methods: {m: [test, test]}"), (), "methods.m lists a stage twice"),
    "missing stage": ("stages: {tests: {}}\nmethod: zero_shot", (), "'test', which .* did you mean 'tests'"),
    "missing stage of a known kind": ("stages: {test: {}}\nmethod: joint", (), "add the line `write: {}` there"),
    "kind as a list": (
        "stages: {a: {kind: [test]}}\nmethods: {m: [a]}\nmethod: m",
        (),
        r"stages\.a\.kind: \['test'\] is un",
    ),
    "stage no mapping": ("stages: {test: 3}\nmethod: zero_shot", (), "stages.test must hold keys and values"),
    "unknown layer key": (
        "stages: {test: {modle: {}}}\nmethod: zero_shot",
        (),
        r"unknown key stages\.test\.modle; did you mean 'model'",
    ),
    "number as layer key": ("stages: {test: {1: 2}}\nmethod: zero_shot", (), r"unknown key stages\.test\.1; known:"),
    "unknown kind": (
        "stages: {test: {kind: tset}}\nmethod: zero_shot",
        (),
        r"stages\.test\.kind: 'tset' is unknown; did you mean 'test'",
    ),
    "no kind": (only("stages: {last: {}}\nmethods: {m: [last]}"), (), r"of which kind is it\? Set stages\.last\.kind"),
    "rationale without write": (
        only("stages: {rationale: {}}\nmethods: {m: [rationale]}"),
        (),
        "put a stage of kind 'write' before it",
    ),
    "stage of another method": (STAGES, ("--method", "sft", "--stage", "write"), "the method 'sft' has no such stage"),
    "misspelt stage": (STAGES, ("--stage", "tset"), "--stage tset: .* did you mean 'test'"),
    "experiment as a path": (STAGES, ("--experiment", "../x"), r"experiment: '\.\./x' becomes a folder name"),
    "variant as a path": (STAGES + "variant: a/b", (), "variant: 'a/b' becomes a folder name"),
    "empty variant": (STAGES, ("--variant=",), "variant: '' becomes a folder name"),
    "stage as a path": (
        only("stages: {../x: {kind: test}}\nmethods: {m: [../x]}"),
        (),
        r"methods\.m: '\.\./x' becomes a folder name",
    ),
    "seed as a path": (STAGES, ("--seed_everything", "../x"), r"seed_everything: '\.\./x' must be a whole number"),
    "seed as a truth": (STAGES + "seed_everything: true", (), "seed_everything: True must be a whole number"),
    "flag without value": (STAGES, ("--stage",), "--stage: expected one argument"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_experiments_are_answered_in_words(read, case):
    content, flags, message = WRONG[case]
    with pytest.raises(ConfigError, match=message):
        read(content, flags=flags)


def test_missing_files_and_no_file_are_answered(tmp_path):
    with pytest.raises(ConfigError, match="no experiment given; name a folder of labelled clips or an experiment file"):
        read_experiment(["--method", "sft"])
    with pytest.raises(ConfigError, match=r"--config .*nothing\.yaml: no such file"):
        read_experiment(["--config", str(tmp_path / "nothing.yaml")])
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match=r"latin\.yaml: not valid YAML"):
        read_experiment(["--config", str(tmp_path / "latin.yaml")])
    (tmp_path / "deep.yaml").write_text('{"a":' * 5000)
    with pytest.raises(ConfigError, match=r"deep\.yaml: not valid YAML: it is nested too deeply"):
        read_experiment(["--config", str(tmp_path / "deep.yaml")])
    with pytest.raises(ConfigError, match=r"--config x+: cannot be read: File name too long"):
        read_experiment(["--config", "x" * 5000])
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_experiment(["--config", str(tmp_path)])


def test_abbreviated_flags_are_left_to_be_refused(read):
    assert read(STAGES, flags=("--rest", "--sta", "write")).flags == ("--rest", "--sta", "write")


def test_nearest():
    assert nearest("clasification", METHODS | {"classification": ()}) == "did you mean 'classification'?"
    assert nearest("xyz", ["b", "a"]) == "known: a, b."


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False, timeout=60)


HEAVY = ("torch", "transformers", "lightning", "av", "jsonargparse", "numpy", "matplotlib", "peft")


def test_reading_an_experiment_imports_nothing_heavy():
    done = python("-c", f"import sys, rbft.experiment; print([n for n in {HEAVY!r} if n in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_come_at_once(flag):
    code = (
        f"import sys, rbft.__main__ as m; code = m.main([{flag!r}]); print([n for n in {HEAVY!r} if n in sys.modules])"
    )
    start = time.perf_counter()
    done = python("-c", code)
    seconds = time.perf_counter() - start
    assert done.stdout.endswith("[]\n"), done.stderr
    assert __version__ in done.stdout
    assert seconds < 1.0


def test_a_wrong_experiment_ends_with_code_2_before_anything_heavy(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text(STAGES)
    code = f"import sys, rbft.__main__ as m; c = m.main(['fit', '--config', {str(path)!r}, '--method', 'x']); "
    done = python("-c", code + "print(c, 'torch' in sys.modules)")
    assert done.stdout == "2 False\n"
    assert done.stderr.startswith("rbft: method 'x' is unknown; known: ")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["fitt", "x.yaml"], "did you mean `rbft fit x.yaml`?"),
        (["x.yaml", "--method", "sft"], "did you mean `rbft fit x.yaml --method sft`?"),
        (["builtin:quickstart"], "did you mean `rbft fit builtin:quickstart`?"),
        (["my clips"], "did you mean `rbft fit 'my clips'`?"),
        (["zzz"], "there is no such command. `rbft --help` lists"),
    ],
)
def test_unknown_commands_are_answered(words, meant, capsys, tmp_path, monkeypatch):
    (tmp_path / "my clips").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"rbft: unknown command {words[0]!r}; ") and meant in said


def test_a_file_of_the_other_command_is_named(tmp_path, capsys):
    (tmp_path / "sweep.yaml").write_text("experiment: e.yaml\ngrid: {method: [sft, rbft]}")
    (tmp_path / "e.yaml").write_text(STAGES)
    assert main(["fit", str(tmp_path / "sweep.yaml")]) == 2
    assert f"did you mean `rbft sweep {tmp_path / 'sweep.yaml'}`?" in capsys.readouterr().err
    assert main(["sweep", str(tmp_path / "e.yaml")]) == 2
    assert f"did you mean `rbft fit {tmp_path / 'e.yaml'}`?" in capsys.readouterr().err


def test_no_command_is_answered_with_help(capsys):
    assert main([]) == 0
    assert "usage: rbft COMMAND" in capsys.readouterr().out


def test_a_name_that_the_system_cannot_write_is_refused(read):
    with pytest.raises(ConfigError, match=r"experiment: .* PYTHONUTF8=1"):
        read("stages: {test: {}}\nmethod: zero_shot", flags=("--experiment", "f\udcc3\udca4lle"))
