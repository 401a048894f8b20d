"""Intervals against textbook values and simulated coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import matthews_corrcoef

from stages.reporting.statistics import fisher, matthews_bootstrap, retention, wilson


@pytest.mark.parametrize(("score", "rows"), [(0.0, 10), (0.5, 100), (0.93, 872), (1.0, 71)])
def test_wilson_equals_scipy(score, rows):
    expected = stats.binomtest(round(score * rows), rows).proportion_ci(method="wilson")
    exact = wilson(round(score * rows) / rows, rows)
    assert (exact.low, exact.high) == pytest.approx((expected.low, expected.high))


def test_fisher_equals_scipy():
    generator = np.random.default_rng(0)
    x = generator.normal(size=80)
    y = x + generator.normal(size=80)
    result = stats.pearsonr(x, y)
    expected = result.confidence_interval()
    interval = fisher(result.statistic, 80)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


@settings(deadline=None, max_examples=50)
@given(st.floats(0.0, 1.0), st.integers(1, 100_000))
def test_intervals_hold_their_score_and_stay_in_range(score, rows):
    interval = wilson(score, rows)
    assert 0.0 <= interval.low <= score + 1e-12
    assert score - 1e-12 <= interval.high <= 1.0
    correlation = 2 * score - 1
    interval = fisher(correlation, rows)
    assert -1.0 <= interval.low <= correlation + 1e-12
    assert correlation - 1e-12 <= interval.high <= 1.0


def simulated(generator, rows, accuracy):
    labels = (generator.random(rows) < 0.7).astype(np.int64)
    return labels, np.where(generator.random(rows) < accuracy, labels, 1 - labels)


def test_the_bootstrap_covers_the_true_correlation():
    accuracy, positive = 0.8, 0.7
    predicted = positive * accuracy + (1 - positive) * (1 - accuracy)
    spread = np.sqrt(positive * (1 - positive) * predicted * (1 - predicted))
    truth = (positive * accuracy - positive * predicted) / spread
    covered = 0
    for seed in range(60):
        labels, predictions = simulated(np.random.default_rng(seed), 400, accuracy)
        interval = matthews_bootstrap(labels, predictions[None])
        covered += interval.low <= truth <= interval.high
    assert covered >= 52  # of 60; 57 are expected


def test_the_bootstrap_repeats_exactly_and_holds_the_score():
    labels, predictions = simulated(np.random.default_rng(1), 300, 0.75)
    first, second = (matthews_bootstrap(labels, predictions[None]) for _ in range(2))
    assert first == second
    assert first.low < matthews_corrcoef(labels, predictions) < first.high


def test_the_bootstrap_takes_the_median_over_seeds():
    labels, good = simulated(np.random.default_rng(2), 300, 0.9)
    constant = np.ones_like(labels)
    assert matthews_bootstrap(labels, np.stack([good, good, constant])) == matthews_bootstrap(labels, good[None])


def test_a_constant_prediction_has_no_correlation():
    labels = np.array([0, 1, 1, 0])
    interval = matthews_bootstrap(labels, np.ones((1, 4), dtype=np.int64))
    assert (interval.low, interval.high) == (0.0, 0.0)


def test_retention():
    assert retention(0.7, 0.9, 0.5) == pytest.approx(0.5)
    assert retention(0.9, 0.9, 0.5) == pytest.approx(1.0)
    assert retention(0.4, 0.9, 0.5) == pytest.approx(-0.25)
