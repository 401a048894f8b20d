"""The models' scores beside those of another commit or experiment: `make compare REV=longer`.

Both runs score the same dev rows, with the same seeds, so that their difference is known better than either score. Its
interval says whether a change is more than the luck of these rows; another seed's luck it does not cover.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pyarrow.parquet as pq

from stages.core import entry
from stages.core.errors import UserError
from stages.core.params import Params, load_params
from stages.reporting.cells import CELLS, Results, load_results
from stages.reporting.labels import EQUAL, decimals, difference_texts, metric_name, title
from stages.reporting.markdown import aligned
from stages.reporting.paired import shares
from stages.reporting.statistics import Draws, accuracy, bootstrap, quantiles, retention
from stages.reporting.summary import METRICS, TEACHER, chance, own, predictions

SUITES = ("glue", "imdb", "squad")
NOTE = (
    "Retained: (score - chance) / (BERT - chance), averaged over the tasks on which BERT beats chance in both.\n"
    f"Intervals: 95 %, paired bootstrap over the dev rows. {EQUAL}: these rows show no difference.\n"
    "What other seeds of fine-tuning would change, the intervals do not cover."
)


@dataclass(frozen=True)
class Change:
    """A figure at the revision and here, and bootstrap draws of both from the same rows."""

    there: float
    here: float
    drawn_there: Draws
    drawn_here: Draws
    same: bool = False  # whether all predictions are

    def texts(self, digits: int, unit: str = "") -> Sequence[str]:
        """Write both figures, their difference and its interval."""
        both = (f"{figure:.{digits}f}{unit}" for figure in (self.there, self.here))
        return *both, *difference_texts(self.here - self.there, quantiles(self.drawn_here - self.drawn_there), digits)


def main() -> None:
    """Print the models' scores here and at another commit or experiment, with 95 % intervals of the differences."""
    parser = argparse.ArgumentParser(prog="python -m stages.reporting.revisions", description=main.__doc__)
    parser.add_argument("revision", help="a commit, branch, tag or experiment")
    revision = parser.parse_args().revision
    if not revision:
        raise UserError("name a commit or an experiment to compare with: make compare REV=HEAD")
    params = load_params()
    here = load_results(params)
    with tempfile.TemporaryDirectory() as folder:
        fetch(revision, params, Path(folder))
        print(compare(revision, load_there(revision, params, Path(folder)), here))


def fetch(revision: str, params: Params, folder: Path) -> None:
    """Bring the cells that the parameters name and a revision has into `folder`, laid out as in `data/eval`.

    Raises UserError if there is no such revision, or if a cell can be had neither from DVC's cache nor from the remote.
    """
    from dvc.api import DVCFileSystem
    from dvc.scm import RevError

    files = DVCFileSystem(rev=revision)
    try:
        files.repo  # noqa: B018 - opens it
    except RevError as error:
        raise UserError(
            f"{revision}: no commit, branch, tag or experiment of that name; `dvc exp list` lists the experiments"
        ) from error
    for suite in SUITES:
        for task in getattr(params, suite).tasks:
            for cell in (Path(suite, model, task, str(seed)) for model in params.models for seed in params.seeds):
                try:
                    if files.isdir(str(CELLS / cell)):
                        files.get(str(CELLS / cell), str(folder / cell), recursive=True)
                except Exception as error:  # every storage library has exceptions of its own
                    reason = " ".join(str(error).split())
                    raise UserError(
                        f"{CELLS / cell} of {revision}: neither in DVC's cache nor in the remote ({reason}); in a "
                        "checkout of that, `make repro` makes it"
                    ) from error


def load_there(revision: str, params: Params, folder: Path) -> Results:
    """Load what the revision has of the parameters' models, tasks and seeds; UserError if that is nothing."""
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
    try:
        return load_results(params.model_copy(update={"models": models, "seeds": seeds, **sections}), folder)
    except UserError as error:
        what = str(error).partition(";")[0].replace(f"{folder}/", "")
        raise UserError(f"{revision}: was run by another version of this project ({what})") from error


def compare(revision: str, there: Results, here: Results) -> str:
    """Lay out a table for each model that the revision has and whose scores are not all the same.

    What only one side has, and tasks whose dev rows differ, are left out and named. Raises UserError if that is all.
    """
    left_out = _only_here(there, here)
    parts = [f"Not at {revision}: {', '.join(left_out)}."] if left_out else []
    here = replace(
        there,
        cells={key: tuple(cell for cell in here.cells[key] if cell.seed in there.seeds) for key in there.cells},
    )
    tasks = [task for task in there.all_tasks() if _same_rows(there, here, task)]
    if others := [task for task in there.all_tasks() if task not in tasks]:
        parts.append(f"Left out, since the dev rows at {revision} are others: {', '.join(others)}.")
    if not tasks:
        raise UserError(f"{revision}: all its dev rows are others, so that no scores compare")
    changes = {task: _changes(there, here, task) for task in tasks}
    seeds = "1 seed" if len(there.seeds) == 1 else f"medians of {len(there.seeds)} seeds"
    for model in there.models:
        compared = {model, TEACHER} & set(there.models)
        if all(change[name].same for change in changes.values() for name in compared):
            parts.append(f"{title(model)}, {seeds}: the same predictions at {revision} and here")
            continue
        lines = [[task, metric_name(task), *change[model].texts(decimals(task))] for task, change in changes.items()]
        if model != TEACHER and (average := _retained(here, changes, model)):
            lines.append(["average", "retained", *average.texts(1, " %")])
        header = ["Task", "Metric", revision, "here", f"here - {revision}", "its 95 % interval"]
        parts.append(f"{title(model)}, {seeds}\n\n{aligned(header, lines)}")
    return "\n\n".join([*parts, NOTE])


def _only_here(there: Results, here: Results) -> list[str]:
    """Name the models, tasks and seeds that the revision lacks, or has not for all the others."""
    models = [title(model) for model in here.models if model not in there.models]
    tasks = [task for task in here.all_tasks() if task not in there.all_tasks()]
    return [*models, *tasks, *(f"seed {seed}" for seed in here.seeds if seed not in there.seeds)]


def _changes(there: Results, here: Results, task: str) -> dict[str, Change]:
    """Draw all models' scores in both runs from the same rows."""
    read = {model: [predictions(results.cells[task, model]) for results in (there, here)] for model in here.models}
    labels, _ = read[here.models[0]][0]
    made = (predicted for both in read.values() for _, predicted in both)
    draws = iter(bootstrap(METRICS.get(task, accuracy), labels, *made))
    return {
        model: Change(
            there.spread(task, model, own).median,
            here.spread(task, model, own).median,
            next(draws),
            next(draws),
            same=np.array_equal(one, other),
        )
        for model, ((_, one), (_, other)) in read.items()
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


def _same_rows(there: Results, here: Results, task: str) -> bool:
    """Say whether both runs score the same rows, as far as their ids (of SQuAD) or labels tell."""
    column = "id" if here.first(task).suite == "squad" else "label"
    files = (results.first(task).folder / "predictions.parquet" for results in (there, here))
    one, other = (pq.read_table(file, columns=[column])[column] for file in files)
    return bool(one.equals(other))


if __name__ == "__main__":
    entry.run(main)
