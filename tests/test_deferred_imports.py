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
from lightning.pytorch.core.module import Metric, MetricCollection
assert "torchmetrics.functional" not in sys.modules, "the metrics ran"
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
