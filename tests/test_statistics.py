"""Intervals against textbook values and simulated coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import matthews_corrcoef

from stages.reporting.statistics import (
    Interval,
    accuracy,
    fisher,
    matthews,
    matthews_bootstrap,
    paired_bootstrap,
    pearson,
    quantiles,
    retention,
    wilson,
)


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


def drawn(metric, labels, first, second):
    return quantiles(np.subtract(*paired_bootstrap(metric, labels, first, second)))


def test_a_paired_interval_is_that_of_the_rows_differences():
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, 500).astype(float)
    first, second = (np.where(generator.random(500) < right, labels, 1 - labels)[None] for right in (0.8, 0.7))
    changes = (first[0] == labels).astype(float) - (second[0] == labels)
    interval, half = drawn(accuracy, labels, first, second), 1.96 * changes.std() / np.sqrt(500)
    assert interval.low == pytest.approx(changes.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(changes.mean() + half, abs=0.1 * half)
    assert drawn(accuracy, labels, first, first) == Interval(0.0, 0.0)


def test_pairing_tells_apart_what_single_intervals_cannot():
    labels = np.arange(400) % 2 * 1.0
    second = np.where(np.arange(400) < 280, labels, 1 - labels)
    first = np.where(np.arange(400) < 292, labels, 1 - labels)  # right wherever the second is, and on 12 rows more
    assert wilson(0.73, 400).low < 0.7
    assert not drawn(accuracy, labels, first[None], second[None]).holds(0.0)


@pytest.mark.parametrize(("metric", "reference"), [(pearson, np.corrcoef), (matthews, matthews_corrcoef)])
def test_weighted_correlations_are_those_of_repeated_rows(metric, reference):
    generator = np.random.default_rng(4)
    labels, predictions = generator.integers(0, 2, (2, 12)).astype(float)
    weights = generator.integers(0, 4, (5, 12))
    for score, counts in zip(metric(labels, predictions, weights), weights, strict=True):
        expected = np.asarray(reference(np.repeat(labels, counts), np.repeat(predictions, counts))).flat[-2:][0]
        assert score == pytest.approx(expected)


def test_two_models_are_compared_by_their_median_seeds():
    labels = np.arange(100) % 2 * 1.0
    wrong = 1 - labels
    assert drawn(accuracy, labels, np.stack([labels, labels, wrong]), np.stack([wrong, labels, wrong])) == Interval(
        1, 1
    )
