"""What `model.robustness` may name."""

from __future__ import annotations

import pytest

from rbft.answering.robustness import Robustness
from rbft.errors import ConfigError


@pytest.mark.parametrize("ladder", [("none",), ("blank", "blank")])
def test_a_rung_is_a_degradation_and_stands_once(ladder):
    with pytest.raises(ConfigError, match=r"model\.robustness\.ladder"):
        Robustness(ladder=ladder)
