"""What the cells amount to: the metric files' rows, and how much of the teacher's scores a student retains."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pyarrow.parquet as pq

from stages.finetuning.tasks import headline, headline_paper
from stages.reporting.cells import Cell, Results, Spread
from stages.reporting.statistics import Interval, fisher, matthews_bootstrap, retention, wilson

TEACHER = "bert"
GLUE_TASKS = ("CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI")
METRIC_NAMES = {"CoLA": "Matthews", "STS-B": "Pearson", "SQuAD": "F1"}  # accuracy otherwise


@dataclass(frozen=True)
class Standing:
    """A model's score on a task, over the seeds, with its 95 % interval over the dev rows."""

    score: Spread
    interval: Interval
    chance: float

    @property
    def beats_chance(self) -> bool:
        """Say whether the interval lies above the score of always answering the majority class."""
        return self.interval.low > self.chance


Standings = Mapping[tuple[str, str], Standing]  # by task and model


@dataclass(frozen=True)
class Retained:
    """What a model keeps of the teacher's score on a task."""

    corrected: float
    ratio: float


def own(cell: Cell) -> float:
    """Return the task's headline score in the reproduction's convention; SQuAD's F1."""
    return cell.scores["f1"] if cell.suite == "squad" else headline(cell.task, cell.scores)


def paper(cell: Cell) -> float:
    """Return a GLUE task's score in the paper's convention, x100."""
    return headline_paper(cell.task, cell.scores)


def named(key: str) -> Callable[[Cell], float]:
    """Make a reader of one score by its name."""
    return lambda cell: cell.scores[key]


def glue_metrics(results: Results, model: str, score: Callable[[Cell], float], digits: int) -> dict[str, float]:
    """Take the medians over the seeds by task, and their mean where all nine tasks were run."""
    medians = {task: results.spread(task, model, score).median for task in results.tasks["glue"]}
    row = {task: round(value, digits) for task, value in medians.items()}
    if set(medians) == set(GLUE_TASKS):
        row["average"] = round(fmean(medians.values()), digits)
    return row


def single_metrics(results: Results, suite: str, model: str) -> dict[str, float]:
    """Return the metric row of IMDb (accuracy, a fraction) or SQuAD (0-100); empty if it was not run."""
    keys, digits = (("accuracy",), 4) if suite == "imdb" else (("exact_match", "f1"), 2)
    tasks = results.tasks["imdb" if suite == "imdb" else "squad"]
    return {key: round(results.spread(task, model, named(key)).median, digits) for task in tasks for key in keys}


def chance(cell: Cell) -> float:
    """Return the score without any skill: the majority class's accuracy; 0 for correlations and SQuAD."""
    return 0.0 if cell.suite == "squad" else headline(cell.task, cell.majority)


def standing(results: Results, task: str, model: str) -> Standing:
    """Set a model's score on a task beside what chance gives."""
    score, cells = results.spread(task, model, own), results.cells[task, model]
    return Standing(score, _interval(cells, score.median), chance(cells[0]))


def _interval(cells: tuple[Cell, ...], score: float) -> Interval:
    task, rows = cells[0].task, cells[0].dev_rows
    if task == "CoLA":
        tables = [pq.read_table(cell.folder / "predictions.parquet", columns=["label", "prediction"]) for cell in cells]
        predictions = np.array([table["prediction"].to_numpy() for table in tables], dtype=np.int64)
        return matthews_bootstrap(tables[0]["label"].to_numpy().astype(np.int64), predictions)
    if task == "STS-B":
        return fisher(score, rows)
    if task == "SQuAD":
        fraction = wilson(score / 100, rows)
        return Interval(100 * fraction.low, 100 * fraction.high)
    return wilson(score, rows)


def retained(student: Standing, teacher: Standing) -> Retained | None:
    """Compute what a student keeps; None where the teacher does not beat chance, which leaves nothing to keep."""
    if not teacher.beats_chance:
        return None
    score, reference = student.score.median, teacher.score.median
    return Retained(retention(score, reference, teacher.chance), score / reference)


def mean_retained(values: list[Retained | None]) -> Retained | None:
    """Average over the tasks on which the teacher beats chance; None if there is none."""
    kept = [value for value in values if value is not None]
    if not kept:
        return None
    return Retained(fmean(value.corrected for value in kept), fmean(value.ratio for value in kept))
