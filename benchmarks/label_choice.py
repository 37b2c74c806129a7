"""How many labels a way of choosing saves where features are good: scikit-learn's digits in the place of clips.

    python benchmarks/label_choice.py

A control for `rbft suggest --simulate`, which measures the same on the clips and features of a run.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.datasets import load_digits

from rbft.suggest.simulation import RANDOM, simulate

DIGITS, DRAWS, SEED = 700, 12, 1000


def main() -> None:
    """Print accuracy by labels of each method, and how it does beside choosing at random."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()  # it has no flags, and refuses any
    features, labels = load_digits(return_X_y=True)
    places = np.random.default_rng(0).permutation(len(labels))[:DIGITS]
    curves = simulate(
        features[places].astype(float),
        labels[places],
        10,
        [None] * DIGITS,
        first=10,
        step=10,
        steps=9,
        draws=DRAWS,
        methods=(RANDOM, "diverse", "badge", "margin"),
        seed=SEED,
    )
    print("labels", *curves[RANDOM].labels)
    for method, curve in curves.items():
        print(method, *(f"{100 * mean:.1f}" for mean in curve.means))
        if method != RANDOM:
            print(f"  {curve.against(curves[RANDOM]).describe()}")


if __name__ == "__main__":
    main()
