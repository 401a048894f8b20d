"""Milliseconds of a training step whose threads poll for each other, and whose threads sleep, alone and two at once.

    python benchmarks/waiting.py

A step trains a random BERT of MiniLM's size, with two threads, on 16 rows of 24 tokens. Two at once are two processes
with the same cores, of which the first one is timed. Which is right for a stage is what `stages.core.waiting` chooses.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

from stages.core.waiting import ASLEEP, POLLING, SPINS

ROWS, TOKENS, LABELS = 16, 24, 2
WARMUP = 3
WAYS = {"poll": POLLING, "sleep": ASLEEP}
PAIRS = (("poll",), ("sleep",), ("poll", "poll"), ("poll", "sleep"), ("sleep", "poll"), ("sleep", "sleep"))


def main() -> None:
    """Measure by turns and print."""
    parser = argparse.ArgumentParser(description="A training step whose threads poll or sleep while they wait.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="of a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.steps, arguments.threads)
        return
    found: dict[tuple[str, ...], list[float]] = {ways: [] for ways in PAIRS}
    for _ in range(arguments.rounds):
        for ways in PAIRS:
            found[ways].append(first_of(ways))
    for ways, took in found.items():
        print(f"{' beside '.join(ways)}: {median(took):.0f} ms a step ({min(took):.0f} to {max(took):.0f})")


def first_of(ways: Sequence[str]) -> float:
    """Run a process for each of the ways, all at the same time; returns the first one's milliseconds a step."""
    started = [
        subprocess.Popen(
            [sys.executable, *sys.argv, "--child"],
            env={**os.environ, SPINS: WAYS[way]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for way in ways
    ]
    for process in started:
        assert process.stdout
        process.stdout.readline()  # it is ready
    for process in started:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    assert started[0].stdout
    took = float(started[0].stdout.readline())
    for process in started:
        process.kill()  # the others go on, so that the first is never alone
        process.wait()
    return took


def child(steps: int, threads: int) -> None:
    """Prepare, tell, wait for a line, and print the milliseconds of a step; then go on until killed."""
    step = prepared(threads)
    for _ in range(WARMUP):
        step()
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    print(1000 * (time.perf_counter() - start) / steps, flush=True)
    while True:
        step()


def prepared(threads: int) -> Callable[[], None]:
    """Return a training step."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from stages.core.params import Hardware
    from stages.core.runtime import configure

    configure(Hardware(threads=threads, precision="fp32"))
    torch.manual_seed(0)
    config = BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536, num_labels=LABELS)
    model = BertForSequenceClassification(config)
    model.get_input_embeddings().weight.requires_grad_(False)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], fused=True)
    rows = torch.randint(config.vocab_size, (ROWS, TOKENS))
    labels = torch.randint(LABELS, (ROWS,))

    def step() -> None:
        model(input_ids=rows, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
