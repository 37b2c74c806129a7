"""What the documentation says is run: every command and program of it, in order, or marked with why not."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.support.documents import MARKERS, blocks, documents, reading, write_clips, write_experiments
from tests.support.runs import REPOSITORY

from rbft.__main__ import main

# these need nothing that takes time to make
FAST = ("docs/install.md", "docs/reliability.md", "docs/reproduce.md", "docs/security.md", "docs/sweeps.md")
# a reader of these starts with nothing but clips
FRESH = (
    "docs/start.md",
    "docs/your-own-videos.md",
    "docs/compare.md",
    "docs/add-a-dataset.md",
    "docs/add-an-objective.md",
    "docs/add-a-model.md",
)
RUN = [name for name in documents() if any(block.runs for block in blocks(name))]
OTHER = [name for name in RUN if name not in (*FAST, *FRESH)]


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with finished runs of the quickstart, on fewer clips and for less time; `runs/falls` is a copy."""
    folder = tmp_path_factory.mktemp("reader")
    write_experiments(folder)
    sweep = folder / "experiments" / "sweeps" / "quickstart.yaml"
    sweep.write_text(yaml.safe_dump({"experiment": "../falls.yaml", "grid": {"method": ["zero_shot"]}}))
    with reading(folder):
        assert main(["fit", "--config", "experiments/falls.yaml"]) == 0
        assert main(["sweep", "--config", "experiments/sweeps/quickstart.yaml"]) == 0
        shutil.copytree("runs/quickstart", "runs/falls")
        rationales = "runs/falls/rbft/seed0/write/rationales.jsonl"
        assert main(["rationales", "export", rationales, "--all", "--format", "llava", "--to", "stage1.json"]) == 0
    new = folder / "new_clips"
    new.mkdir()
    made = sorted((folder / "data" / "quickstart" / "test").rglob("*.mp4"))
    for name, clip in zip(("one", "two"), made, strict=False):
        shutil.copy(clip, new / f"{name}.mp4")
    return folder


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], list[str]]:
    def follow(document: str) -> list[str]:
        with reading(tmp_path) as reader:
            assert reader.follow(document) == sum(block.runs for block in blocks(document))
            return reader.answers

    return follow


@pytest.mark.parametrize("document", FAST)
def test_short_documents_run(document: str, tmp_path: Path, read: Callable[[str], list[str]]) -> None:
    write_experiments(tmp_path)
    if document == "docs/security.md":
        (tmp_path / "mine" / "__init__.py").touch()
        experiment = tmp_path / "experiments" / "falls.yaml"
        content = yaml.safe_load(experiment.read_text())
        content["trainer"]["callbacks"] = [{"class_path": "mine.callbacks.Notify"}]
        experiment.write_text(yaml.safe_dump(content))
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(tmp_path))
            read(document)
    else:
        read(document)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("document", FRESH)
def test_documents_from_nothing_run(document: str, tmp_path: Path, read: Callable[[str], list[str]]) -> None:
    write_clips(tmp_path)
    read(document)
    if document == "docs/your-own-videos.md":
        made = (
            "runs/clips/rbft/seed0/report.html",
            "runs/clips/sft/seed0/report.html",
            "runs/falls/rbft/seed0/report.html",
            "compared.html",
            "answers.csv",
        )
        assert [name for name in made if not (tmp_path / name).is_file()] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("document", OTHER)
def test_other_documents_run(document: str, tmp_path: Path, quickstart: Path, read: Callable[[str], list[str]]) -> None:
    shutil.copytree(quickstart, tmp_path, dirs_exist_ok=True)
    if document == "docs/report.md":
        # the copies would be refused: runs that count twice
        shutil.rmtree(tmp_path / "runs" / "falls")
    answers = read(document)
    if document == "docs/serve.md":
        assert '"predicted"' in answers[-1] and '"status":"ok"' in answers[0]


def test_every_command_is_run_or_marked() -> None:
    """A block without a language that holds a command would escape the tests."""
    program = re.compile(r"^(rbft|pip|python|make|curl|export|import|from) ", re.MULTILINE)
    for document in documents():
        for block in blocks(document):
            place = f"{document}, line {block.line}"
            assert block.language or not program.search(block.text), f"{place}: say sh or python after the fence"
            assert block.language in ("", "sh", "python", "yaml", "json", "toml"), f"{place}: {block.language}"
            assert not block.mark or block.file or block.mark in MARKERS, f"{place}: {block.mark!r} is no known mark"
            if block.language == "python" or (block.file or "").endswith(".py"):
                ast.parse(block.text)
            if block.language == "yaml":
                assert isinstance(yaml.safe_load(block.text), dict), place
    assert set(FAST) | set(FRESH) <= set(RUN)


def test_excused_commands_are_ones_that_exist() -> None:
    """What cannot be run here can at least be wrong in fewer ways."""
    seen = 0
    for document in documents():
        for block in (block for block in blocks(document) if block.excused and block.language == "sh"):
            for words in block.commands:
                if words[0] == "rbft":
                    configs = [words[place + 1] for place, word in enumerate(words) if word == "--config"]
                    local = [name for name in configs if name.startswith("experiments/")]
                    assert all((REPOSITORY / name).is_file() for name in local), f"{document}: {words}"
                    seen += 1
                elif words[:2] == ["python", "-m"] and not words[2].startswith("venv"):
                    places = [root / f"{words[2].replace('.', '/')}.py" for root in (REPOSITORY / "src", REPOSITORY)]
                    assert any(path.is_file() for path in places), f"{document}: {words}"
                    seen += 1
                elif words[0] == "python" and words[1].endswith(".py"):
                    assert (REPOSITORY / words[1]).is_file(), f"{document}: {words}"
    assert seen >= 5


def test_linked_files_and_headings_exist() -> None:
    for document in documents():
        text = (REPOSITORY / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)\)", text):
            assert (REPOSITORY / document).parent.joinpath(target).is_file(), f"{document}: {target}"


def test_troubleshooting_quotes_what_is_said() -> None:
    """Every heading of docs/troubleshooting.md is a message of the program, word for word."""
    said = [text for path in sorted((REPOSITORY / "src").rglob("*.py")) for text in strings(path)]
    quoted = re.findall(r"^### `(.+)`$", (REPOSITORY / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) >= 25
    missing = [message for message in quoted if not any(message in text for text in said)]
    assert missing == []


def strings(path: Path) -> list[str]:
    """The texts of a program, with … in the place of each value."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found
