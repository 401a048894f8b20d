"""The evaluation cells that the parameters name, read from disk and checked."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from stages.core.artifacts import read_json
from stages.core.errors import UserError
from stages.core.params import Params

Suite = Literal["glue", "imdb", "squad"]
Scores = dict[str, float]
CELLS = Path("data/eval")
TASK_ORDER = ("CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI", "IMDb", "SQuAD")


@dataclass(frozen=True)
class Cell:
    """One model fine-tuned on one task with one seed: its scores and what they were measured on."""

    suite: Suite
    model: str
    task: str
    seed: int
    folder: Path
    scores: Scores
    majority: Scores
    train_rows: int
    dev_rows: int
    source: str
    note: str
    model_parameters: int


@dataclass(frozen=True)
class Spread:
    """A score over the seeds: the median, the lowest and the highest."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Results:
    """All cells of a run; `cells` maps (task, model) to one cell a seed, in the order of `seeds`.

    `teacher` is what the teacher was made from, `note` of a cell what its data lacks of the official data set.
    """

    profile: str
    teacher: str
    seeds: tuple[int, ...]
    models: tuple[str, ...]
    tasks: dict[Suite, tuple[str, ...]]
    cells: dict[tuple[str, str], tuple[Cell, ...]]

    def all_tasks(self) -> tuple[str, ...]:
        """List every task that was run, GLUE first."""
        return tuple(task for tasks in self.tasks.values() for task in tasks)

    def spread(self, task: str, model: str, score: Callable[[Cell], float]) -> Spread:
        """Collect a score of one model and task over the seeds."""
        values = [score(cell) for cell in self.cells[task, model]]
        return Spread(median(values), min(values), max(values))

    def first(self, task: str) -> Cell:
        """Return any cell of a task: rows, data and majority baseline are the same for all of them."""
        return self.cells[task, self.models[0]][0]


def load_results(params: Params, root: Path = CELLS) -> Results:
    """Read exactly the cells that seeds, models and task lists name, whatever else lies on disk.

    Raises UserError for a cell that is missing or incomplete, with the command that makes it.
    """
    # A row without models has no cells; its tasks would have nothing to be read from.
    tasks: dict[Suite, tuple[str, ...]] = {
        "glue": _ordered(params.glue.tasks if params.models else {}),
        "imdb": _ordered(params.imdb.tasks if params.models else {}),
        "squad": _ordered(params.squad.tasks if params.models else {}),
    }
    cells = {
        (task, model): tuple(read_cell(root, suite, model, task, seed) for seed in params.seeds)
        for suite, names in tasks.items()
        for task in names
        for model in params.models
    }
    return Results(params.profile, params.teacher.init, tuple(params.seeds), tuple(params.models), tasks, cells)


def read_cell(root: Path, suite: Suite, model: str, task: str, seed: int) -> Cell:
    """Read one cell's result.json; UserError if it is missing or lacks a key."""
    folder = root / suite / model / task / str(seed)
    path = folder / "result.json"
    remedy = f"`dvc repro {suite}-eval@{model}-{task}-{seed}` makes it"
    if not path.exists():
        raise UserError(f"{path}: not found; {remedy}")
    values: Any = read_json(path)
    try:
        data = values["data"]
        return Cell(
            suite=suite,
            model=model,
            task=task,
            seed=seed,
            folder=folder,
            scores=values["scores"],
            majority=values["majority"],
            train_rows=values["train_rows"],
            dev_rows=values["dev_rows"],
            source=data["source"],
            note=data["note"],
            model_parameters=values["model_parameters"],
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: incomplete, {error} is missing; delete it and run: {remedy}") from error


def _ordered(tasks: Any) -> tuple[str, ...]:
    return tuple(sorted(tasks, key=TASK_ORDER.index))
