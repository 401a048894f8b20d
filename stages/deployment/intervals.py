"""The confidence interval of a difference of two models' scores on the same rows."""

from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


def paired_interval(
    first: NDArray[np.float64], second: NDArray[np.float64], level: float = LEVEL
) -> tuple[float, float]:
    """Compute Bonett and Price's (2012) interval of the mean of `second - first`, the rows' scores between 0 and 1.

    It is Wald's after adding a row on which only the first is right and one on which only the second is, so that two
    models that agree everywhere do not count as equal for certain. For scores in between, such as F1, it is wider.
    """
    differences = np.concatenate([second - first, [1.0, -1.0]])
    centre = float(differences.mean())
    half = NormalDist().inv_cdf((1 + level) / 2) * sqrt(float(differences.var()) / len(differences))
    return max(-1.0, centre - half), min(1.0, centre + half)
