"""Figures of the report about learning: the losses of distillation, and every task's scores."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from stages.core.errors import UserError
from stages.drawing import INK, saved
from stages.reporting.cells import Results
from stages.reporting.labels import title
from stages.reporting.summary import Standings, own

LOSSES = {"mlm_loss": "masked language modelling", "distill_loss": "KL from the teacher", "cosine_loss": "cosine"}
GROUP = 0.8  # height of a task's bars, of 1
PERCENT = 100.0


def losses(curves: Path, paths: Sequence[Path]) -> None:
    """Draw the three losses of distillation over its updates, in training and on held-out text."""
    with saved(paths, (8.0, 2.9), "constrained") as figure:
        for axes, (name, label) in zip(figure.subplots(1, len(LOSSES)), LOSSES.items(), strict=True):
            for split, style in (("train", {"alpha": 0.5}), ("held_out", {"marker": "o", "markersize": 4})):
                curve = _curve(curves, split, name)
                axes.plot(curve["step"], curve[name], color="C0", label=split.replace("_", "-"), **style)
            axes.set_title(label, fontsize=10)
            axes.set(xlabel="update", ylim=(0, None))
        axes.legend(fontsize=9)


def _curve(curves: Path, split: str, name: str) -> pd.DataFrame:
    """Read a curve that the stage logged; a run without training logged none of it while training."""
    path = curves / "plots/metrics" / split / f"{name}.tsv"
    if not path.is_file():
        if split == "train":
            return pd.DataFrame({"step": [], name: []})
        raise UserError(f"{path}: not found; `dvc repro distill` makes it")
    return pd.read_csv(path, sep="\t")


def tasks(results: Results, standings: Standings, paths: Sequence[Path]) -> None:
    """Draw every model's score by task: bars to the median, dots for seeds, a line for the 95 % interval."""
    names = results.all_tasks()
    if not names:
        with saved(paths, (8.0, 1.0), "none") as figure:
            figure.text(0.5, 0.5, "No task was evaluated", ha="center", va="center")
        return
    height = 1.0 + 0.22 * len(names) * (len(results.models) + 0.6)
    with saved(paths, (8.0, height), "constrained") as figure:
        axes = figure.subplots()
        for place, task in enumerate(names):
            for number, model in enumerate(results.models):
                y = place - GROUP / 2 + (number + 0.5) * GROUP / len(results.models)
                _bar(axes, y, f"C{number}", task, model, results, standings)
            chance = _fraction(task, standings[task, results.models[0]].chance)
            axes.plot([chance, chance], [place - GROUP / 2, place + GROUP / 2], color=INK, linestyle=":", linewidth=1.5)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set(xlabel="score (SQuAD: F1 / 100)", xlim=(min(0.0, axes.get_xlim()[0]), 1.0))
        handles = [Line2D([], [], color=f"C{n}", linewidth=6, label=title(m)) for n, m in enumerate(results.models)]
        handles.append(Line2D([], [], color=INK, linestyle=":", label="chance"))
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=9)


def _bar(axes: Axes, y: float, colour: str, task: str, model: str, results: Results, standings: Standings) -> None:
    standing = standings[task, model]
    score, low, high = (
        _fraction(task, value) for value in (standing.score.median, standing.interval.low, standing.interval.high)
    )
    height = 0.9 * GROUP / len(results.models)
    axes.barh(y, score, height, color=colour, alpha=0.85)
    axes.plot([low, high], [y, y], color=INK, linewidth=1.2)
    if len(results.seeds) > 1:
        seeds = [_fraction(task, own(cell)) for cell in results.cells[task, model]]
        axes.scatter(seeds, [y] * len(seeds), s=9, color=INK, zorder=3)


def _fraction(task: str, score: float) -> float:
    return score / PERCENT if task == "SQuAD" else score
