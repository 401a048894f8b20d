"""What the cells amount to: the metric files' rows, and how much of the teacher's scores a student retains."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.finetuning.tasks import headline, headline_paper
from stages.reporting.cells import Cell, Results, Spread
from stages.reporting.statistics import (
    Interval,
    Metric,
    accuracy,
    bootstrap,
    matthews,
    mean,
    pearson,
    quantiles,
    retention,
    wilson,
)

TEACHER = "bert"
INCOMPLETE = "the repository holds"  # begins what `download` notes of a data set smaller than the official one
PUBLISHED_PARAMETERS = Interval(105e6, 115e6)  # of the published scores' teacher: 110 million, and a task's head
GLUE_TASKS = ("CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI")
METRIC_NAMES = {"CoLA": "Matthews", "STS-B": "Pearson", "SQuAD": "F1"}  # accuracy otherwise
METRICS: Mapping[str, Metric] = {"CoLA": matthews, "STS-B": pearson, "SQuAD": mean}  # the same


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


def unlike_published(results: Results) -> list[str]:
    """Say what sets these runs apart from those that published scores are of: the teacher's size, the data."""
    found, tasks = [], results.all_tasks()
    if tasks and TEACHER in results.models:
        size = results.cells[tasks[0], TEACHER][0].model_parameters
        if not PUBLISHED_PARAMETERS.holds(size):
            found.append(f"a teacher of {size / 1e6:.1f} million parameters instead of 110 million")
    other = [task for task in tasks if results.first(task).source != "hub" or INCOMPLETE in results.first(task).note]
    return found + ([f"other or fewer data ({', '.join(other)})"] if other else [])


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
    (draws,) = bootstrap(METRICS.get(task, accuracy), *predictions(cells))
    interval, scale = quantiles(draws), 100.0 if task == "SQuAD" else 1.0
    if score.median in (0.0, scale) and METRICS.get(task, mean) is mean:
        interval = wilson(score.median / scale, cells[0].dev_rows)
        interval = Interval(scale * interval.low, scale * interval.high)
    return Standing(score, interval, chance(cells[0]))


def predictions(cells: Sequence[Cell]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read labels [rows] and predictions [seeds, rows] of the dev split; for SQuAD every row's F1, and no labels."""
    tables = [pq.read_table(cell.folder / "predictions.parquet") for cell in cells]
    if cells[0].suite == "squad":
        scores = np.array([table["f1"].to_numpy() for table in tables], dtype=np.float64)
        return np.zeros(scores.shape[1]), scores
    if "split" in tables[0].column_names:
        tables = [table.filter(pc.equal(table["split"], "dev")) for table in tables]
    predicted = np.array([table["prediction"].to_numpy() for table in tables], dtype=np.float64)
    return tables[0]["label"].to_numpy().astype(np.float64), predicted


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
