"""What Lightning imports and hardly uses does not run, and is whole for everybody else."""

from __future__ import annotations

import subprocess
import sys
import textwrap

_BEGIN = """
import pickle, sys
from rbft.deferred_imports import defer_heavy_packages
defer_heavy_packages()
import torch
from lightning.fabric.wrappers import OptimizedModule
from lightning.pytorch.core.module import Metric, MetricCollection
assert "torchmetrics.functional" not in sys.modules, "the metrics ran"
assert "torch._dynamo.convert_frame" not in sys.modules, "the compiler ran"
"""


def run(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + textwrap.dedent(text)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_metrics_are_whole_for_who_imports_them() -> None:
    run(
        """
        from torchmetrics.classification import MulticlassAccuracy
        import torchmetrics.classification.accuracy as module, torchmetrics, types
        assert module.MulticlassAccuracy is MulticlassAccuracy is torchmetrics.classification.MulticlassAccuracy
        assert type(torchmetrics) is types.ModuleType and torchmetrics.classification.__spec__.origin
        assert torchmetrics.Metric is Metric and torchmetrics.MetricCollection is MetricCollection
        metric = torchmetrics.Accuracy(task="multiclass", num_classes=3)
        assert isinstance(metric, Metric) and isinstance(metric, MulticlassAccuracy)
        loaded = pickle.loads(pickle.dumps(metric))
        assert float(loaded(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 1]))) == 0.75
        names = [name for name in sys.modules if name.startswith("torchmetrics.")]
        assert len({id(sys.modules[name]) for name in names}) == len(names)
        """
    )


def test_an_attribute_alone_has_the_metrics_run() -> None:
    run("import torchmetrics; assert torchmetrics.functional.accuracy and torchmetrics.__all__")


def test_the_compiler_is_whole_for_who_compiles() -> None:
    run(
        """
        plain = torch.nn.Linear(2, 2)
        # an optimiser asks for the compiler, to keep itself from it
        torch.optim.SGD(plain.parameters(), lr=0.1).zero_grad()
        assert "torch._dynamo.convert_frame" not in sys.modules, "the compiler ran"
        assert not isinstance(plain, OptimizedModule)
        seen = []
        def kept(x):
            seen.append(torch.compiler.is_compiling())
            return x + 1
        apart = torch.compiler.disable(kept)
        assert float(apart(torch.zeros(()))) == 1.0 and seen == [False]
        compiled = torch.compile(plain, backend="eager")
        assert torch.equal(compiled(torch.ones(1, 2)), plain(torch.ones(1, 2)))
        assert isinstance(compiled, OptimizedModule) and not isinstance(plain, OptimizedModule)
        assert "torch._dynamo.convert_frame" in sys.modules
        assert float(torch.compile(lambda x: apart(x * 2), backend="eager")(torch.ones(()))) == 3.0
        assert seen == [False, False], "compiled in spite of it"
        """
    )
