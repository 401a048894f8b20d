"""The figures of the exported models: the student, the pruned student, and the models of both for tasks."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stages.core.artifacts import read_json

STUDENT = "student"
MODELS = {"baseline": "distilbert", "pruned": "pruned"}  # folders in models/ by the names of variants

Row = Mapping[str, Any]


class Exported(NamedTuple):
    """An exported model: its task or `student`, the variant that it comes from, and whether it is the INT8 one."""

    task: str
    checkpoint: str
    int8: bool

    @property
    def variant(self) -> str:
        """Name of the variant, such as `pruned_int8`."""
        return self.checkpoint + "_int8" * self.int8

    def __str__(self) -> str:
        """Name it as tables do, such as `SST-2, pruned, INT8`."""
        return self.task + ", pruned" * (self.checkpoint == "pruned") + ", INT8" * self.int8


def load_exported(students: Path, cells: Path, tasks: Collection[str]) -> dict[Exported, Row]:
    """Read the metrics of `onnx-export` and, for these tasks, the cells of `onnx-eval`; the students come first.

    Raises UserError if a file is missing or damaged.
    """
    found: dict[Exported, Row] = {}
    for checkpoint, model in MODELS.items():
        for int8 in (False, True):
            student = Exported(STUDENT, checkpoint, int8)
            found[student] = read_json(students / f"distilbert_{student.variant}.json")
        for task in tasks:
            cell = read_json(cells / task / f"{model}.json")
            found |= {Exported(task, checkpoint, int8): cell["int8" if int8 else "fp32"] for int8 in (False, True)}
    return dict(sorted(found.items(), key=lambda item: (item[0].task != STUDENT, item[0])))


def task_rows(found: Mapping[Exported, Row]) -> dict[str, dict[str, Row]]:
    """Return the figures of the tasks' models by variant and task."""
    rows: dict[str, dict[str, Row]] = {model.variant: {} for model in found}
    for model, row in found.items():
        if model.task != STUDENT:
            rows[model.variant][model.task] = row
    return rows
