"""Every command of `rbft` on one screen; heavy imports stand inside the branches that need them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rbft import __version__
from rbft.errors import Interrupted, RBFTError

HELP = f"""rbft {__version__} - a few labelled videos and a vision-language model give a classifier that explains itself

usage: rbft COMMAND ...

commands:
  fit --config FILE      run an experiment: write rationales, fine-tune on them, fine-tune on the labels, test
      --method NAME        another list of stages over the same parts: zero_shot, sft, rbft, joint
      --stage NAME         one stage alone, with what the pipeline would have given it
      --restart            do finished work anew; what was there is set aside
      --dry_run            print the plan and stop
      --profile            say where the time of each stage goes
      --allow-class NAME   let the experiment file name a class that is not of rbft, lightning, torch and the like
      --KEY VALUE          override any key of the file, for example --data.root videos --seed_everything 1
  fit --help             every key
  check --config FILE    look at the experiment's data set: every video decoded once, damage, copies, leaks, counts
  predict --run RUN VIDEOS  classify videos, folders of them or a table with a finished run; predict --help says more
  export --run RUN --to FOLDER  a finished run as a folder that plain transformers loads, with its model card
  serve --run RUN        a finished run behind a local page and JSON; serve --help says more
  rationales audit FILE  what a set of rationales is worth; rationales import, export: from and to other tools
  sweep --config FILE    run an experiment over a grid of settings, several runs at once; sweep --help says more
  report FOLDERS         one page over many runs: methods by shots, tests, videos; --to FILE.html, --markdown FILE.md
  doctor                 what is installed, what this machine has, what is missing and what to do
  completion bash        a script that completes commands and flags in the shell; also for zsh and fish

options:
  --help, --version

Running the same command again continues where the last one stopped.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 bad usage, 128 + signal where interrupted."""
    args = list(sys.argv[1:] if args is None else args)
    command = args[0] if args else "--help"
    try:
        match command:
            case "--help" | "-h" | "help":
                print(HELP, end="")
            case "--version":
                print(f"rbft {__version__}")
            case "fit":
                if {"--help", "-h"} & set(args[1:]):
                    from rbft.pipeline import print_help

                    print_help()
                else:
                    from rbft.experiment import read_experiment

                    experiment = read_experiment(args[1:])

                    from rbft.pipeline import run

                    run(experiment, ["rbft", *args])
            case "predict":
                from rbft.predict.command import command as predict

                return 0 if predict(args[1:]) else 1
            case "export":
                from rbft.export.command import command as export

                export(args[1:])
            case "serve":
                from rbft.serve.command import serve

                serve(args[1:])
            case "doctor":
                from rbft.doctor import doctor

                return 0 if doctor(args[1:]) else 1
            case "completion":
                from rbft.completion import completion

                completion(args[1:])
            case "check":
                from rbft.experiment import read_experiment

                experiment = read_experiment(args[1:])

                from rbft.inspection import check

                return 0 if check(experiment) else 1
            case "sweep":
                from rbft.sweep.command import sweep

                return sweep(args[1:])
            case "report":
                from rbft.report_command import report

                report(args[1:])
            case "rationales":
                from rbft.rationale_tools import run_rationales

                run_rationales(args[1:])
            case _:
                print(f"rbft: unknown command {command!r}\n\n{HELP}", end="", file=sys.stderr)
                return 2
    except Interrupted as error:
        from rbft.ranks import first_rank

        # all processes of a run stop together: one speaks, and none that looks failed makes a launcher kill the others
        if not first_rank():
            return 0
        print(f"rbft: {error}", file=sys.stderr)
        return error.exit_code
    except RBFTError as error:
        print(f"rbft: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        from rbft.files import NO_ROOM

        # other disks' troubles are bugs or told where they happen; a full one can strike whatever is written
        if error.errno not in NO_ROOM:
            raise
        where = error.filename or "what the run leaves"
        print(f"rbft: {where}: {NO_ROOM[error.errno]}. Make room and give the same command again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rbft: interrupted; finished stages are kept. The same command continues.", file=sys.stderr)
        return 130
    return 0


def console() -> None:
    """The installed command."""
    sys.exit(main())


if __name__ == "__main__":
    console()
