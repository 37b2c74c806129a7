"""What the source never does, whatever it is given: unpickle, evaluate, run remote code, listen to the network."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import rbft

ROOT = Path(rbft.__file__).parent
REPOSITORY = Path(__file__).parents[2]
FILES = sorted(ROOT.rglob("*.py"))
MODULES = {
    "pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "socketserver",
    "http.server",
    "requests",
    "urllib.request",
}
FUNCTIONS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "torch.hub.load",
    "torch.jit.load",
    "socket.socket",
    "socket.create_server",
}


# the one place that listens, and only where a person starts it; tests/serve holds it to 127.0.0.1 and its guards
LISTENS = {"serve/server.py": "socket.socket"}


def name_of(node: ast.expr) -> str:
    return ast.unparse(node)


def forbidden(source: str) -> list[str]:
    """What of a file's source must not be there, with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        found += [f"{node.lineno}: imports {name}" for name in names if name in MODULES]
        if not isinstance(node, ast.Call):
            continue
        called = name_of(node.func)
        given = {word.arg: name_of(word.value) for word in node.keywords}
        if called in FUNCTIONS:
            found.append(f"{node.lineno}: calls {called}")
        if called == "torch.load" and given.get("weights_only") != "True":
            found.append(f"{node.lineno}: torch.load without weights_only=True")
        for word in ("shell", "allow_pickle", "trust_remote_code"):
            if given.get(word, "False") != "False":
                found.append(f"{node.lineno}: {called}({word}={given[word]})")
    return found


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_nothing_of_it_stands_in_the_source(path: Path) -> None:
    found = forbidden(path.read_text(encoding="utf-8"))
    allowed = LISTENS.get(path.relative_to(ROOT).as_posix())
    assert [line for line in found if not line.endswith(f": calls {allowed}")] == []
    assert len(found) == (allowed is not None), "one socket, in the one place that listens"


def test_what_listens_listens_to_this_machine_alone() -> None:
    from rbft.commands.serve import parser

    assert parser().parse_args(["--run", "x"]).host == "127.0.0.1"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "from urllib import request\nfrom urllib.request import urlopen",
        "eval('1')",
        "yaml.load(x)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "subprocess.run(x, shell=True)",
        "np.load(x, allow_pickle=True)",
    ],
)
def test_it_would_be_found(line: str) -> None:
    assert forbidden(line)


def test_tensorboard_is_opened_for_this_machine_alone() -> None:
    lines = (REPOSITORY / "Makefile").read_text(encoding="utf-8").splitlines()
    started = [line for line in lines if "tensorboard" in line and "--logdir" in line]
    assert started
    for line in started:
        assert re.search(r"--host 127\.0\.0\.1\b", line)
        assert "--bind_all" not in line
