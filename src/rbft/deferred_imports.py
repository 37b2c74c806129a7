"""Packages of which Lightning needs little: they run when something else of them is asked for.

Lightning imports torchmetrics for two classes, which has it run all its metrics and with them torchvision's models,
scipy.signal and transformers. Where a run is done already, nothing else needs those: it is told in three quarters of
the time.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# warnings and test runners ask this of every module there is
_ASKED_OF_ALL = "__warningregistry__"


class _Deferred(ModuleType):
    """A package that has not run. It gives a few names, and runs when another one is asked for.

    One of its modules that is imported by other code has the package run before (`_Finder`). So all code but that of
    the few names meets the package as it always is.
    """

    def __init__(self, name: str, loader: Loader, light: Mapping[str, Callable[[], Any]]) -> None:
        super().__init__(name)
        self._loader, self._light = loader, light
        # while it is being made, and while a few names are had
        self._looking = True

    def __getattr__(self, name: str) -> Any:
        if name == _ASKED_OF_ALL or (self._looking and name not in self._light):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if name not in self._light:
            self._run()
            return getattr(self, name)
        before, self._looking = self._looking, True
        try:
            value = self._light[name]()
        except ImportError:
            # another version of the package needs more of itself
            self._run()
            return getattr(self, name)
        finally:
            if isinstance(self, _Deferred):
                self._looking = before
        setattr(self, name, value)
        return value

    def _run(self) -> None:
        """Become the package that would have been imported."""
        loader = self._loader
        for name in {*self._light, "_loader", "_light", "_looking"} & set(vars(self)):
            delattr(self, name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        try:
            loader.exec_module(self)
        except BaseException:
            # as an import that failed: the next one tries again
            sys.modules.pop(self.__name__, None)
            raise


class _Deferring(Loader):
    """Makes a package that does not run yet.

    Args:
        loader: loader of the package itself.
        light: names that can be had without running it, with what gives each.
    """

    def __init__(self, loader: Loader, light: Mapping[str, Callable[[], Any]]) -> None:
        self.loader, self.light = loader, light

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Deferred(spec.name, self.loader, self.light)

    def exec_module(self, module: ModuleType) -> None:
        assert isinstance(module, _Deferred) and module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        module._looking = False


class _Loaded(Loader):
    """Gives a module that has been imported meanwhile."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


class _Finder(MetaPathFinder):
    """Finds the packages that are deferred, and has one run before a module of it is found.

    Args:
        packages: for each package the names that can be had without running it, with what gives each.
    """

    def __init__(self, packages: Mapping[str, Mapping[str, Callable[[], Any]]]) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name in self.packages:
            spec = PathFinder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Deferring(spec.loader, self.packages[name])
            return spec
        package = sys.modules.get(next((known for known in self.packages if name.startswith(f"{known}.")), ""))
        if not isinstance(package, _Deferred) or package._looking:
            return None
        package._run()
        # a package imports most of its modules itself; none may be there twice
        return ModuleSpec(name, _Loaded(sys.modules[name])) if name in sys.modules else None


def _of(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


_LIGHT: dict[str, dict[str, Callable[[], Any]]] = {
    "torchmetrics": {
        "__version__": partial(_of, "torchmetrics.__about__", "__version__"),
        # `torchmetrics.metric` itself cannot be the first of its modules that is imported
        "Metric": partial(_of, "torchmetrics.utilities.checks", "Metric"),
        "MetricCollection": partial(_of, "torchmetrics.collections", "MetricCollection"),
        "_logger": partial(logging.getLogger, "torchmetrics"),
    },
}


def defer_heavy_packages() -> None:
    """Have torchmetrics run when it is used; no effect where it has been imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(_LIGHT))
