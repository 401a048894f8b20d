"""The models' scores beside those of another commit or experiment: `make compare REV=longer`.

Both runs score the same dev rows, with the same seeds, so that their difference is known better than either score. Its
interval says whether a change did anything, or these rows were lucky.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import pyarrow.parquet as pq

from stages.core import entry
from stages.core.errors import UserError
from stages.core.params import Params, load_params
from stages.reporting.cells import CELLS, Results, load_results
from stages.reporting.labels import EQUAL, metric_name, title
from stages.reporting.markdown import aligned
from stages.reporting.paired import shares
from stages.reporting.statistics import Draws, accuracy, bootstrap, quantiles, retention
from stages.reporting.summary import METRICS, TEACHER, chance, own, predictions

SUITES = ("glue", "imdb", "squad")
NOTE = (
    "Retained: (score - chance) / (BERT - chance), averaged over the tasks on which BERT beats chance in both.\n"
    f"Intervals: 95 %, paired bootstrap over the dev rows. {EQUAL}: the rows show no difference."
)


@dataclass(frozen=True)
class Change:
    """A figure at the revision and here, and bootstrap draws of both from the same rows."""

    there: float
    here: float
    drawn_there: Draws
    drawn_here: Draws

    def texts(self, digits: int, unit: str = "") -> Sequence[str]:
        """Write both figures, their difference and its interval."""
        interval = quantiles(self.drawn_here - self.drawn_there)
        low, high = (f"{bound:+z.{digits}f}" for bound in (interval.low, interval.high))
        mark = EQUAL if interval.holds(0.0) else ""
        both = (f"{figure:.{digits}f}{unit}" for figure in (self.there, self.here))
        return *both, f"{self.here - self.there:+z.{digits}f}{mark}", f"{low} to {high}"


def main() -> None:
    """Print the models' scores here and at another commit or experiment, with 95 % intervals of the differences."""
    parser = argparse.ArgumentParser(prog="python -m stages.reporting.revisions", description=main.__doc__)
    parser.add_argument("revision", help="a commit, branch, tag or experiment")
    revision = parser.parse_args().revision
    if not revision:
        raise UserError("name a commit or an experiment to compare with: make compare REV=HEAD")
    params = load_params()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fetch(revision, params, folder)
        shared = in_common(params, folder, revision)
        print(compare(revision, load_results(shared, folder), load_results(shared, CELLS)))


