"""The official metrics as `evaluate.Metric` subclasses: computed in memory, with no file and no network."""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import evaluate
import numpy as np
from datasets import Features, List, Value
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from stages.finetuning.tasks import MISMATCHED, Task

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = frozenset(string.punctuation)


class InMemoryMetric(evaluate.Metric):  # type: ignore[misc]
    """A metric that keeps what it compares in memory."""

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _build_data_dir(self) -> str:
        return ""  # the base class makes a folder in the user's home, which nothing in memory needs

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__ or "", citation="", inputs_description="", features=Features(self.columns())
        )

    def columns(self) -> dict[str, Any]:
        """Types of predictions and references: class indices, unless a subclass says otherwise."""
        return {"predictions": Value("int64"), "references": Value("int64")}


class Accuracy(InMemoryMetric):
    """Share of predictions that equal the reference."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class F1(InMemoryMetric):
    """Harmonic mean of precision and recall of class 1; 0 where it is neither predicted nor present."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"f1": float(f1_score(references, predictions, pos_label=1, zero_division=0.0))}


class Matthews(InMemoryMetric):
    """Matthews correlation coefficient; 0 for a constant prediction."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        constant = len(set(predictions)) == 1 or len(set(references)) == 1  # scikit-learn gives 0 too, with a warning
        return {"matthews": 0.0 if constant else float(matthews_corrcoef(references, predictions))}


class Pearson(InMemoryMetric):
    """Pearson correlation coefficient; 0 for a constant prediction."""

    def columns(self) -> dict[str, Any]:
        """Types of predictions and references: numbers."""
        return {"predictions": Value("float64"), "references": Value("float64")}

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        return {"pearson": _correlation(pearsonr, predictions, references)}


class Spearman(Pearson):
    """Spearman rank correlation coefficient; 0 for a constant prediction."""

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        return {"spearman": _correlation(spearmanr, predictions, references)}


class Squad(InMemoryMetric):
    """Exact match and F1 of SQuAD 1.1 (Rajpurkar et al. 2016, section 6.1), 0-100, the best over the references."""

    def columns(self) -> dict[str, Any]:
        """Types: the answer given, and the answers accepted for the same question."""
        return {"predictions": Value("string"), "references": List(Value("string"))}

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        scores = [squad_scores(*pair) for pair in zip(predictions, references, strict=True)]
        exact, f1 = (100.0 * sum(column) / len(scores) for column in zip(*scores, strict=True))
        return {"exact_match": exact, "f1": f1}


METRICS: dict[str, type[InMemoryMetric]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "matthews": Matthews,
    "pearson": Pearson,
    "spearman": Spearman,
}


def score(task: Task, split: str, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
    """All scores of a task on one of its dev splits; names of scores on MNLI's second one end in `_mismatched`."""
    suffix = MISMATCHED if split.endswith(MISMATCHED) else ""
    results: dict[str, float] = {}
    for name in task.metrics:
        results |= METRICS[name]().compute(predictions=predictions, references=references)
    return {name + suffix: value for name, value in results.items()}


def majority(task: Task, split: str, references: Sequence[float]) -> dict[str, float]:
    """Scores of always predicting the split's most frequent label (the smallest of several); 0 for correlations.

    Not the training rows' most frequent one, which says nothing where these were drawn with balanced classes.
    """
    counts = Counter(references)
    label = min(counts, key=lambda value: (-counts[value], value))
    return score(task, split, [label] * len(references), references)


def squad_scores(prediction: str, references: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 (0-1) of one answer, each the best over the references."""
    pairs = [(exact_match(prediction, reference), token_f1(prediction, reference)) for reference in references]
    return max(exact for exact, _ in pairs), max(f1 for _, f1 in pairs)


def normalize_answer(text: str) -> str:
    """Lower-case, drop ASCII punctuation, then the articles a, an, the, and squeeze white space: in this order."""
    kept = "".join(character for character in text.lower() if character not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", kept).split())


def exact_match(prediction: str, reference: str) -> float:
    """1.0 if the normalised texts are equal, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(reference))


def token_f1(prediction: str, reference: str) -> float:
    """F1 (0-1) of the bags of normalised words; 0 if they share none, so also if both are empty."""
    predicted, expected = normalize_answer(prediction).split(), normalize_answer(reference).split()
    shared = sum((Counter(predicted) & Counter(expected)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(expected)
    return 2 * precision * recall / (precision + recall)


def _correlation(
    coefficient: Callable[[Any, Any], Any], predictions: Sequence[float], references: Sequence[float]
) -> float:
    """Correlate; 0 where one of the two does not vary (beyond rounding)."""
    if not np.isfinite([*predictions, *references]).all():
        raise ValueError("a prediction or reference is not a finite number")
    if np.ptp(predictions) == 0.0 or np.ptp(references) == 0.0:
        return 0.0
    value = float(coefficient(predictions, references)[0])
    return 0.0 if math.isnan(value) else value
