"""What a plain install has is enough: every import is declared, and none is of one operating system alone."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rbft
from rbft.runs import lock as locks
from rbft.runs.lock import Holder, RunLock

ROOT = Path(rbft.__file__).parent
SETUP = Path(__file__).parents[1] / "setup.cfg"
# Files that only run where the extra of that name is installed, or where somebody else's program is.
OF_EXTRAS = {
    "serve": ("serve", "labelling", "commands/serve.py", "commands/label.py"),
    "search": ("sweep/search.py",),
    "ray": ("sweep/clusters.py",),
    "slurm": ("sweep/clusters.py",),
    "parquet": ("data/formats/parquet.py",),
    "remote": ("starter/remote.py",),
}
# vLLM starts it with its own Python
ELSEWHERE = {"rationales/vllm_worker.py": {"vllm"}}
POSIX = ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty")
_IMPORT_ALL = """
import importlib, pkgutil, signal, sys

class Hiding:
    hidden = set()
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in self.hidden else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

def import_all():
    import rbft
    failed = {}
    for module in pkgutil.walk_packages(rbft.__path__, "rbft."):
        try:
            importlib.import_module(module.name)
        except Exception as error:
            failed[module.name] = f"{type(error).__name__}: {error}"
    return failed

packages, posix = (text.split(",") for text in sys.argv[1:])
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
Hiding.hidden.update(packages)
failed = import_all()
# other people's packages ask which system this is before they import these
Hiding.hidden.update(posix)
for name in [name for name in sys.modules if name in posix or name.split(".")[0] == "rbft"]:
    del sys.modules[name]
from lightning.pytorch.strategies import StrategyRegistry
StrategyRegistry.clear()
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
for name, why in (failed | import_all()).items():
    print(name, why)
"""


def declared(extra: str | None = None) -> set[str]:
    """Names of the distributions that setup.cfg asks for, of an extra or of every install."""
    setup = configparser.ConfigParser()
    setup.read(SETUP)
    text = setup["options.extras_require"][extra] if extra else setup["options"]["install_requires"]
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def imports(path: Path) -> set[str]:
    """Top-level names of what a file imports, at its top or inside a function, but for type checkers alone."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
    return names - set(sys.stdlib_module_names) - {"rbft"}


def test_every_import_is_declared():
    known = {name: {canonicalize_name(dist) for dist in found} for name, found in packages_distributions().items()}
    strays = []
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        allowed = declared()
        for extra, files in OF_EXTRAS.items():
            if place.startswith(files):
                allowed |= declared(extra)
        for name in imports(path) - ELSEWHERE.get(place, set()):
            if not known.get(name, {name}) & allowed:
                strays.append(f"{place} imports {name}")
    assert strays == []


def with_what_it_needs(names: set[str]) -> set[str]:
    """Distributions and all that these ask for, whatever extras they are asked for with."""
    found, left = set(), list(names)
    while left:
        name = left.pop()
        if name in found:
            continue
        try:
            needs = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        found.add(name)
        # of the extras that are asked for here: jsonargparse[signatures,omegaconf] and fsspec[http]
        extras = {"jsonargparse": ("signatures", "omegaconf"), "fsspec": ("http",)}.get(name, ())
        left += [
            canonicalize_name(need.name)
            for need in needs
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        ]
    return found


@pytest.mark.slow
def test_every_module_imports_in_a_plain_install_of_any_system():
    plain = with_what_it_needs(declared() | {"setuptools"})
    hidden = {
        name
        for name, found in packages_distributions().items()
        if not {canonicalize_name(dist) for dist in found} & (plain | {"rbft"}) and name.isidentifier()
    }
    assert {"pytest", "fastapi", "num2words", "ray"} <= hidden, "tests are installed beside them"
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL, ",".join(sorted(hidden)), ",".join(POSIX)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    optional = [line for line in done.stdout.splitlines() if line.startswith(("rbft.serve.", "rbft.labelling."))]
    assert [line for line in done.stdout.splitlines() if line and line not in optional] == []
    assert all("fastapi" in line or "starlette" in line or "python_multipart" in line for line in optional)


def test_a_run_is_held_where_the_kernel_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    first, second = RunLock(tmp_path / "seed0"), RunLock(tmp_path / "seed0")
    assert first.acquire()
    first.note(Holder(locks.socket.gethostname(), 1, locks.os.getpid()))
    assert second.is_held() and not second.acquire()
    first.note(Holder(locks.socket.gethostname(), 1, 2**22 + 1))  # a number that no process has
    first.release()
    assert second.acquire()
