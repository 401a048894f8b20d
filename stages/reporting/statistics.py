"""Confidence intervals over the dev rows, and the share of a teacher's score that a student keeps."""

from dataclasses import dataclass
from math import atanh, isclose, sqrt, tanh
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 5000
BOOTSTRAP_SEED = 20191002  # fixed, so that the same predictions always give the same interval


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float


def wilson(score: float, rows: int, level: float = LEVEL) -> Interval:
    """Compute Wilson's (1927) interval of a mean over `rows` values between 0 and 1.

    Meant for accuracy and exact match. For values in between, such as SQuAD's F1, it is conservative: none of mean p
    has a variance above p (1 - p).
    """
    z = _quantile(level)
    centre = (score + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * sqrt(score * (1 - score) / rows + z * z / (4 * rows * rows))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def fisher(correlation: float, rows: int, level: float = LEVEL) -> Interval:
    """Compute Fisher's (1921) z interval of a Pearson correlation; the whole range below four pairs."""
    if rows <= 3:
        return Interval(-1.0, 1.0)
    if isclose(abs(correlation), 1.0):
        return Interval(correlation, correlation)
    centre, half = atanh(correlation), _quantile(level) / sqrt(rows - 3)
    return Interval(tanh(centre - half), tanh(centre + half))


def matthews_bootstrap(labels: NDArray[np.int64], predictions: NDArray[np.int64], level: float = LEVEL) -> Interval:
    """Bootstrap the median over seeds of Matthews' correlation; labels [rows] of 0 and 1, predictions [seeds, rows].

    Rows with the same label and predictions are interchangeable, so that a resample is one multinomial draw over these
    patterns.
    """
    patterns, counts = np.unique(np.vstack([labels, predictions]), axis=1, return_counts=True)
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    weights = generator.multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES)  # [resamples, patterns]
    values = np.median([_matthews(patterns[0], seed, weights) for seed in patterns[1:]], axis=0)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _matthews(
    labels: NDArray[np.int64], predictions: NDArray[np.int64], weights: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Compute Matthews' correlation [resamples] of weighted rows; 0 where a class is absent, as in scikit-learn."""
    true_positive = weights @ (labels & predictions)
    positive, predicted, rows = weights @ labels, weights @ predictions, weights.sum(axis=1)
    covariance = (true_positive * rows - positive * predicted).astype(np.float64)
    scale = np.sqrt(1.0 * positive * (rows - positive)) * np.sqrt(1.0 * predicted * (rows - predicted))
    values: NDArray[np.float64] = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    return values


def retention(score: float, teacher: float, chance: float) -> float:
    """Compute the share of the teacher's margin over chance that is kept: (score - chance) / (teacher - chance)."""
    return (score - chance) / (teacher - chance)


def _quantile(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
