"""`rbft completion SHELL`: a script that completes commands, flags and names in bash, zsh and fish."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template

from rbft.errors import ConfigError, DataError

SHELLS = ("bash", "zsh", "fish")
FLAGS: dict[str, tuple[str, ...]] = {
    "fit": ("--config", "--method", "--stage", "--restart", "--dry_run", "--profile", "--allow-class", "--help"),
    "check": ("--config", "--method"),
    "predict": ("--run", "--to", "--rationale", "--window", "--stride", "--alarm", "--min-confidence", "--precision"),
    "serve": ("--run", "--port", "--host", "--max-mb", "--queue"),
    "export": ("--run", "--to", "--form", "--videos", "--push", "--public"),
    "report": ("--to", "--markdown", "--baseline", "--choose", "--clips", "--tensorboard", "--title"),
    "sweep": (
        "--config",
        "--dry_run",
        "--verify",
        "--launcher",
        "--slots",
        "--gpus",
        "--cores",
        "--per_process",
        "--retries",
        "--ray_address",
        "--help",
    ),
    "rationales audit": (
        "--config",
        "--label_key",
        "--conclusion",
        "--json",
        "--html",
        "--model",
        "--revision",
        "--videos",
        "--num_frames",
    ),
    "rationales import": ("--config", "--label_key", "--conclusion", "--to"),
    "rationales export": ("--config", "--label_key", "--conclusion", "--format", "--to", "--all"),
    "doctor": ("--json", "--run_root"),
    "completion": (),
}
"""Each command's own flags; a test holds them to the commands' parsers."""
# behind these stands a word of a few
_CHOICES = {
    "--launcher": ("local", "slurm", "ray"),
    "--format": ("llava", "sharegpt", "messages"),
    "--form": ("adapter", "merged"),
}
_TAKE_KEYS = ("fit", "check")
# most of the trainer's settings are for developers of trainers
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
_RUN = ("seed_everything", "experiment", "variant", "run_root", "save_every")

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


def completion(args: Sequence[str]) -> None:
    """`rbft completion bash|zsh|fish`; `methods` and `stages` are what the scripts ask for.

    Raises:
        ConfigError: It is another shell.
    """
    match list(args):
        case ["bash"]:
            print(_bash(), end="")
        case ["zsh"]:
            print(
                '# Completion of rbft. In ~/.zshrc, behind compinit:  eval "$(rbft completion zsh)"\n'
                "autoload -U +X bashcompinit && bashcompinit\n" + _bash().split("\n", 1)[1],
                end="",
            )
        case ["fish"]:
            print("\n".join(_fish()))
        case ["methods" | "stages" as what, *files]:
            print("\n".join(_names(what, files[:1])))
        case _:
            raise ConfigError(f"rbft completion: say for which shell: {', '.join(SHELLS)}.")


def keys() -> list[str]:
    """Keys of an experiment file as flags: all of `data` and `model`, and what of the trainer is set most often."""
    root = Path(__file__).parent
    data = _arguments(root / "data" / "datamodule.py", "VideoDataModule")
    model = _arguments(root / "training" / "module.py", "VLMFineTuner")
    groups = {"data": data, "model": model, "trainer": _TRAINER}
    return [f"--{name}" for name in _RUN] + [f"--{group}.{name}" for group, names in groups.items() for name in names]


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

    found = dict.fromkeys(METHODS) if what == "methods" else {}
    for file in files:
        try:
            content = read_yaml(Path(file))
        except DataError:
            continue
        section = content.get(what) if isinstance(content, dict) else None
        found |= dict.fromkeys(map(str, section)) if isinstance(section, dict) else {}
    # what is no plain word would be read by the shell
    return [name for name in found if name.replace("_", "").replace("-", "").isalnum()]


def _commands() -> list[str]:
    return list(dict.fromkeys(command.split()[0] for command in FLAGS))


def _actions() -> list[str]:
    return [command.split()[1] for command in FLAGS if " " in command]


def _flags(command: str) -> list[str]:
    return [*FLAGS[command], *(keys() if command in _TAKE_KEYS else ())]


def _bash() -> str:
    rows = [f'        "{command}") words="{" ".join(_flags(command))}" ;;' for command in FLAGS if FLAGS[command]]
    choices = [
        f'        {flag}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$current")); return ;;'
        for flag, words in _CHOICES.items()
    ]
    rows.append(f'        completion) COMPREPLY=($(compgen -W "{" ".join(SHELLS)}" -- "$current")); return ;;')
    return _BASH.substitute(
        commands=" ".join(_commands()), actions=" ".join(_actions()), flags="\n".join(rows), choices="\n".join(choices)
    )


def _fish() -> Iterator[str]:
    yield "# Completion of rbft. In ~/.config/fish/config.fish:  rbft completion fish | source"
    yield f"complete -c rbft -n __fish_use_subcommand -f -a '{' '.join(_commands())}'"
    yield f"complete -c rbft -n '__fish_seen_subcommand_from completion' -f -a '{' '.join(SHELLS)}'"
    actions = _actions()
    seen = f"__fish_seen_subcommand_from rationales; and not __fish_seen_subcommand_from {' '.join(actions)}"
    yield f"complete -c rbft -n '{seen}' -f -a '{' '.join(actions)}'"
    for command in FLAGS:
        where = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.split())
        for flag in _flags(command):
            words = _CHOICES.get(flag, ())
            if flag in ("--method", "--stage"):
                values = f" -xa '(rbft completion {flag[2:]}s)'"
            else:
                values = f" -xa '{' '.join(words)}'" if words else ""
            yield f"complete -c rbft -n '{where}' -l {flag[2:]}{values}"
