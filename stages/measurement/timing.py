"""Arithmetic of timings: repeated runs on a clock, percentiles, and medians with their spread over rounds."""

import time
from collections.abc import Callable, Iterable, Sequence
from statistics import median

Clock = Callable[[], int]
NANOSECONDS = 1_000_000_000


def timed(run: Callable[[], object], clock: Clock = time.perf_counter_ns) -> float:
    """Seconds that a call takes."""
    start = clock()
    run()
    return (clock() - start) / NANOSECONDS


def repeated(run: Callable[[], object], warmup: int, repeats: int, clock: Clock = time.perf_counter_ns) -> list[float]:
    """Seconds of each of `repeats` calls, after `warmup` calls that do not count."""
    for _ in range(warmup):
        run()
    return [timed(run, clock) for _ in range(repeats)]


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile: the smallest value that at least a share (0, 1] of the values do not exceed."""
    if not values or not 0.0 < share <= 1.0:
        raise ValueError("a percentile needs values and a share above 0 and at most 1")
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def spread(values: Iterable[float], digits: int) -> dict[str, float]:
    """Return median, lowest and highest of the rounds' values, rounded."""
    found = list(values)
    return {
        "median": round(median(found), digits),
        "low": round(min(found), digits),
        "high": round(max(found), digits),
    }
