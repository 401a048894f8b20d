"""How models, metrics and scores are named and written in every table."""

from collections.abc import Callable, Sequence

from stages.reporting.cells import Cell, Spread
from stages.reporting.markdown import DASH
from stages.reporting.statistics import Interval
from stages.reporting.summary import METRIC_NAMES

EQUAL = "\N{ALMOST EQUAL TO}"
TITLES = {"bert": "BERT", "distilbert": "DistilBERT"}


def title(model: str) -> str:
    """Return a model's name as tables show it."""
    return TITLES.get(model, model)


def metric_name(task: str) -> str:
    """Return the name of a task's headline metric."""
    return METRIC_NAMES.get(task, "accuracy")


def parameters_text(cell: Cell) -> str:
    """Write the millions of parameters, task head included."""
    return f"{cell.model_parameters / 1e6:.1f} M"


def spread_text(spread: Spread, text: Callable[[float], str]) -> str:
    """Write the median, and the range where the seeds differ."""
    if spread.low == spread.high:
        return text(spread.median)
    return f"{text(spread.median)} ({text(spread.low)} to {text(spread.high)})"


def number(value: float, digits: int) -> str:
    """Write a figure with a fixed number of decimals."""
    return f"{value:.{digits}f}"


def decimals(task: str, fraction: int = 4) -> int:
    """Return how many decimals a task's score has: two of SQuAD's 0-100, `fraction` of the others' fractions."""
    return 2 if task == "SQuAD" else fraction


def difference_texts(value: float, interval: Interval, digits: int) -> tuple[str, str]:
    """Write a difference, marked where its interval holds 0, and the interval."""
    low, high = (f"{bound:+z.{digits}f}" for bound in (interval.low, interval.high))
    return f"{value:+z.{digits}f}{EQUAL if interval.holds(0.0) else ''}", f"{low} to {high}"


def percent(value: float | None) -> str:
    """Write a share as a percentage; a dash where there is none."""
    return DASH if value is None else f"{100 * value:.1f} %"


def percent_range(low: float, high: float) -> str:
    """Write an interval of shares in whole percents."""
    return f"{100 * low:z.0f} to {100 * high:z.0f} %"


def times(larger: float, smaller: float) -> str:
    """Write how many times as large one figure is as another."""
    return f"{larger / smaller:.1f}x"


def listed(names: Sequence[str], last: str = "and") -> str:
    """Join names as a sentence does."""
    return f" {last} ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
