"""`rbft completion SHELL`: a script that completes commands, flags and names in bash, zsh and fish."""

from __future__ import annotations

import argparse
import ast
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from rbft.arguments import Parser
from rbft.errors import DataError
from rbft.experiment import RUN_KEYS

SHELLS = ("bash", "zsh", "fish")
_TAKE_KEYS = ("fit", "check", "compare")
# the other settings of the trainer are for developers of trainers
_TRAINER = (
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "precision",
    "max_epochs",
    "max_steps",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "logger",
    "callbacks",
)

# zsh runs it through its emulation of bash's completion; nothing here is newer than what that knows
_BASH = Template(r"""# Completion of rbft. In ~/.bashrc:  eval "$$(rbft completion bash)"
_rbft() {
    local current="$${COMP_WORDS[COMP_CWORD]}" before="$${COMP_WORDS[COMP_CWORD-1]}" command="$${COMP_WORDS[1]}"
    local words="" number config=""
    COMPREPLY=()
    if [ "$$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($$(compgen -W "$commands --help --version" -- "$$current"))
        return
    fi
    if [ "$$command" = rationales ]; then
        if [ "$$COMP_CWORD" -eq 2 ]; then
            COMPREPLY=($$(compgen -W "$actions" -- "$$current"))
            return
        fi
        command="rationales $${COMP_WORDS[2]}"
    fi
    for ((number = 2; number < COMP_CWORD; number++)); do
        case "$${COMP_WORDS[number-1]}" in --config|-c) config="$${COMP_WORDS[number]}" ;; esac
    done
    case "$$before" in
        --config|-c)
            # words are split at line ends only: file names may hold spaces
            local IFS=$$'\n'
            COMPREPLY=($$(compgen -f -X '!*.y*ml' -- "$$current") $$(compgen -d -S / -- "$$current"))
            return ;;
        --run|--run_root|--videos|--data.root|--data.cache_dir)
            local IFS=$$'\n'
            COMPREPLY=($$(compgen -d -- "$$current"))
            return ;;
        --method|--stage)
            COMPREPLY=($$(compgen -W "$$(rbft completion "$${before#--}s" "$$config" 2>/dev/null)" -- "$$current"))
            return ;;
$choices
    esac
    case "$$command" in
$flags
    esac
    case "$$current" in
        -*) COMPREPLY=($$(compgen -W "$$words" -- "$$current")) ;;
        *)  local IFS=$$'\n'
            COMPREPLY=($$(compgen -f -- "$$current")) ;;
    esac
}
complete -o filenames -F _rbft rbft
""")


def parser() -> Parser:
    """The command's one argument."""
    made = Parser(
        prog="rbft completion",
        allow_abbrev=False,
        description="A script that completes commands and flags in bash, zsh or fish.",
    )
    made.advice = f"Say for which shell: {', '.join(SHELLS)}."
    made.add_argument("shell", choices=SHELLS)
    return made


def run(args: Sequence[str]) -> int:
    """Print the script of a shell; `methods` and `stages` are what the scripts ask for.

    Raises:
        ConfigError: It is another shell.
    """
    match list(args):
        case ["methods" | "stages" as what, *files]:
            print("\n".join(_names(what, files[:1])))
            return 0
    shell, commands = parser().parse_args(list(args)).shell, read_commands()
    if shell == "fish":
        print("\n".join(_fish(commands)))
        return 0
    bash = _bash(commands)
    if shell == "zsh":
        bash = (
            '# Completion of rbft. In ~/.zshrc, after compinit:  eval "$(rbft completion zsh)"\n'
            "autoload -U +X bashcompinit && bashcompinit\n" + bash.split("\n", 1)[1]
        )
    print(bash, end="")
    return 0


@dataclass(frozen=True)
class Command:
    """A command, or an action of one, as its parser has it.

    Args:
        words: name of the command, followed by that of the action.
        flags: long names of its flags.
        choices: allowed values of each flag, by flag; of the positional argument under the empty text.
    """

    words: tuple[str, ...]
    flags: tuple[str, ...]
    choices: Mapping[str, tuple[str, ...]]


def read_commands() -> list[Command]:
    """Every command and action, from their parsers."""
    from rbft.commands import COMMANDS

    return [
        command
        for name, module in COMMANDS.items()
        for command in _read(importlib.import_module(module).parser(), (name,))
    ]