def fetch(revision: str, params: Params, folder: Path) -> None:
    """Bring the cells that the parameters name and a revision has into `folder`, laid out as in `data/eval`.

    Raises UserError if there is no such revision, or if a cell is neither in DVC's cache nor in the remote.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError
    from dvc_data.index import DataIndexError

    cells = [
        Path(suite, model, task, str(seed))
        for suite in SUITES
        for model in params.models
        for task in getattr(params, suite).tasks
        for seed in params.seeds
    ]
    files = DVCFileSystem(rev=revision)
    try:
        files.repo  # noqa: B018 - opens it
    except SCMError as error:
        raise UserError(
            f"{revision}: no commit, branch, tag or experiment of that name; `dvc exp list` lists the experiments"
        ) from error
    for cell in cells:
        try:
            if files.isdir(str(CELLS / cell)):
                files.get(str(CELLS / cell), str(folder / cell), recursive=True)
        except (DvcException, DataIndexError, FileNotFoundError) as error:
            raise UserError(
                f"{CELLS / cell} of {revision}: neither in DVC's cache nor in the remote; `make repro` makes it in a "
                "checkout of that"
            ) from error


def in_common(params: Params, folder: Path, revision: str) -> Params:
    """Cut models, tasks and seeds of the parameters to those with a cell in `folder`; UserError if nothing is left."""
    there = {cell.relative_to(folder).parts for cell in folder.glob("*/*/*/*")}
    models = {name: path for name, path in params.models.items() if any(name == parts[1] for parts in there)}
    sections = {}
    for suite in SUITES:
        section = getattr(params, suite)
        tasks = {t: s for t, s in section.tasks.items() if {(suite, m, t) for m in models} <= {p[:3] for p in there}}
        sections[suite] = section.model_copy(update={"tasks": tasks})
    cells = [(suite, model, task) for suite, section in sections.items() for task in section.tasks for model in models]
    seeds = [seed for seed in params.seeds if all((*cell, str(seed)) in there for cell in cells)]
    if not cells or not seeds:
        raise UserError(f"{revision}: has no model, task and seed in common with params.yaml")
    return params.model_copy(update={"models": models, "seeds": seeds, **sections})


def compare(revision: str, there: Results, here: Results) -> str:
    """Lay out a table a model whose predictions are not all the same in both.

    Raises UserError if the two runs do not score the same rows.
    """
    for task in here.all_tasks():
        if not _same_rows(there, here, task):
            raise UserError(f"{revision}: {task} has other dev rows there, so that its scores do not compare")
    changes = {task: _changes(there, here, task) for task in here.all_tasks()}
    seeds = "1 seed" if len(here.seeds) == 1 else f"medians of {len(here.seeds)} seeds"
    parts = []
    for model in here.models:
        caption = f"{title(model)}, {seeds}"
        if all(_same_predictions(there, here, task, model) for task in changes):
            parts.append(f"{caption}: the same predictions at {revision} and here")
            continue
        lines = [
            [task, metric_name(task), *change[model].texts(2 if task == "SQuAD" else 4)]
            for task, change in changes.items()
        ]
        if model != TEACHER and (average := _retained(here, changes, model)):
            lines.append(["average", "retained", *average.texts(1, " %")])
        header = ["Task", "Metric", revision, "here", "difference", "its 95 % interval"]
        parts.append(f"{caption}\n\n{aligned(header, lines)}")
    return "\n\n".join([*parts, NOTE])


def _changes(there: Results, here: Results, task: str) -> dict[str, Change]:
    """Draw all models' scores in both runs from the same rows."""
    cells = [results.cells[task, model] for model in here.models for results in (there, here)]
    labels, _ = predictions(cells[0])
    draws = iter(bootstrap(METRICS.get(task, accuracy), labels, *(predictions(one)[1] for one in cells)))
    return {
        model: Change(
            there.spread(task, model, own).median, here.spread(task, model, own).median, next(draws), next(draws)
        )
        for model in here.models
    }


def _retained(here: Results, changes: Mapping[str, Mapping[str, Change]], model: str) -> Change | None:
    """Average what a model keeps of the teacher's margin over chance, in percent; None where there is no margin."""
    kept = []
    for task, change in changes.items():
        student, teacher, base = change[model], change.get(TEACHER), chance(here.first(task))
        if teacher is None or min(quantiles(d).low for d in (teacher.drawn_there, teacher.drawn_here)) <= base:
            continue
        kept.append(
            Change(
                retention(student.there, teacher.there, base),
                retention(student.here, teacher.here, base),
                shares(student.drawn_there, teacher.drawn_there, base),
                shares(student.drawn_here, teacher.drawn_here, base),
            )
        )
    if not kept:
        return None
    return Change(
        100 * fmean(one.there for one in kept),
        100 * fmean(one.here for one in kept),
        100 * np.mean([one.drawn_there for one in kept], axis=0),
        100 * np.mean([one.drawn_here for one in kept], axis=0),
    )


def _same_predictions(there: Results, here: Results, task: str, model: str) -> bool:
    one, other = (predictions(results.cells[task, model])[1] for results in (there, here))
    return np.array_equal(one, other)


def _same_rows(there: Results, here: Results, task: str) -> bool:
    """Say whether both runs score the same rows, as far as their ids (of SQuAD) or labels tell."""
    one, other = (pq.read_table(results.first(task).folder / "predictions.parquet") for results in (there, here))
    column = "id" if "id" in one.column_names else "label"
    return column in other.column_names and bool(one[column].equals(other[column]))


if __name__ == "__main__":
    entry.run(main)
