"""Completion scripts, driven by the real shells, and the table of flags beside the commands' own parsers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from tests.support.runs import REPOSITORY

from rbft.__main__ import main
from rbft.commands import COMMANDS
from rbft.commands.completion import SHELLS, keys, read_commands
from rbft.commands.fit import KEYS
from rbft.experiment import METHODS
from rbft.pipeline.stage_cli import StageCLI
from rbft.rationales.import_export import Format

BIN = Path(sys.executable).parent


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def shell(*command: str, folder: Path) -> str:
    """The output of a shell that has the installed command on its path."""
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.fixture
def complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """What bash offers after the words of a command line, the last of which is being typed."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on the PATH")
    file = tmp_path / "rbft.bash"
    file.write_text(script("bash", capsys))

    def offers(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in ("rbft", *words))
        program = (
            f"source {file}; complete -p rbft >/dev/null || exit 9; COMP_WORDS=({line}); COMP_CWORD={len(words)}; "
            '_rbft; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        return shell(bash, "--norc", "-c", program, folder=tmp_path).split("\n")[:-1]

    return offers


def test_commands_and_actions(complete) -> None:
    assert complete("pre") == ["predict"]
    assert {"fit", "serve", "doctor", "--version"} <= set(complete(""))
    assert complete("rationales", "a") == ["audit"]
    assert complete("completion", "") == list(SHELLS)


def test_flags_and_keys(complete) -> None:
    assert complete("fit", "--met") == ["--method"]
    assert complete("fit", "--data.sh") == ["--data.shots"]
    assert complete("fit", "--config", "x.yaml", "--model.vl") == ["--model.vlm"]
    assert complete("predict", "--data.sh") == [""], "a run is predicted with as it was tested"
    assert complete("rationales", "export", "--al") == ["--all"]
    assert complete("sweep", "--launcher", "s") == ["slurm"]


def test_files_and_folders(complete, tmp_path: Path) -> None:
    for name in ("one.yaml", "two words.yml", "notes.txt", "folder/three.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(complete("fit", "--config", "")) == ["folder/", "one.yaml", "two words.yml"]
    assert complete("fit", "--config", "folder/t") == ["folder/three.yaml"]
    assert complete("predict", "--run", "f") == ["folder"]
    assert "two words.yml" in complete("predict", "--run", "x", "tw")


def test_methods_and_stages_of_the_file(complete, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "methods: {my_way: [test], '$(touch evil)': [test]}\nstages: {test: {}, more: {}}"
    )
    built_in = list(METHODS)
    assert complete("fit", "--method", "") == built_in
    assert complete("fit", "--config", "mine.yaml", "--method", "") == [*built_in, "my_way"]
    assert complete("fit", "--config", "mine.yaml", "--method", "my") == ["my_way"]
    assert complete("fit", "--config", "mine.yaml", "--stage", "") == ["test", "more"]
    (tmp_path / "torn.yaml").write_text("methods: {half: [")
    assert complete("fit", "--config", "torn.yaml", "--method", "") == built_in
    assert not (tmp_path / "evil").exists()


def test_zsh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = script("zsh", capsys)
    assert "bashcompinit" in text and "complete -o filenames -F _rbft rbft" in text
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("no zsh on the PATH")
    (tmp_path / "rbft.zsh").write_text(text)
    program = (
        "autoload -Uz compinit && compinit -u; source ./rbft.zsh; COMP_WORDS=(rbft pre); COMP_CWORD=1; "
        'setopt ksharrays shwordsplit; _rbft; print -l "${COMPREPLY[@]}"'
    )
    assert shell(zsh, "-f", "-c", program, folder=tmp_path).split() == ["predict"]


def test_fish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = script("fish", capsys)
    assert "-l data.shots" in text
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("no fish on the PATH")
    (tmp_path / "rbft.fish").write_text(text)
    for line, offered in (("rbft pre", "predict"), ("rbft fit --data.sh", "--data.shots")):
        program = f"source rbft.fish; complete -C '{line}'"
        assert shell(fish, "--no-config", "-c", program, folder=tmp_path).split() == [offered]


def test_another_shell_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for args in ([], ["tcsh"], ["bash", "zsh"]):
        assert main(["completion", *args]) == 2
        assert "bash, zsh, fish" in capsys.readouterr().err


def test_commands_are_read_from_their_parsers() -> None:
    found = {" ".join(command.words): command for command in read_commands()}
    assert {name.split()[0] for name in found} == set(COMMANDS)
    assert {"--config", "--stage", "--restart", "--allow-class", "--help"} <= set(found["fit"].flags)
    assert found["sweep"].choices["--launcher"] == ("local", "slurm", "ray")
    assert found["rationales export"].choices["--format"] == get_args(Format)
    assert found["completion"].choices[""] == SHELLS


def test_every_key_is_one() -> None:
    config = REPOSITORY / "experiments" / "quickstart.yaml"
    known = StageCLI(["--config", str(config)]).parser._option_string_actions
    named = [*keys(), *(f"--{key}" for key in KEYS)]
    # a group's own key takes a whole section
    assert [key for key in named if key not in known and not any(name.startswith(f"{key}.") for name in known)] == []
