"""The metrics against scikit-learn, scipy and the official SQuAD script's definitions."""

import re
import string
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from stages.finetuning import metrics
from stages.finetuning.tasks import TASKS, headline, headline_paper

few = settings(max_examples=25, deadline=None)
classes = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=40)
numbers = st.lists(
    st.tuples(st.floats(-5, 5, allow_subnormal=False), st.floats(0, 5, allow_subnormal=False)), min_size=3, max_size=40
)


def compute(metric, pairs):
    predictions, references = zip(*pairs, strict=True)
    return metric().compute(predictions=list(predictions), references=list(references))


@pytest.mark.filterwarnings("ignore:A single label was found")
@few
@given(classes)
def test_class_metrics_equal_scikit_learn(pairs):
    predictions, references = (list(column) for column in zip(*pairs, strict=True))
    assert compute(metrics.Accuracy, pairs)["accuracy"] == sk.accuracy_score(references, predictions)
    assert compute(metrics.F1, pairs)["f1"] == sk.f1_score(references, predictions, zero_division=0.0)
    assert compute(metrics.Matthews, pairs)["matthews"] == sk.matthews_corrcoef(references, predictions)


@few
@given(numbers)
def test_correlations_equal_scipy(pairs):
    predictions, references = (np.array(column) for column in zip(*pairs, strict=True))
    if min(predictions.std(), references.std()) < 1e-3:
        return  # near-constant columns are rounding noise; exactly constant ones are tested below
    assert compute(metrics.Pearson, pairs)["pearson"] == pytest.approx(stats.pearsonr(predictions, references)[0])
    assert compute(metrics.Spearman, pairs)["spearman"] == pytest.approx(stats.spearmanr(predictions, references)[0])


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman"])
@pytest.mark.parametrize("column", [0, 1])
def test_constant_column_scores_zero(name, column):
    pairs = [(1, value) if column == 0 else (value, 1) for value in (0, 1, 1, 0)]
    assert compute(metrics.METRICS[name], pairs) == {name: 0.0}


def test_prediction_that_is_not_a_number_is_an_error():
    with pytest.raises(ValueError, match="not a finite number"):
        compute(metrics.Pearson, [(float("nan"), 1.0), (0.0, 2.0)])


def test_metrics_leave_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    compute(metrics.Accuracy, [(1, 1), (0, 1)])
    metrics.Squad().compute(predictions=["a cat"], references=[["cat"]])
    assert list(Path(tmp_path).rglob("*")) == []


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "f1"),
    [
        ("the Cat!", ["cat"], 1.0, 1.0),
        ("A cat, the dog", ["cat dog"], 1.0, 1.0),
        ("cat", ["dog", "the cat sat", "Cat."], 1.0, 1.0),  # the best reference counts
        ("black cat", ["dog", "the black cat sat"], 0.0, 0.8),
        ("cat cat", ["cat"], 0.0, 2 / 3),  # words count as often as they occur
        ("", ["cat"], 0.0, 0.0),
        ("the", ["a"], 1.0, 0.0),  # both normalise to nothing: equal, but no word is shared
        ("Beyoncé", ["Beyonce"], 0.0, 0.0),  # accents are kept
        ("BEYONCÉ", ["beyoncé"], 1.0, 1.0),
        ("“quoted”", ["quoted"], 0.0, 0.0),  # only ASCII punctuation goes
        ("$1,000", ["1000"], 1.0, 1.0),
        ("state-of-the-art", ["stateoftheart"], 1.0, 1.0),  # punctuation goes before articles
        ("theatre an", ["theatre"], 1.0, 1.0),  # articles are whole words
        ("New\u00a0 York\n", ["new york"], 1.0, 1.0),
        ("東京 タワー", ["東京"], 0.0, 2 / 3),
    ],
)
def test_squad_scores_by_hand(prediction, references, exact, f1):
    assert metrics.squad_scores(prediction, references) == (exact, pytest.approx(f1))


def official_normalize(text):
    """evaluate-v1.1.py, restated."""
    text = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def official_f1(prediction, reference):
    predicted, expected = official_normalize(prediction).split(), official_normalize(reference).split()
    same = sum((Counter(predicted) & Counter(expected)).values())
    if same == 0:
        return 0
    precision, recall = 1.0 * same / len(predicted), 1.0 * same / len(expected)
    return (2 * precision * recall) / (precision + recall)


answers = st.lists(
    st.sampled_from(["a", "the", "An", "cat", "Café", "U.S.", "1,000", "-", "'s", "über", "\t", "ⅷ", "The-end"]),
    max_size=5,
).map(" ".join)


@few
@given(st.lists(st.tuples(answers, st.lists(answers, min_size=1, max_size=3)), min_size=1, max_size=6))
def test_squad_metric_equals_the_official_script(pairs):
    expected_exact = [max(official_normalize(p) == official_normalize(r) for r in rs) for p, rs in pairs]
    expected_f1 = [max(official_f1(p, r) for r in rs) for p, rs in pairs]
    result = compute(metrics.Squad, pairs)
    assert result["exact_match"] == pytest.approx(100.0 * sum(expected_exact) / len(pairs))
    assert result["f1"] == pytest.approx(100.0 * sum(expected_f1) / len(pairs))


def test_majority_baseline_is_the_best_constant_answer_to_the_split():
    dev = [0, 0, 0, 1]
    assert metrics.majority(TASKS["RTE"], "dev", dev) == {"accuracy": 0.75}
    assert metrics.majority(TASKS["MRPC"], "dev", [1, 1, 1, 0]) == {"accuracy": 0.75, "f1": pytest.approx(6 / 7)}
    assert metrics.majority(TASKS["CoLA"], "dev", dev) == {"matthews": 0.0, "accuracy": 0.75}
    assert metrics.majority(TASKS["MNLI"], "dev_mismatched", [2, 0, 1, 2]) == {"accuracy_mismatched": 0.5}
    assert metrics.majority(TASKS["STS-B"], "dev", [1.0, 2.0, 3.0]) == {"pearson": 0, "spearman": 0}
    assert metrics.majority(TASKS["RTE"], "dev", [1, 0]) == {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("task", "scores", "ours", "papers"),
    [
        ("CoLA", {"matthews": 0.5, "accuracy": 0.8}, 0.5, 50.0),
        ("STS-B", {"pearson": 0.8, "spearman": 0.7}, 0.8, 75.0),
        ("MRPC", {"accuracy": 0.8, "f1": 0.9}, 0.8, 85.0),
        ("QQP", {"accuracy": 0.8, "f1": 0.9}, 0.8, 85.0),
        ("MNLI", {"accuracy": 0.7, "accuracy_mismatched": 0.9}, 0.7, 70.0),
        ("SST-2", {"accuracy": 0.9}, 0.9, 90.0),
        ("IMDb", {"accuracy": 0.9}, 0.9, 90.0),
    ],
)
def test_headlines_of_both_conventions(task, scores, ours, papers):
    assert headline(task, scores) == ours
    assert headline_paper(task, scores) == pytest.approx(papers)


def test_every_task_is_scored_by_its_headline():
    for task in TASKS.values():
        scores = metrics.score(task, "dev", [0, 1], [0, 1])
        assert headline(task.name, scores) == 1.0
        assert headline_paper(task.name, scores) == 100.0
