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
    bootstrap,
    matthews,
    mean,
    pearson,
    quantiles,
    retention,
    wilson,
)


def interval(metric, labels, predictions):
    """The 95 % interval of one seed's score."""
    return quantiles(*bootstrap(metric, labels.astype(float), predictions[None].astype(float)))


@pytest.mark.parametrize(("score", "rows"), [(0.5, 100), (0.73, 400), (0.93, 872)])
def test_an_interval_of_accuracy_is_that_of_theory(score, rows):
    right = np.arange(rows) < round(score * rows)
    expected = stats.binomtest(int(right.sum()), rows).proportion_ci(method="wilson")
    found = interval(accuracy, np.ones(rows), right)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert interval(mean, np.zeros(rows), right) == found  # of rows' scores, such as SQuAD's


@pytest.mark.parametrize(("score", "rows"), [(0.0, 10), (1.0, 3), (1.0, 71)])
def test_a_perfect_score_is_not_certain(score, rows):
    expected = stats.binomtest(round(score * rows), rows).proportion_ci(method="wilson")
    found = wilson(score, rows)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    constant = interval(accuracy, np.ones(rows), np.full(rows, score))
    assert constant == Interval(score, score)  # which is why


def test_an_interval_of_pearson_is_that_of_theory():
    generator = np.random.default_rng(0)
    x = generator.normal(size=400)
    y = x + generator.normal(size=400)
    expected = stats.pearsonr(x, y).confidence_interval()
    found = interval(pearson, x, y)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=50))
def test_intervals_hold_their_score_and_stay_in_range(rows):
    labels, predictions = np.array(rows).T
    found = interval(accuracy, labels, predictions)
    score = (labels == predictions).mean()
    assert 0.0 <= found.low <= score + 1e-12
    assert score - 1e-12 <= found.high <= 1.0
    found = interval(matthews, labels, predictions)
    assert -1.0 - 1e-12 <= found.low <= found.high <= 1.0 + 1e-12


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
        found = interval(matthews, labels, predictions)
        covered += found.low <= truth <= found.high
    assert covered >= 52  # of 60; 57 are expected


def test_the_bootstrap_repeats_exactly_and_holds_the_score():
    labels, predictions = simulated(np.random.default_rng(1), 300, 0.75)
    first, second = (interval(matthews, labels, predictions) for _ in range(2))
    assert first == second
    assert first.low < matthews_corrcoef(labels, predictions) < first.high


def test_the_bootstrap_takes_the_median_over_seeds():
    labels, good = simulated(np.random.default_rng(2), 300, 0.9)
    constant = np.ones_like(labels)
    seeds = np.stack([good, good, constant]).astype(float)
    assert quantiles(*bootstrap(matthews, labels.astype(float), seeds)) == interval(matthews, labels, good)


def test_a_constant_prediction_has_no_correlation():
    labels = np.array([0, 1, 1, 0])
    assert interval(matthews, labels, np.ones(4)) == Interval(0.0, 0.0)


def test_retention():
    assert retention(0.7, 0.9, 0.5) == pytest.approx(0.5)
    assert retention(0.9, 0.9, 0.5) == pytest.approx(1.0)
    assert retention(0.4, 0.9, 0.5) == pytest.approx(-0.25)


def drawn(metric, labels, first, second):
    return quantiles(np.subtract(*bootstrap(metric, labels, first, second)))


def test_a_paired_interval_is_that_of_the_rows_differences():
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, 500).astype(float)
    first, second = (np.where(generator.random(500) < right, labels, 1 - labels)[None] for right in (0.8, 0.7))
    changes = (first[0] == labels).astype(float) - (second[0] == labels)
    found, half = drawn(accuracy, labels, first, second), 1.96 * changes.std() / np.sqrt(500)
    assert found.low == pytest.approx(changes.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(changes.mean() + half, abs=0.1 * half)
    assert drawn(accuracy, labels, first, first) == Interval(0.0, 0.0)


def test_pairing_tells_apart_what_single_intervals_cannot():
    labels = np.arange(400) % 2 * 1.0
    second = np.where(np.arange(400) < 280, labels, 1 - labels)
    first = np.where(np.arange(400) < 292, labels, 1 - labels)  # right wherever the second is, and on 12 rows more
    assert interval(accuracy, labels, first).low < 0.7
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
