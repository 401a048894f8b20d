"""How models, metrics and scores are named and written in every table."""

from collections.abc import Callable

from stages.reporting.cells import Cell, Spread
from stages.reporting.markdown import DASH
from stages.reporting.summary import METRIC_NAMES

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


def percent(value: float | None) -> str:
    """Write a share as a percentage; a dash where there is none."""
    return DASH if value is None else f"{100 * value:.1f} %"
