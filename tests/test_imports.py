"""The plan of the house, enforced: who may import whom, where videos are opened, and how long a file may be."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import rbft

ROOT = Path(rbft.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
CODE_LINES = 260

# What each room may import of the package beside itself. A room is a folder, or a file at the top.
BASE = {"errors", "files", "ranks", "runs.names"}
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "ranks": set(),
    "deferred_imports": set(),
    "disk_cache": BASE,
    "arguments": BASE,
    "experiment": BASE | {"arguments"},
    "terminal": BASE,
    "worlds": BASE,
    "video": BASE | {"disk_cache"},
    "vlm": BASE | {"disk_cache", "video", "worlds"},
    "encoders": BASE | {"vlm.feature_cache", "vlm.loading"},
    "data": BASE
    | {"video", "worlds", "vlm.batch", "vlm.feature_cache", "vlm.state_cache", "vlm.processing", "vlm.prompt"},
    "rationales": BASE | {"video", "data", "vlm"},
    "objectives": BASE | {"data", "vlm", "rationales"},
    "evaluation": BASE | {"data"},
    "answering": BASE | {"video.clip_spec", "data", "vlm", "rationales", "evaluation"},
    "training": BASE | {"video", "data", "vlm", "rationales", "objectives", "evaluation", "answering"} | {"encoders"},
    "runs": BASE | {"", "experiment"},
    "estimate": BASE | {"experiment", "video.clip_spec", "data", "vlm", "encoders", "stages.read_stage"},
    "report": BASE | {"", "experiment", "video", "data", "rationales", "evaluation", "runs"},
    "sweep": BASE | {"", "experiment", "evaluation", "runs"},
    "stages": BASE
    | {"experiment", "terminal", "video", "data", "vlm", "rationales", "objectives", "evaluation", "answering"}
    | {"encoders", "training", "runs", "report"},
    "pipeline": BASE
    | {"", "experiment", "terminal", "video", "data", "vlm", "rationales", "objectives", "training", "runs"}
    | {"encoders", "estimate", "stages"},
    "predict": BASE
    | {"experiment", "terminal", "video", "data", "vlm", "evaluation", "answering", "training", "runs"}
    | {"stages", "pipeline.stage_cli"},
    "export": BASE | {"", "terminal", "data.formats", "video", "vlm", "evaluation", "runs", "predict"},
    # the page of a run sees it through the classifier alone
    "serve": BASE | {"", "terminal", "video", "data.formats", "report.templates", "predict"},
    "suggest": BASE | {"terminal", "video", "data", "evaluation", "runs", "predict", "report.templates"},
    # the page for labels asks a run as `predict` does, and is guarded as the page of `serve`
    "labelling": BASE | {"", "video", "data", "predict", "report.templates", "serve.host_check", "serve.server"},
    # a folder of clips to an experiment file
    "starter": BASE
    | {
        "arguments",
        "experiment",
        "video.image_sequence",
        "data.formats",
        "data.labels",
        "data.own_folders",
        "data.own_tables",
        "data.records",
    }
    | {"sweep.launchers"},
    "commands": BASE
    | {"", "arguments", "experiment", "terminal", "video.clip_cache", "data", "rationales", "evaluation", "runs.lock"}
    | {"estimate", "pipeline", "predict", "export", "labelling", "serve", "report", "starter", "suggest", "sweep"},
    "__main__": {"", "arguments", "commands", "deferred_imports"},
}
# `ranks` and all that is not named here know nothing of Lightning.
LIGHTNING = {"training", "data.datamodule", "pipeline", "stages"}


def module_of(path: Path) -> str:
    """Dotted name below the package; a package's own file has the package's name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, whole name) of everything a file imports, at its top or inside a function."""
    known = {module_of(file) for file in FILES}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield node.lineno, name if name.removeprefix("rbft.") in known else str(node.module)


def of_package(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module below the package); the package itself is ''."""
    for line, name in imports(path):
        if name == "rbft" or name.startswith("rbft."):
            yield line, name.removeprefix("rbft").removeprefix(".")


def within(name: str, rooms: set[str]) -> bool:
    return any(name == room or (room and name.startswith(f"{room}.")) for room in rooms)


def room_of(module: str) -> str:
    return module.split(".")[0]


