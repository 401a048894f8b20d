"""Tokens per second and peak memory of our distillation step beside a plain implementation of the same objective.

    python benchmarks/distillation.py
    python benchmarks/distillation.py --length 512 --batch 4 --kl-tokens masked

BERT-base into DistilBERT with random weights and a vocabulary of 30,522. Ours is the trainer's own step, from the
loader's batch to the optimizer; the plain one (`plain_distillation.py`) is given its batches. All take turns, a
step each, every one in a process of its own. Multiplications and additions of the plain step, as PyTorch counts them,
over the time are model FLOP/s; their share of what a product of two large bf16 matrices reaches here is the
utilisation (MFU).
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain_distillation import PlainStep, Weights, plain_labels, plain_losses
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForMaskedLM
from turns import Measured, by_turns, machine

from stages.core.params import Hardware
from stages.core.runtime import attention_implementation, configure, set_dropout
from stages.distillation.checkpoints import Checkpoints
from stages.distillation.corpus import Blocks
from stages.distillation.masking import Batch, Draws, Masking
from stages.distillation.models import BertStates, DistilBertStates, FrozenTeacher
from stages.distillation.objectives import TripleLoss
from stages.distillation.schedule import Schedule
from stages.distillation.student import build_student
from stages.distillation.trainer import BlockTrainer

CLS, SEP, MASK, FIRST_ORDINARY = 101, 102, 103, 1000  # of bert-base-uncased's vocabulary
LAYERS = (0, 2, 4, 7, 9, 11)
BLOCKS = 64


@dataclass(frozen=True)
class Setting:
    """What is the same for all that are compared."""

    batch: int
    length: int
    kl_tokens: Any
    dropout: float | None
    updates: int
    threads: int


def draws(setting: Setting) -> Draws:
    """Make random blocks with dynamic masks."""
    config = BertConfig()
    ids = np.random.default_rng(0).integers(FIRST_ORDINARY, config.vocab_size, (BLOCKS, setting.length))
    ids[:, 0], ids[:, -1] = CLS, SEP
    weights = np.ones(config.vocab_size)
    weights[:FIRST_ORDINARY] = 0.0
    masking = Masking(weights, np.flatnonzero(weights), MASK, 0.15, 0)
    blocks = Blocks(ids.astype(np.uint16), np.ones(config.vocab_size, np.int64), 0, "")
    return Draws(blocks, masking, setting.updates * setting.batch)


def teacher() -> BertStates:
    """Make a BERT-base whose random weights are the same at every call."""
    torch.manual_seed(0)
    return BertStates(BertConfig(attn_implementation=attention_implementation()))


def ours(setting: Setting, bf16: bool) -> Callable[[], float]:
    """Prepare the step of stage `distill`."""
    configure(Hardware(threads=setting.threads, precision="bf16" if bf16 else "fp32"))
    taught_by = teacher()
    plain = build_student(taught_by, LAYERS, "teacher", 0)
    plain.config._attn_implementation = attention_implementation()
    student = DistilBertStates(plain.config)
    student.load_state_dict(plain.state_dict())
    set_dropout(student, setting.dropout)
    dtype = torch.bfloat16 if bf16 else torch.float32
    weights = Weights()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective = TripleLoss(
        FrozenTeacher(taught_by, dtype, device),
        weights.distill, weights.mlm, weights.cosine, weights.temperature, setting.kl_tokens,
    )  # fmt: skip
    schedule = Schedule(
        label="distill",
        keys=("distill.learning_rate", "distill.max_grad_norm"),
        updates=setting.updates,
        batch_size=setting.batch,
        effective_batch_size=setting.batch,
        learning_rate=5e-4,
        warmup_ratio=0.05,
        weight_decay=0.0,
        max_grad_norm=5.0,
        seed=0,
        bf16=bf16,
        evaluations=1,
        save_minutes=1e9,
        adam_betas=(0.9, 0.98),
        adam_epsilon=1e-6,
    )
    folder = Path(tempfile.gettempdir(), "benchmark")  # where nothing is written
    trainer = BlockTrainer(student, objective, draws(setting), [], schedule, Checkpoints("distill", root=folder), [])
    accelerator = trainer.accelerator
    trainer.create_optimizer_and_scheduler(setting.updates)
    model, optimizer = accelerator.prepare(student, trainer.optimizer)
    batches = iter(trainer.get_train_dataloader())

    def step() -> float:
        found, counts = trainer.get_batch_samples(batches, 1, device)
        loss = trainer.training_step(model, found[0], counts)
        accelerator.clip_grad_norm_(model.parameters(), schedule.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    return step


def plain(setting: Setting, bf16: bool) -> Callable[[], float]:
    """Prepare the step of the plain implementation."""
    step, batch_of = _plain(setting, bf16), _batches(setting)
    return lambda: step(*next(batch_of))


def _plain(setting: Setting, bf16: bool) -> PlainStep:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    states = teacher()
    taught_by = BertForMaskedLM(states.config)
    taught_by.load_state_dict(states.state_dict())
    student = build_student(states, LAYERS, "teacher", 0)
    student.config._attn_implementation = attention_implementation()
    set_dropout(student, setting.dropout)
    weights = Weights(masked_only=setting.kl_tokens == "masked")
    return PlainStep(student.to(device), taught_by.to(device), bf16, weights)


def _batches(setting: Setting) -> Any:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    drawn = draws(setting)
    for number in count():
        batch: Batch = drawn.__getitems__(list(range(number * setting.batch, (number + 1) * setting.batch)))
        labels = plain_labels(batch["input_ids"], batch["order"], batch["labels"])
        yield batch["input_ids"].to(device), labels.to(device)


def flops(setting: Setting) -> int:
    """Count the multiplications and additions of an update: the plain objective's forward and backward."""
    step, (ids, labels) = _plain(setting, False), next(_batches(setting))
    with FlopCounterMode(display=False) as counter:
        plain_losses(step.student, step.teacher, ids, labels, step.weights)[0].backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


