"""How two figures compare, in words: the same rules wherever the report judges."""

from math import log
from typing import Literal

from stages.reporting.compressed import ENOUGH_ROUNDS, Measurements

SAME = 0.05  # relative difference of a size or time below which it counts as unchanged
CLOSE = 1.25  # factor within which two ratios count as agreeing
STARK = 1.5  # factor that even few rounds show


def agreement(ours: float, theirs: float) -> str:
    """Say whether our ratio agrees with a published one: both are to 1, which is no change."""
    if _direction(ours) != _direction(theirs):
        return "ours contradicts it"
    if max(ours / theirs, theirs / ours) <= CLOSE:
        return "ours agrees"
    further = abs(log(ours)) > abs(log(theirs))
    return f"ours goes the same way, {'further' if further else 'less far'}"


def _direction(ratio: float) -> int:
    return 0 if abs(ratio - 1) < SAME else 1 if ratio > 1 else -1


def gain(
    found: Measurements, name: str, base: str, figure: Literal["latency", "throughput"] = "latency"
) -> float | None:
    """Return how many times as fast a variant is as another; None where the rounds do not show a difference."""
    if figure == "latency":
        ratio = found.latency(base) / found.latency(name)
    else:
        ratio = float(found.compression[name]["throughput"] / found.compression[base]["throughput"])
    if found.same_speed(name, base, figure) or abs(ratio - 1) < SAME:
        return None
    return ratio if found.rounds >= ENOUGH_ROUNDS or max(ratio, 1 / ratio) >= STARK else None


def size_words(ratio: float) -> str:
    """Say what a file is of another's size."""
    return "the same size" if abs(ratio - 1) < SAME else f"{100 * ratio:.0f} % of the size"


def speed_words(ratio: float | None) -> str:
    """Say how fast something is beside another; `ratio` is None where no difference is shown."""
    return "no difference in speed that the rounds show" if ratio is None else f"{ratio:.1f}x as fast"


def rounds_words(found: Measurements) -> str:
    """Say how many rounds a statement about speed is from."""
    few = "" if found.rounds >= ENOUGH_ROUNDS else f", fewer than {ENOUGH_ROUNDS}: only large differences count"
    return f"{found.rounds} round{'s' if found.rounds != 1 else ''}{few}"
