"""The process that loads one model and measures it: a specification comes on standard input, figures leave as JSON.

Between the two it says that it is ready and waits for a line, so that others can start beside it and none measures
beside them. Its argument is the kind of model. For PyTorch the process is, where that is safe, a fork of one that has
imported the libraries and never run a model (`stages.core.warm`). Loading, timing and memory count from after the
imports either way. Memory takes a process of its own: what suits its measurement would disturb the times.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from stages.core import entry, warm
from stages.measurement.timing import Clock, repeated, timed

Inference = Callable[[int, int], object]  # (rows, tokens a row) -> output
Measurement = Callable[[], dict[str, Any]]
COLD_LENGTH = 64  # tokens of the first inference
READY = "ready\n"


def main() -> None:
    """Read the specification, get ready, measure when told to, print."""
    specification, told = json.loads(sys.stdin.readline()), threading.Event()
    threading.Thread(target=_listen, args=(told,), daemon=True).start()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(specification["threads"])
    prepare = {"torch": torch_model, "onnx": onnx_model, "pairs": sentence_pairs}[specification["kind"]]
    measurement = prepare(specification)
    print(READY, end="", flush=True)
    told.wait()
    print(json.dumps(measurement()), flush=True)


def _listen(told: threading.Event) -> None:
    """Pass on the word to measure, and end with the process that gives it."""
    if sys.stdin.readline():
        told.set()
        sys.stdin.read()
    os._exit(1)


def torch_model(specification: dict[str, Any]) -> Measurement:
    """Import what a masked language model in PyTorch needs; returns what measures it."""
    import torch

    from stages.measurement.inputs import token_ids
    from stages.measurement.memory import page_in_libraries
    from stages.modeling.loading import load_masked_lm

    torch.set_num_threads(specification["threads"])
    if (origin := warm.origin()) is not None:
        with suppress(OSError):  # where the kernel does not tell, some MiB of libraries count as growth
            page_in_libraries(origin)

    def load() -> Inference:
        model = load_masked_lm(Path(specification["path"]))
        return lambda rows, tokens: model(torch.from_numpy(token_ids(rows, tokens, model.config.vocab_size)))

    def measurement() -> dict[str, Any]:
        with torch.inference_mode():
            return measured(load, specification)

    return measurement


def onnx_model(specification: dict[str, Any]) -> Measurement:
    """Import what a masked language model in ONNX Runtime needs; returns what measures it.

    Its times are taken with a memory arena, its memory without.

    The arena makes inference faster and the process larger, so that each figure is taken as it is used.
    """
    import numpy as np

    from stages.deployment.session import open_session
    from stages.measurement.inputs import token_ids

    def load() -> Inference:
        arena = specification["figure"] == "times"
        session = open_session(Path(specification["path"]), specification["threads"], arena)

        def infer(rows: int, tokens: int) -> object:
            ids = token_ids(rows, tokens, specification["vocabulary"])
            return session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})

        return infer

    return lambda: measured(load, specification)


def measured(load: Callable[[], Inference], specification: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that are asked for."""
    return {"times": times, "memory": peak_memory}[specification["figure"]](load, specification)


def times(
    load: Callable[[], Inference], specification: dict[str, Any], clock: Clock = time.perf_counter_ns
) -> dict[str, Any]:
    """Time loading, the first inference, latency by length, and throughput; in ms, and rows a second.

    Throughput is a batch's rows over the median of the batches' seconds.
    """
    loaded: list[Inference] = []
    load_seconds = timed(lambda: loaded.append(load()), clock)
    infer = loaded[0]
    cold_seconds = timed(lambda: infer(1, min(COLD_LENGTH, max(specification["lengths"]))), clock)
    latency = {
        str(length): repeated(
            lambda length=length: infer(1, length),  # type: ignore[misc]
            specification["warmup"],
            specification["repeats"],
            clock,
        )
        for length in specification["lengths"]
    }
    rows, tokens = specification["throughput_batch"], specification["throughput_length"]
    batches = repeated(lambda: infer(rows, tokens), 1, specification["batches"], clock)
    return {
        "load_ms": 1000 * load_seconds,
        "cold_start_ms": 1000 * cold_seconds,
        "latency_ms": {length: [1000 * seconds for seconds in found] for length, found in latency.items()},
        "throughput": rows / median(batches),
    }


def peak_memory(load: Callable[[], Inference], specification: dict[str, Any]) -> dict[str, Any]:
    """Take the peak memory, in MiB, of loading and of one row of each length, as published figures are of single rows.

    Freed memory goes back to the system, so that it is what was needed at once.
    """
    from stages.core.allocator import give_back_freed_memory
    from stages.measurement.memory import PeakMemory
    from stages.measurement.sizes import MIB

    give_back_freed_memory()
    with PeakMemory() as peak:
        infer = load()
        for length in specification["lengths"]:
            infer(1, length)
    return {"peak_memory_mb": peak.growth / MIB}


def sentence_pairs(specification: dict[str, Any]) -> Measurement:
    """Load a model with a classification head; returns what times a pass over sentence pairs.

    They are taken one at a time, from text to score.
    """
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    import stages.modeling  # noqa: F401 (registers the classes of shrunken models)
    from stages.core.reading import load_tokenizer, readable

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(specification["threads"])
    folder = Path(specification["path"])
    tokenizer = load_tokenizer(folder)
    with readable(folder):
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, local_files_only=True).eval()

    def score(pair: list[str]) -> object:
        return model(**tokenizer(*pair, truncation=True, max_length=128, return_tensors="pt")).logits.item()

    def measurement() -> dict[str, Any]:
        pairs = specification["pairs"]
        with torch.inference_mode():
            for pair in pairs[: specification["warmup"]]:
                score(pair)
            return {"seconds": timed(lambda: [score(pair) for pair in pairs])}

    return measurement


if __name__ == "__main__":
    if sys.argv[1:] == ["onnx"]:  # needs none of those libraries
        entry.run(main)
    else:
        warm.run("stages.measurement.worker")
