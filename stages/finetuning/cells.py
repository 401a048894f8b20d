"""A cell of the evaluation grids: one model, one task, one seed; its parameters, data and results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from stages.core.artifacts import atomic_path, read_json, readable_parquet, write_json
from stages.core.errors import UserError
from stages.core.params import Overrides, Params, Recipe

Suite = Literal["glue", "imdb", "squad"]
EVALUATIONS = Path("data/eval")


@dataclass(frozen=True)
class Cell:
    """What one fine-tuning is made from."""

    suite: Suite
    model: str
    task: str
    seed: int
    params: Params

    @property
    def name(self) -> str:
        """Short name for the progress display and for errors."""
        return f"{self.task} {self.model} seed {self.seed}"

    @property
    def checkpoint(self) -> Path:
        """Folder of the model to fine-tune."""
        return Path(self.params.models[self.model])

    @property
    def overrides(self) -> Overrides:
        """The task's own entry in the parameters."""
        entry: Overrides = getattr(self.params, self.suite).tasks[self.task]
        return entry

    @property
    def recipe(self) -> Recipe:
        """The global recipe with the task's settings in place of the global ones."""
        return self.overrides.applied_to(self.params.finetune)


def read_rows(data: Path, split: str) -> list[dict[str, Any]]:
    """Rows of a split of the data set in folder `data`; UserError if the file is missing, damaged or has no rows."""
    path = data / f"{split}.parquet"
    with readable_parquet(path):
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    if not rows:
        raise UserError(f"{path}: no rows; raise the row limits in params.yaml's `download`")
    return rows


def read_origin(data: Path) -> dict[str, str]:
    """Read where the data set in folder `data` is from and how it was cut; UserError if that is not on disk."""
    description = read_json(data / "dataset.json")
    return {"source": description["source"], "note": description["note"]}


def write_results(cell: Cell, predictions: pa.Table, seconds: dict[str, float], **results: Any) -> None:
    """Write predictions.parquet and result.json, the same for identical runs, and apart from them the timings."""
    result = {
        "model": cell.model,
        "task": cell.task,
        "seed": cell.seed,
        **results,
        "recipe": {**cell.overrides.model_dump(exclude_none=True), **cell.recipe.model_dump()},
    }
    place = Path(cell.suite, cell.model, cell.task, str(cell.seed))
    with atomic_path(EVALUATIONS / place / "predictions.parquet") as temporary:
        pq.write_table(predictions, temporary)
    write_json(EVALUATIONS / "seconds" / place.with_suffix(".json"), seconds)
    write_json(EVALUATIONS / place / "result.json", result)


def timings(train_seconds: float, train_tokens: int, eval_seconds: float) -> dict[str, float]:
    """Name a cell's timings: wall seconds, and training tokens a second without padding."""
    return {
        "train_seconds": round(train_seconds, 3),
        "eval_seconds": round(eval_seconds, 3),
        "train_tokens_per_second": round(train_tokens / train_seconds, 1),
    }
