"""Rows per second and peak memory of our fine-tuning beside the plain `Trainer` with its defaults.

    python benchmarks/finetuning.py

A random DistilBERT with a classification head, on rows whose lengths are drawn like those of sentence pairs
(log-normal, median 32 tokens, at most 128). A turn trains one pass over the rows. Ours has batches of similar length;
the plain one has them in a random order, padded to their longest row. Both in fp32 and in bf16.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import (
    DataCollatorWithPadding,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from turns import by_turns, machine

from stages.core.params import Hardware, Recipe
from stages.core.runtime import attention_implementation, configure
from stages.finetuning.trainer import fine_tune

MEDIAN_LENGTH, SPREAD, LONGEST = 32, 0.5, 128
BATCH = 32
PRECISION = {False: "fp32", True: "bf16"}


def rows(number: int) -> list[dict[str, Any]]:
    """Draw rows of token ids with a label."""
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.normal(np.log(MEDIAN_LENGTH), SPREAD, number)).clip(4, LONGEST).astype(int)
    return [
        {"input_ids": generator.integers(1000, 30522, length).tolist(), "labels": index % 2}
        for index, length in enumerate(lengths)
    ]


def padding() -> PreTrainedTokenizerFast:
    """Make a tokenizer that only pads."""
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"[PAD]": 0})), pad_token="[PAD]")


def ours(number: int, threads: int, bf16: bool) -> Callable[[], float]:
    """Prepare a fine-tuning of ours."""
    configure(Hardware(threads=threads, precision="bf16" if bf16 else "fp32"))
    model = DistilBertForSequenceClassification(DistilBertConfig(attn_implementation=attention_implementation()))
    recipe = Recipe(
        epochs=1.0, batch_size=BATCH, eval_batch_size=BATCH, learning_rate=5e-5, warmup_ratio=0.0, weight_decay=0.0,
        max_grad_norm=1.0, max_length=LONGEST, dropout=None, freeze_word_embeddings=False, threads=None,
    )  # fmt: skip
    features, tokenizer = rows(number), padding()
    # A copy each time: accelerate prepares a model for bf16 only once.
    return lambda: fine_tune(deepcopy(model), tokenizer, features, recipe, 0, bf16, "ours").seconds


def plain(number: int, threads: int, bf16: bool) -> Callable[[], float]:
    """Prepare one of `Trainer` with its defaults, but for the number of rows in a batch and of what it would write."""
    configure(Hardware(threads=threads, precision="bf16" if bf16 else "fp32"))
    model: nn.Module = DistilBertForSequenceClassification(DistilBertConfig())
    features, tokenizer = rows(number), padding()

    def train() -> float:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, num_train_epochs=1, per_device_train_batch_size=BATCH, bf16=bf16, save_strategy="no",
                report_to="none", disable_tqdm=True, logging_strategy="no", use_cpu=not torch.cuda.is_available(),
            )  # fmt: skip
            trainer = Trainer(
                model=deepcopy(model),
                args=arguments,
                train_dataset=features,
                data_collator=DataCollatorWithPadding(tokenizer),
            )
            trainer.remove_callback(PrinterCallback)
            return float(trainer.train().metrics["train_runtime"])

    return train


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    common = (options.rows, options.threads)
    calls = {
        f"{name} {PRECISION[bf16]}": partial(make, *common, bf16)
        for bf16 in (False, True)
        for name, make in (("plain", plain), ("ours", ours))
    }
    found = by_turns(calls, options.rounds, 1, options.threads)
    print(machine(options.threads))
    print(f"{options.rows} rows in batches of {BATCH}")
    print(f"{'':12} {'rows/s':>22} {'of plain fp32':>14} {'peak MiB':>9}")
    for name, result in found.items():
        times = found["plain fp32"].median / result.median
        print(
            f"{name:12} {result.shown(lambda seconds: options.rows / seconds):>22} {times:14.2f} {result.peak_mib:9.0f}"
        )


if __name__ == "__main__":
    main()