def _read(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> Iterator[Command]:
    flags: list[str] = []
    choices: dict[str, tuple[str, ...]] = {}
    actions: list[Command] = []
    for option in parser._actions:
        if isinstance(option, argparse._SubParsersAction):
            actions += [command for name, below in option.choices.items() for command in _read(below, (*words, name))]
            continue
        longs = [flag for flag in option.option_strings if flag.startswith("--")]
        flags += longs[:1]
        if option.choices:
            choices[longs[0] if longs else ""] = tuple(map(str, option.choices))
    yield from actions or [Command(words, tuple(flags), choices)]


def keys() -> list[str]:
    """Keys of an experiment file as flags: all of `data` and `model`, and what of the trainer is set most often."""
    root = Path(__file__).parents[1]
    data = _arguments(root / "data" / "datamodule.py", "VideoDataModule")
    model = _arguments(root / "training" / "module.py", "VLMFineTuner")
    groups = {"data": data, "model": model, "trainer": _TRAINER}
    return [f"--{name}" for name in RUN_KEYS] + [
        f"--{group}.{name}" for group, names in groups.items() for name in names
    ]


def _arguments(file: Path, name: str) -> list[str]:
    """Arguments of a class, read and not imported: the shell waits for it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    (cls,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    (init,) = (node for node in cls.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    return [argument.arg for argument in init.args.args[1:]]


def _names(what: str, files: Sequence[str]) -> list[str]:
    """Methods or stages that there are, with those of an experiment file; a file that is not whole yet adds none."""
    from rbft.experiment import METHODS
    from rbft.files import read_yaml

    names = dict.fromkeys(METHODS) if what == "methods" else {}
    for file in files:
        try:
            content = read_yaml(Path(file))
        except DataError:
            continue
        section = content.get(what) if isinstance(content, dict) else None
        names |= dict.fromkeys(map(str, section)) if isinstance(section, dict) else {}
    # a name with other characters would be interpreted by the shell
    return [name for name in names if name.replace("_", "").replace("-", "").isalnum()]


def _flags(command: Command) -> list[str]:
    return list(dict.fromkeys([*command.flags, *(keys() if command.words[0] in _TAKE_KEYS else ())]))


def _first_words(commands: Sequence[Command]) -> list[str]:
    return list(dict.fromkeys(command.words[0] for command in commands))


def _actions(commands: Sequence[Command]) -> list[str]:
    return [command.words[1] for command in commands if len(command.words) > 1]


def _bash(commands: Sequence[Command]) -> str:
    rows: list[str] = []
    choices: dict[str, tuple[str, ...]] = {}
    for command in commands:
        name = " ".join(command.words)
        rows.append(f'        "{name}") words="{" ".join(_flags(command))}" ;;')
        choices |= {flag: words for flag, words in command.choices.items() if flag}
        if words := command.choices.get(""):
            rows[-1] = f'        "{name}") COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$current")); return ;;'
    offers = [
        f'        {flag}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$current")); return ;;'
        for flag, words in choices.items()
    ]
    return _BASH.substitute(
        commands=" ".join(_first_words(commands)),
        actions=" ".join(_actions(commands)),
        flags="\n".join(rows),
        choices="\n".join(offers),
    )


def _fish(commands: Sequence[Command]) -> Iterator[str]:
    yield "# Completion of rbft. In ~/.config/fish/config.fish:  rbft completion fish | source"
    yield f"complete -c rbft -n __fish_use_subcommand -f -a '{' '.join(_first_words(commands))}'"
    actions = _actions(commands)
    seen = f"__fish_seen_subcommand_from rationales; and not __fish_seen_subcommand_from {' '.join(actions)}"
    yield f"complete -c rbft -n '{seen}' -f -a '{' '.join(actions)}'"
    for command in commands:
        where = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.words)
        if words := command.choices.get(""):
            yield f"complete -c rbft -n '{where}' -f -a '{' '.join(words)}'"
        for flag in _flags(command):
            words = command.choices.get(flag, ())
            if flag in ("--method", "--stage"):
                values = f" -xa '(rbft completion {flag[2:]}s)'"
            else:
                values = f" -xa '{' '.join(words)}'" if words else ""
            yield f"complete -c rbft -n '{where}' -l {flag[2:]}{values}"