def matrix_peak(threads: int, dtype: torch.dtype) -> float:
    """Measure the FLOP/s of a large matrix product."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 8192 if device == "cuda" else 2048
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        one @ other
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def main() -> None:
    """Measure, and print a table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="blocks an update")
    parser.add_argument("--length", type=int, default=128, help="tokens a block")
    parser.add_argument("--kl-tokens", choices=("all", "masked"), default="all")
    parser.add_argument("--dropout", type=float, help="of the student; BERT's 0.1 if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    updates = options.warmup + options.rounds
    setting = Setting(options.batch, options.length, options.kl_tokens, options.dropout, updates, options.threads)
    peak, work = matrix_peak(options.threads, torch.bfloat16), flops(setting)
    found = by_turns(
        {
            "plain fp32": partial(plain, setting, False),
            "ours fp32": partial(ours, setting, False),
            "plain bf16": partial(plain, setting, True),
            "ours bf16": partial(ours, setting, True),
        },
        options.rounds, options.warmup, options.threads,
    )  # fmt: skip
    tokens = options.batch * options.length
    print(machine(options.threads))
    print(
        f"{options.batch} x {options.length} tokens, KL over {options.kl_tokens} tokens, {work / tokens / 1e9:.2f} "
        f"GFLOP each; bf16 peak {peak / 1e9:.0f} GFLOP/s"
    )
    print(f"{'':12} {'tokens/s':>24} {'of plain fp32':>14} {'MFU':>7} {'peak MiB':>9} {'first loss':>11}")
    for name, result in found.items():
        rate = result.shown(lambda seconds: tokens / seconds)
        times = found["plain fp32"].median / result.median
        print(
            f"{name:12} {rate:>24} {times:14.2f} {work / result.median / peak:7.1%} {result.peak_mib:9.0f}"
            f" {result.value:11.5f}"
        )
    print(f"ours bf16 is {_ratio(found, 'plain bf16', 'ours bf16'):.2f} times as fast as plain bf16")
    if options.json:
        figures = {name: {"seconds": r.seconds, "peak_mib": r.peak_mib, "loss": r.value} for name, r in found.items()}
        options.json.write_text(json.dumps({"peak_flops": peak, "flops": work, **figures}, indent=1))


def _ratio(found: dict[str, Measured], slow: str, fast: str) -> float:
    return found[slow].median / found[fast].median


if __name__ == "__main__":
    main()
