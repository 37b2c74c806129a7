"""Completion scripts, driven by the real shells, and the table of flags beside the commands' own parsers."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.runs import REPOSITORY

from rbft.__main__ import HELP, main
from rbft.cli import StageCLI
from rbft.completion import _CHOICES, FLAGS, SHELLS, keys
from rbft.experiment import METHODS

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
    """What bash offers behind the words of a command line, the last of which is being typed."""
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


class _CapturedError(Exception):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parser_of(words: Sequence[str], patch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser that a command hands its words to."""

    def capture(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _CapturedError(self)

    with patch.context() as patched:
        for method in ("parse_args", "parse_known_args"):
            patched.setattr(argparse.ArgumentParser, method, capture)
        with pytest.raises(_CapturedError) as captured:
            main(list(words))
    return captured.value.parser


@pytest.mark.parametrize("command", [command for command in FLAGS if command != "completion"])
def test_the_table_is_the_parsers(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *action = command.split()
    parser = parser_of([first, "x"], monkeypatch)
    for name in action:
        (group,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
        assert list(group.choices) == [row.split()[1] for row in FLAGS if row.startswith(f"{first} ")]
        parser = group.choices[name]
    left = set(FLAGS[command]) - {"--help", "--allow-class", "--method"}
    for option in parser._actions:
        mine = left & set(option.option_strings)
        if option.option_strings and "--help" not in option.option_strings:
            # `check` takes what `fit` takes, but runs nothing
            assert mine or command == "check", f"{option.option_strings} of {command} is missing"
        left -= mine
        for flag in mine & set(_CHOICES):
            assert list(option.choices or ()) == list(_CHOICES[flag])
    assert not left, f"{left} of {command} is no flag any more"


def test_every_command_is_there_and_every_key_is_one() -> None:
    listed = {
        line.split()[0]
        for line in HELP.split("commands:\n")[1].split("\noptions:")[0].splitlines()
        if line.startswith("  ") and line[2] != " "
    }
    assert listed == {command.split()[0] for command in FLAGS}
    config = REPOSITORY / "experiments" / "quickstart.yaml"
    known = StageCLI(["--config", str(config)]).parser._option_string_actions
    # a group's own key takes a whole section
    assert [key for key in keys() if key not in known and not any(name.startswith(f"{key}.") for name in known)] == []
