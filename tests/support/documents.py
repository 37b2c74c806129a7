"""Documents as programs: their blocks, and a folder in which the blocks are run as a reader would run them."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tests.support.encoders import make_encoder
from tests.support.runs import REPOSITORY
from tests.support.server import Server, serving
from tests.support.videos import write_video

from rbft.__main__ import main
from rbft.experiment import lay_over

MARKERS = ("needs data", "needs a GPU", "takes long")
"""What a block may be excused from running for."""
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_SMALL = {"train_per_class": 4, "val_per_class": 2, "test_per_class": 1}
# experiments of built-in data: as written they take minutes or an hour
_BUILT_IN = ("quickstart.yaml", "unions.yaml", "controls.yaml")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        document: Path relative to the repository.
        line: Where it begins.
        language: Behind the fence; may be empty.
        text: What it holds.
        mark: The comment right above it, or empty.
    """

    document: str
    line: int
    language: str
    text: str
    mark: str

    @property
    def excused(self) -> bool:
        return self.mark in MARKERS

    @property
    def file(self) -> str | None:
        """The name of the file that the reader is to make of it."""
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else None

    @property
    def runs(self) -> bool:
        return self.language in ("sh", "python", "bash") and not self.excused and self.file is None

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command; lines that end in a backslash go on."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(document: str) -> list[Block]:
    """The fenced blocks of a document."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    return [
        Block(document, text[: found.start()].count("\n") + 1, found["language"], found["text"], found["mark"] or "")
        for found in _BLOCK.finditer(text)
    ]


def documents() -> list[str]:
    """README.md and all of docs/."""
    return ["README.md", *(f"docs/{path.name}" for path in sorted((REPOSITORY / "docs").glob("*.md")))]


def adapted(words: Sequence[str]) -> list[str]:
    """A command as the tests run it: built-in domains of a few clips, and only the plan of long runs."""
    names = [Path(word).name for word in words]
    if words[1] == "sweep":
        return [*words, "--dry_run"]
    if words[1] in ("fit", "check") and any(name in _BUILT_IN for name in names):
        small = [part for key, value in _SMALL.items() for part in (f"--data.format.{key}", str(value))]
        return [*words, *small, *(["--dry_run"] if words[1] == "fit" else [])]
    return list(words)


def write_clips(root: Path, each: int = 10) -> None:
    """`clips/fall/<n>.mp4` and `clips/no_fall/<n>.mp4`, each another, and `clips/clips.txt` that lists them."""
    import numpy as np

    rng, lines = np.random.default_rng(0), []
    for label in ("fall", "no_fall"):
        (root / "clips" / label).mkdir(parents=True)
        for number in range(each):
            coarse = rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
            write_video(root / "clips" / label / f"{number}.mp4", coarse.repeat(16, 1).repeat(16, 2), fps=4)
            lines.append(f"{label}\tcamera{label}{number % 4}\t{label}/{number}.mp4\n")
    (root / "clips" / "clips.txt").write_text("".join(lines))
    (root / "new_clips").mkdir()
    for name, label in (("one", "fall"), ("two", "no_fall")):
        shutil.copy(root / "clips" / label / "0.mp4", root / "new_clips" / f"{name}.mp4")


def write_experiments(root: Path) -> None:
    """The repository's experiments, and `falls.yaml` as a reader would write it: a smaller quickstart."""
    shutil.copytree(REPOSITORY / "experiments", root / "experiments")
    content = yaml.safe_load((root / "experiments" / "quickstart.yaml").read_text())
    short = {"trainer": {"max_epochs": 1}}
    small = {
        "experiment": "quickstart",
        "data": {"shots": 2, "val_shots": 1, "format": {"init_args": _SMALL}},
        "stages": {"rationale": short, "classification": short},
    }
    (root / "experiments" / "falls.yaml").write_text(yaml.safe_dump(lay_over(content, small), sort_keys=False))
    make_encoder(root / "encoders" / "videomae-base", "videomae")
    (root / "mine").mkdir()
    (root / "mine" / "callbacks.py").write_text("import lightning as L\n\n\nclass Notify(L.Callback):\n    pass\n")


class Reader:
    """Does what a document says, block by block, in a folder.

    Args:
        folder: Where the reader stands.
        patch: For the working folder and import path of this process.
        stack: What ends with the document.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, stack: ExitStack) -> None:
        self.folder, self._patch, self._stack = folder, patch, stack
        self._server: Server | None = None
        self.answers: list[str] = []

    def follow(self, document: str) -> int:
        """Run all of a document; gives the number of blocks that were run."""
        ran = 0
        for block in blocks(document):
            if block.file is not None:
                (self.folder / block.file).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / block.file).write_text(block.text)
            elif block.runs:
                ran += 1
                if block.language == "python":
                    self._program([sys.executable, "-c", block.text], block)
                else:
                    for words in block.commands:
                        self._command(words, block)
        return ran

    def _command(self, words: list[str], block: Block) -> None:
        match words:
            case ["export", "PYTHONPATH=."]:
                self._patch.syspath_prepend(str(self.folder))
                self._patch.setenv("PYTHONPATH", str(self.folder))
            case [".venv/bin/pytest", *rest]:
                # the tests run themselves; a document that names one that is gone is wrong
                named = [word.split("::")[0] for word in rest if word.startswith("tests")]
                assert named and all((REPOSITORY / name).exists() for name in named), f"{block.document}: {words}"
            case ["make", target]:
                assert f"\n{target}:" in (REPOSITORY / "Makefile").read_text(), f"no target {target}"
            case ["pip", "install", what]:
                extra = what.removeprefix("rbft[").removesuffix("]")
                assert f"\n{extra} =" in (REPOSITORY / "setup.cfg").read_text(), f"there is no extra {extra}"
            case ["rbft", "serve", *rest]:
                flags = [word for word in rest[rest.index("--run") + 2 :] if word != "--port"]
                self._server = self._stack.enter_context(serving(Path(rest[rest.index("--run") + 1]), *flags))
            case ["rbft", *rest, ">", file]:
                with (self.folder / file).open("w") as stream, contextlib.redirect_stdout(stream):
                    assert main(rest) == 0, f"{block.document}, line {block.line}: {shlex.join(words)}"
            case ["rbft", *_]:
                assert main(adapted(words)[1:]) == 0, f"{block.document}, line {block.line}: {shlex.join(words)}"
            case ["curl", *rest]:
                if shutil.which("curl") is None:
                    pytest.skip("no curl on the PATH")
                assert self._server is not None, "nothing is served yet"
                there = [word.replace("http://127.0.0.1:8420", self._server.url) for word in rest]
                self.answers.append(self._program(["curl", "--fail", "--silent", "--show-error", *there], block))
            case ["python", *rest]:
                self._program([sys.executable, *rest], block)
            case _:
                raise AssertionError(f"{block.document}, line {block.line}: no test knows how to run {words}")

    def _program(self, command: list[str], block: Block) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=dict(os.environ), capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, f"{block.document}, line {block.line}: {done.stdout}{done.stderr}"
        return done.stdout


@contextmanager
def reading(folder: Path) -> Iterator[Reader]:
    """A reader who stands in `folder`."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.chdir(folder)
        try:
            yield Reader(folder, patch, stack)
        finally:
            # the next document has modules of the same names
            for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
                del sys.modules[name]
            importlib.invalidate_caches()
