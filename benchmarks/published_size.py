"""What the benchmarks at DistilBERT's published size share: options, the model, and calls timed by turns."""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from transformers import DistilBertConfig, DistilBertForMaskedLM


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that every benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--tokens", type=int, default=64, help="tokens of the one row")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--rounds", type=int, default=25)
    return made


def random_model(threads: int) -> DistilBertForMaskedLM:
    """Build the published architecture with random weights, equal at every call, and set the number of threads."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return DistilBertForMaskedLM(DistilBertConfig()).eval()


def token_row(tokens: int) -> torch.Tensor:
    """Make one row of token ids (1, tokens)."""
    return torch.arange(1000, 1000 + tokens)[None]


@torch.inference_mode()
def by_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, one call of each a round, after two rounds that do not count.

    Turns in one process let a noisy machine disturb all calls alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values[2:]) for name, values in seconds.items()}
