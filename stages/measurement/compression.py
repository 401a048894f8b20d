"""The row of the compression table that a variant gets: its size, what it holds and what was measured of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.core.params import SpeedBench
from stages.measurement import processes
from stages.measurement.rounds import Round, summarise
from stages.measurement.variants import Variant

FEWEST_BATCHES = 3  # of which the median gives the throughput


def measure(variant: Variant, vocabulary: int, settings: SpeedBench) -> Round:
    """Measure a variant once: in one fresh process, and for ONNX in a second one without the memory arena.

    ONNX Runtime's arena makes inference faster and the process larger, so that each figure is taken as it is used.
    Peak memory is of loading and single rows.
    """
    specification: dict[str, Any] = {
        "kind": variant.runtime,
        "path": str(variant.path),
        "vocabulary": vocabulary,
        "batches": max(FEWEST_BATCHES, settings.repeats // 4),
        **settings.model_dump(exclude={"rounds", "stsb_samples", "stsb_warmup"}),
    }
    if variant.runtime == "torch":
        return processes.measure(specification, variant.name)
    figures = processes.measure({**specification, "arena": True}, variant.name)
    lean = processes.measure({**specification, "arena": False, "warmup": 0, "repeats": 1, "batches": 0}, variant.name)
    return {**figures, "peak_memory_mb": lean["peak_memory_mb"]}


def row(facts: Mapping[str, Any], rounds: Sequence[Round], settings: SpeedBench) -> dict[str, Any]:
    """Join what does not vary (size, parameters, sparsity) and the medians of what does."""
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
