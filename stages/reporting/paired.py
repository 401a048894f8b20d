"""A model beside the teacher on the same dev rows: what their scores differ by, and whether the rows can tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.reporting.cells import Results
from stages.reporting.statistics import Draws, Interval, accuracy, bootstrap, quantiles, retention
from stages.reporting.summary import METRICS, TEACHER, Standings, predictions


@dataclass(frozen=True)
class Pair:
    """A model's score minus the teacher's, its 95 % interval, and draws of the share of the teacher's margin.

    `shares` is None where the teacher does not beat chance.
    """

    difference: float
    interval: Interval
    shares: Draws | None

    @property
    def told_apart(self) -> bool:
        """Say whether the dev rows show a difference."""
        return not self.interval.holds(0.0)

    @property
    def share(self) -> Interval | None:
        """The 95 % interval of the share that is kept."""
        return None if self.shares is None else quantiles(self.shares)


Pairs = Mapping[tuple[str, str], Pair]  # by task and model


def compare(results: Results, standings: Standings) -> dict[tuple[str, str], Pair]:
    """Set every model beside the teacher on every task; nothing where the teacher is no row."""
    if TEACHER not in results.models:
        return {}
    others = [model for model in results.models if model != TEACHER]
    return {(task, model): _pair(results, standings, task, model) for task in results.all_tasks() for model in others}


def _pair(results: Results, standings: Standings, task: str, model: str) -> Pair:
    labels, student = predictions(results.cells[task, model])
    _, teacher = predictions(results.cells[task, TEACHER])
    ours, theirs = bootstrap(METRICS.get(task, accuracy), labels, student, teacher)
    above = standings[task, TEACHER]
    difference = standings[task, model].score.median - above.score.median
    kept = shares(ours, theirs, above.chance) if above.beats_chance else None
    return Pair(difference, quantiles(ours - theirs), kept)


def shares(ours: Draws, theirs: Draws, chance: float) -> Draws:
    """Compute what is kept in each draw; a draw in which the teacher has no margin says nothing and is left out."""
    margin = theirs > chance
    # such draws are rare; put at the others' median they leave the quantiles, and the draws' number, as they are
    shares = np.full(len(ours), np.nan)
    shares[margin] = [retention(a, b, chance) for a, b in zip(ours[margin], theirs[margin], strict=True)]
    return np.where(np.isnan(shares), np.nanmedian(shares), shares)


def mean_share(pairs: Sequence[Pair]) -> Interval | None:
    """Return the 95 % interval of the average of the shares, the tasks' rows drawn independently."""
    shares = [pair.shares for pair in pairs if pair.shares is not None]
    return quantiles(np.mean(shares, axis=0)) if shares else None
