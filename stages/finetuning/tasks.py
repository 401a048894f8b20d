"""The classification and regression tasks: their columns, labels, dev splits, metrics and headline scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

MISMATCHED = "_mismatched"  # ends the names of MNLI's second dev split and of the scores on it


@dataclass(frozen=True)
class Task:
    """One task: `text` names the column of the sentence or of the pair, `labels` is 1 for a regression."""

    name: str
    text: tuple[str, ...]
    labels: int
    metrics: tuple[str, ...] = ("accuracy",)
    dev_splits: tuple[str, ...] = ("dev",)

    @property
    def regression(self) -> bool:
        """Whether the label is a number to be predicted rather than a class."""
        return self.labels == 1


_PAIR = ("sentence1", "sentence2")

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task("CoLA", ("sentence",), 2, ("matthews", "accuracy")),
        Task("MNLI", ("premise", "hypothesis"), 3, dev_splits=("dev", "dev" + MISMATCHED)),
        Task("MRPC", _PAIR, 2, ("accuracy", "f1")),
        Task("QNLI", ("question", "sentence"), 2),
        Task("QQP", ("question1", "question2"), 2, ("accuracy", "f1")),
        Task("RTE", _PAIR, 2),
        Task("SST-2", ("sentence",), 2),
        Task("STS-B", _PAIR, 1, ("pearson", "spearman")),
        Task("WNLI", _PAIR, 2),
        Task("IMDb", ("text",), 2),
    )
}


def headline(task: str, scores: Mapping[str, float]) -> float:
    """Pick the score that tables show: Matthews for CoLA, Pearson for STS-B, (matched) accuracy otherwise; not x100."""
    return scores[{"CoLA": "matthews", "STS-B": "pearson"}.get(task, "accuracy")]


def headline_paper(task: str, scores: Mapping[str, float]) -> float:
    """Compute the score of the GLUE paper's convention (Wang et al. 2018, section 5), x100.

    MRPC and QQP: mean of accuracy and F1; STS-B: mean of Pearson and Spearman; otherwise as `headline`.
    """
    if task in ("MRPC", "QQP"):
        return 100.0 * fmean((scores["accuracy"], scores["f1"]))
    if task == "STS-B":
        return 100.0 * fmean((scores["pearson"], scores["spearman"]))
    return 100.0 * headline(task, scores)
