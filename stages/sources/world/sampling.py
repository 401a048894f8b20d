"""Drawing the rows of a split: balanced, without repetition, and apart from the other split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from stages.core.errors import UserError

Row = dict[str, Any]
_MAX_TRIES = 1000


@dataclass(frozen=True)
class Draft:
    """A row, and whether the combination it is built on is kept for evaluation."""

    row: Row
    held_out: bool


Maker = Callable[[Random, int], Draft]


def draw_rows(maker: Maker, labels: Sequence[int], count: int, stream: str, held_out: bool) -> list[Row]:
    """Draw distinct rows of one side of the split; labels come in the given proportions.

    `stream` seeds the draw. A longer draw begins with the rows of a shorter one.
    Raises UserError if the world has too few rows to give.
    """
    rng = Random(stream)
    rows: list[Row] = []
    seen: set[str] = set()
    while len(rows) < count:
        for label in rng.sample(labels, len(labels)):
            rows.append(_draw_new(maker, label, rng, held_out, seen, stream))
    return rows[:count]


def _draw_new(maker: Maker, label: int, rng: Random, held_out: bool, seen: set[str], stream: str) -> Row:
    for _ in range(_MAX_TRIES):
        draft = maker(rng, label)
        key = repr(draft.row)
        if draft.held_out == held_out and key not in seen:
            seen.add(key)
            return draft.row
    raise UserError(
        f"{stream}: the generated world has no more than {len(seen):,} rows with a new one of label {label}; "
        "lower train_rows or dev_rows in download.embedded"
    )
