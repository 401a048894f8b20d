"""Confidence intervals over the dev rows, and the share of a teacher's score that a student keeps."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 5000
CHUNK = 250  # resamples at a time, so that the weights of many rows fit into memory
BOOTSTRAP_SEED = 20191002  # fixed, so that the same predictions always give the same interval

Draws = NDArray[np.float64]  # [resamples]
# labels [patterns], predictions [patterns] and how often each pattern was drawn [resamples, patterns], to scores
Metric = Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]], Draws]


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Say whether a value lies within."""
        return self.low <= value <= self.high


def wilson(score: float, rows: int, level: float = LEVEL) -> Interval:
    """Compute Wilson's (1927) interval of a mean over `rows` values between 0 and 1.

    For a score of 0 or 1, of which every resample is the same, so that the bootstrap would take it for certain.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (score + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * sqrt(score * (1 - score) / rows + z * z / (4 * rows * rows))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def bootstrap(metric: Metric, labels: NDArray[np.float64], *models: NDArray[np.float64]) -> tuple[Draws, ...]:
    """Draw the medians over seeds of models' scores on the same resampled rows (Efron 1979); each is [seeds, rows].

    Two models of the same rows share most of their luck, so that their difference is known better than either score.
    Rows with the same label and predictions are interchangeable, so that a resample is one multinomial draw over these
    patterns.
    """
    patterns, counts = np.unique(np.vstack([labels, *models]), axis=1, return_counts=True)
    generator, bounds = np.random.default_rng(BOOTSTRAP_SEED), np.cumsum([len(model) for model in models])[:-1]
    parts = []
    for _ in range(RESAMPLES // CHUNK):
        weights = generator.multinomial(counts.sum(), counts / counts.sum(), size=CHUNK)
        scores = np.array([metric(patterns[0], column, weights) for column in patterns[1:]])
        parts.append([np.median(seeds, axis=0) for seeds in np.split(scores, bounds)])
    return tuple(np.concatenate(parts, axis=1))


def accuracy(labels: NDArray[np.float64], predictions: NDArray[np.float64], weights: NDArray[np.int64]) -> Draws:
    """Compute the share of rows that are right."""
    return mean(labels, (labels == predictions).astype(np.float64), weights)


def mean(_: NDArray[np.float64], scores: NDArray[np.float64], weights: NDArray[np.int64]) -> Draws:
    """Average the rows' scores, where the predictions are scores already."""
    averages: Draws = weights @ scores / weights.sum(axis=1)
    return averages


def matthews(labels: NDArray[np.float64], predictions: NDArray[np.float64], weights: NDArray[np.int64]) -> Draws:
    """Compute Matthews' correlation of labels and predictions of 0 and 1; 0 where a class is absent."""
    both = weights @ (labels * predictions)
    positive, predicted, rows = weights @ labels, weights @ predictions, weights.sum(axis=1)
    covariance = both * rows - positive * predicted
    scale = np.sqrt(positive * (rows - positive)) * np.sqrt(predicted * (rows - predicted))
    values: Draws = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    return values


def pearson(labels: NDArray[np.float64], predictions: NDArray[np.float64], weights: NDArray[np.int64]) -> Draws:
    """Compute Pearson's correlation; 0 where either is constant."""
    x, y = labels - labels.mean(), predictions - predictions.mean()
    mean_x, mean_y, xx, yy, xy = (mean(x, values, weights) for values in (x, y, x * x, y * y, x * y))
    scale = np.sqrt(np.maximum((xx - mean_x**2) * (yy - mean_y**2), 0.0))
    values: Draws = np.divide(xy - mean_x * mean_y, scale, out=np.zeros_like(scale), where=scale > 1e-12)
    return values


def quantiles(draws: Draws, level: float = LEVEL) -> Interval:
    """Take the percentile interval of bootstrap draws."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def retention(score: float, teacher: float, chance: float) -> float:
    """Compute the share of the teacher's margin over chance that is kept: (score - chance) / (teacher - chance)."""
    return (score - chance) / (teacher - chance)
