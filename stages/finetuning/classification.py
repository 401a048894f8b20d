"""A classification or regression cell from data to results: GLUE and IMDb."""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from stages.core import processes, runtime
from stages.core.params import Recipe
from stages.finetuning.cells import Cell, read_origin, read_rows, timings, write_results
from stages.finetuning.features import Row, encode
from stages.finetuning.first_token import first_token_only
from stages.finetuning.metrics import majority, score
from stages.finetuning.tasks import TASKS, Task
from stages.finetuning.trainer import Training, diverged, fine_tune, load, predict


def evaluate(cell: Cell, data: Path) -> None:
    """Fine-tune the cell's model on the data set in folder `data`, score it on the dev splits and write the results."""
    task, recipe = TASKS[cell.task], cell.recipe
    train, dev = read_rows(data, "train"), {split: read_rows(data, split) for split in task.dev_splits}
    origin = read_origin(data)
    runtime.configure(cell.params.hardware, recipe.threads)
    bf16 = runtime.use_bf16(cell.params.hardware)
    model, tokenizer, training = fit(cell.checkpoint, task, train, recipe, cell.seed, bf16, cell.name)
    if not processes.is_first():
        return

    start = time.perf_counter()
    logits: dict[str, NDArray[np.float32]] = {}
    for split, rows in dev.items():
        features = encode(rows, task, tokenizer, model, recipe.max_length)
        with first_token_only(model):
            logits[split] = np.stack(predict(model, tokenizer, features, recipe.eval_batch_size, bf16))
    eval_seconds = time.perf_counter() - start

    if not all(np.isfinite(values).all() for values in logits.values()):
        raise diverged(cell.name, recipe)
    scores: dict[str, float] = {}
    baseline: dict[str, float] = {}
    for split, rows in dev.items():
        labels = [row["label"] for row in rows]
        scores |= score(task, split, decide(task, logits[split]).tolist(), labels)
        baseline |= majority(task, split, labels)
    write_results(
        cell,
        _table(task, dev, logits),
        timings(training.seconds, training.tokens, eval_seconds),
        scores=scores,
        majority=baseline,
        train_rows=len(train),
        **{"dev_rows" + split.removeprefix("dev"): len(rows) for split, rows in dev.items()},
        model_parameters=model.num_parameters(),
        data=origin,
    )


def fit(
    checkpoint: Path,
    task: Task,
    rows: Sequence[Row],
    recipe: Recipe,
    seed: int,
    bf16: bool,
    name: str,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Training]:
    """Fine-tune a checkpoint with a new head on a task's rows; the arguments are those of `fine_tune`."""
    model, tokenizer = load(
        checkpoint,
        AutoModelForSequenceClassification,
        seed,
        num_labels=task.labels,
        problem_type="regression" if task.regression else "single_label_classification",
    )
    if task.regression:
        _predict_everywhere(model, fmean(row["label"] for row in rows))
    features = encode(rows, task, tokenizer, model, recipe.max_length)
    with first_token_only(model):
        return model, tokenizer, fine_tune(model, tokenizer, features, recipe, seed, bf16, name)


def _predict_everywhere(model: PreTrainedModel, number: float) -> None:
    """Make a new regression head answer `number` to every row, but for what its random weights add.

    AdamW moves a bias by about the learning rate an update, so that from zero it would take thousands of updates to get
    there. A shorter training bends the encoder towards the mean label instead, before it learns what differs.
    """
    head = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        head.bias.fill_(number)


def decide(task: Task, logits: NDArray[np.float32]) -> NDArray[Any]:
    """Predict each row of logits [rows, labels]: the number itself, or the likeliest class."""
    return logits[:, 0] if task.regression else logits.argmax(axis=1)


def _table(task: Task, dev: dict[str, list[dict[str, Any]]], logits: dict[str, NDArray[np.float32]]) -> pa.Table:
    """Row index, label, prediction and logits of every dev row; with `split` where there are several."""
    parts = []
    for split, rows in dev.items():
        columns: dict[str, Any] = {
            "index": np.arange(len(rows)),
            "label": np.array([row["label"] for row in rows]),
            "prediction": decide(task, logits[split]),
            "logits": list(logits[split]),
        }
        if len(dev) > 1:
            columns["split"] = [split] * len(rows)
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)
