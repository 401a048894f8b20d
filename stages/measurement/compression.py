"""The row of the compression table that a variant gets: its size, what it holds, its memory and its times."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.core.params import SpeedBench
from stages.measurement import processes
from stages.measurement.processes import Request
from stages.measurement.rounds import Round, summarise
from stages.measurement.variants import Variant

FEWEST_BATCHES = 3  # of which the median gives the throughput


def timing_request(variant: Variant, vocabulary: int, settings: SpeedBench) -> Request:
    """Return what to ask a process for that times a variant."""
    batches = max(FEWEST_BATCHES, settings.repeats // 4)
    return _request(variant, vocabulary, settings, {"figure": "times", "batches": batches})


def peak_memory(variant: Variant, vocabulary: int, settings: SpeedBench) -> float:
    """Return a variant's peak memory in MiB, of loading it and of single rows, in a fresh process."""
    found: float = processes.measure(*_request(variant, vocabulary, settings, {"figure": "memory"}))["peak_memory_mb"]
    return round(found, 1)


def _request(variant: Variant, vocabulary: int, settings: SpeedBench, what: Mapping[str, Any]) -> Request:
    specification: dict[str, Any] = {
        "kind": variant.runtime,
        "path": str(variant.path),
        "vocabulary": vocabulary,
        **settings.model_dump(exclude={"rounds", "stsb_samples", "stsb_warmup"}),
        **what,
    }
    return specification, variant.name


def row(facts: Mapping[str, Any], rounds: Sequence[Round], settings: SpeedBench) -> dict[str, Any]:
    """Join what does not vary (size, memory, parameters, sparsity) and the medians of what does."""
    medians = {key: value["median"] for key, value in summarise(rounds).items()}
    latency: dict[str, dict[str, float]] = {}
    for key in [key for key in medians if key.startswith("latency_ms.")]:
        _, length, share = key.split(".")
        latency.setdefault(length, {})[share] = medians.pop(key)
    return {
        **facts,
        **medians,
        "throughput_batch": settings.throughput_batch,
        "throughput_length": settings.throughput_length,
        "latency_ms": latency,
    }
