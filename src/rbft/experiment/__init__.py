"""An experiment: stages as configuration layers, methods that list them, and the run folder.

Nothing heavy is imported here: a wrong key or stage name is answered at once.
"""

from rbft.experiment.layers import lay_over
from rbft.experiment.reading import RUN_KEYS, Experiment, make_parser, read_experiment, require_known_keys
from rbft.experiment.stages import (
    ALL_LABELS_KINDS,
    ASKING_KINDS,
    KINDS,
    METHODS,
    PROBE_KINDS,
    TEST_KINDS,
    TRAINING_KINDS,
    Pool,
    Stage,
    StageKind,
    nearest,
)

__all__ = [
    "ALL_LABELS_KINDS",
    "ASKING_KINDS",
    "KINDS",
    "METHODS",
    "PROBE_KINDS",
    "RUN_KEYS",
    "TEST_KINDS",
    "TRAINING_KINDS",
    "Experiment",
    "Pool",
    "Stage",
    "StageKind",
    "lay_over",
    "make_parser",
    "nearest",
    "read_experiment",
    "require_known_keys",
]
