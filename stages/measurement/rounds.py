"""Measurements in rounds: every model in a fresh process a round, the models taking turns, so that drift hits all."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any, TypeVar

from tqdm.auto import tqdm

from stages.measurement.timing import percentile, spread

Model = TypeVar("Model")
Round = dict[str, Any]


def interleaved(
    models: Sequence[Model],
    rounds: int,
    measure: Callable[[Sequence[Model]], Generator[Round, None, None]],
    name: Callable[[Model], str],
    label: str,
) -> dict[str, list[Round]]:
    """Measure every model once a round, each round beginning with another one; returns a model's rounds by its name.

    `measure` gets the models in the order of all rounds and yields their figures in that order, each when asked for it.
    """
    found: dict[str, list[Round]] = {name(model): [] for model in models}
    order = [models[(number + turn) % len(models)] for number in range(rounds) for turn in range(len(models))]
    with closing(measure(order)) as figures:
        for model in (bar := tqdm(order, desc=label, unit="process")):
            bar.set_postfix_str(name(model))
            found[name(model)].append(next(figures))
    return found


def summarise(rounds: Sequence[Round]) -> dict[str, dict[str, Any]]:
    """Reduce a model's rounds to median, low and high of each figure; latencies by length as p50 and p90 of a round.

    Times in milliseconds, throughput in rows a second.
    """
    figures: dict[str, dict[str, Any]] = {
        key: spread((found[key] for found in rounds), digits)
        for key, digits in (("load_ms", 1), ("cold_start_ms", 2), ("throughput", 2))
    }
    for length in rounds[0]["latency_ms"]:
        for key, share in (("p50", 0.5), ("p90", 0.9)):
            values = (percentile(found["latency_ms"][length], share) for found in rounds)
            figures[f"latency_ms.{length}.{key}"] = spread(values, 3)
    return figures