def test_there_is_something_to_look_at():
    assert {"video", "data", "vlm", "training"} <= {room_of(module_of(path)) for path in FILES}
    rooms = {room_of(module_of(path)) for path in FILES} - {""}
    assert rooms == set(ALLOWED), (
        "every folder and every file at the top has a row in the table, and no row is left over"
    )
    found = dict.fromkeys(name for _, name in of_package(ROOT / "training" / "module.py"))
    assert {"vlm.model", "errors"} <= set(found)


@pytest.mark.parametrize("room", ALLOWED)
def test_data_flows_one_way(room):
    strays = [
        f"{path.relative_to(ROOT)}:{line} imports {name or 'rbft'}"
        for path in FILES
        if room_of(module_of(path)) == room
        for line, name in of_package(path)
        if not within(name, ALLOWED[room] | {room})
    ]
    assert strays == []


def loops(imported: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of names that import each other, directly or through others."""
    reached: dict[str, set[str]] = {}
    for name in imported:
        seen: set[str] = set()
        left = [name]
        while left:
            new = imported.get(left.pop(), set()) - seen
            seen |= new
            left += new
        reached[name] = seen
    in_loops = {name for name in imported if name in reached[name]}
    groups = {
        frozenset({name, *(other for other in in_loops & reached[name] if name in reached[other])}) for name in in_loops
    }
    return sorted(sorted(group) for group in groups)


def test_loops_are_found():
    assert loops({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert loops({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_no_files_and_no_rooms_import_each_other():
    files = {module_of(path): {name for _, name in of_package(path)} - {""} for path in FILES}
    assert loops(files) == []
    rooms: dict[str, set[str]] = {}
    for module, names in files.items():
        named = {room_of(name) for name in names if name != "runs.names"}  # constants
        rooms.setdefault(room_of(module), set()).update(named - {room_of(module)})
    assert loops(rooms) == []


def test_only_the_glue_knows_lightning():
    strays = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in FILES
        if not within(module_of(path), LIGHTNING)
        for line, name in imports(path)
        if name.split(".")[0] in ("lightning", "pytorch_lightning", "lightning_fabric")
    ]
    assert strays == []


@pytest.mark.parametrize(
    ("room", "foreign"),
    [
        ("video", {"transformers", "peft", "tokenizers"}),
        ("worlds", {"transformers", "peft", "tokenizers"}),
        ("evaluation", {"transformers", "peft", "av"}),
        ("data", {"transformers", "peft", "av"}),
        ("vlm", {"av", "jsonargparse"}),
        ("rationales", {"transformers", "peft", "av"}),
        ("objectives", {"transformers", "peft", "av"}),
    ],
)
def test_rooms_do_not_reach_for_others_tools(room, foreign):
    strays = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in FILES
        if room_of(module_of(path)) == room
        for line, name in imports(path)
        if name.split(".")[0] in foreign
    ]
    assert strays == []


def calls(path: Path, owner: str, name: str) -> int:
    return sum(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (node.func.value.id, node.func.attr) == (owner, name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


def test_videos_are_opened_in_one_place_and_written_in_one():
    found = {str(path.relative_to(ROOT)): calls(path, "av", "open") for path in FILES}
    assert {path: count for path, count in found.items() if count} == {"video/container.py": 1, "worlds/encode.py": 1}
    for path in FILES:
        assert not [name for _, name in imports(path) if name in ("av.open", "cv2", "decord", "torchcodec", "imageio")]
        if module_of(path) != "training.checkpoint":
            assert calls(path, "torch", "load") == 0, f"{path}: checkpoints are read in training/checkpoint.py"


def code_lines(text: str) -> int:
    """Lines that hold code: no blank lines, comments or docstrings, however the formatter lays them out."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if documented and ast.get_docstring(node) is not None:
            lines.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def test_code_lines_are_counted_without_words():
    text = '"""Two\nlines."""\n\n\ndef f():\n    """Doc."""\n    # why\n    return (\n        1\n    )\n'
    assert code_lines(text) == 4


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_files_have_one_stated_purpose_and_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith('"""'), "the first line says what the file is for"
    assert text[3:].split("\n")[0].strip('" ')
    assert code_lines(text) <= CODE_LINES, "split it"
