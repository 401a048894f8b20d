"""Calls timed by turns in one process, so that a noisy machine disturbs all of them alike."""

import time
from collections.abc import Callable
from statistics import median

import torch


@torch.inference_mode()
def by_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, one call of each a round, after two rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values[2:]) for name, values in seconds.items()}
