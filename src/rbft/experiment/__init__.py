"""An experiment: stages as configuration layers, methods that list them, and the run folder.

Nothing heavy is imported here: a wrong key or stage name is answered at once.
"""

from rbft.experiment.kinds import KINDS, TEST_KINDS, StageKind
from rbft.experiment.layers import lay_over
from rbft.experiment.reading import RUN_KEYS, Experiment, make_parser, read_experiment, require_known_keys
from rbft.experiment.stages import METHODS, Pool, Stage, nearest

__all__ = [
    "KINDS",
    "METHODS",
    "RUN_KEYS",
    "TEST_KINDS",
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
