"""A SQuAD cell from data to results."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import AutoModelForQuestionAnswering, PreTrainedModel, PreTrainedTokenizerBase

from stages.core import processes, runtime
from stages.core.params import Recipe, SquadOverrides
from stages.finetuning.cells import Cell, read_origin, read_rows, timings, write_results
from stages.finetuning.features import Row
from stages.finetuning.metrics import Squad, squad_scores
from stages.finetuning.squad import best_answers, make_windows
from stages.finetuning.trainer import Training, diverged, fine_tune, load, predict


def evaluate(cell: Cell, data: Path) -> None:
    """Fine-tune the cell's model on SQuAD in folder `data`, answer the dev questions and write the results."""
    recipe, settings = cell.recipe, cell.overrides
    assert isinstance(settings, SquadOverrides)
    train, dev = read_rows(data, "train"), read_rows(data, "dev")
    origin = read_origin(data)
    runtime.configure(cell.params.hardware, recipe.threads)
    bf16 = runtime.use_bf16(cell.params.hardware)
    model, tokenizer, training = fit(cell.checkpoint, train, recipe, settings.doc_stride, cell.seed, bf16, cell.name)
    if not processes.is_first():
        return

    start = time.perf_counter()
    windows = make_windows(dev, tokenizer, model, recipe.max_length, settings.doc_stride, labelled=False)
    logits = predict(model, tokenizer, [window.features for window in windows], recipe.eval_batch_size, bf16)
    if not all(np.isfinite(values).all() for values in logits):
        raise diverged(cell.name, recipe)
    starts, ends = [values[0] for values in logits], [values[1] for values in logits]
    answers = best_answers(dev, windows, starts, ends, settings.max_answer_length, settings.n_best)
    eval_seconds = time.perf_counter() - start

    references = [row["answers"]["text"] for row in dev]
    each = [squad_scores(*pair) for pair in zip(answers, references, strict=True)]
    predictions = pa.table(
        {
            "id": [row["id"] for row in dev],
            "prediction_text": answers,
            "exact_match": [100.0 * exact for exact, _ in each],
            "f1": [100.0 * f1 for _, f1 in each],
        }
    )
    write_results(
        cell,
        predictions,
        timings(training.seconds, training.tokens, eval_seconds),
        scores=Squad().compute(predictions=answers, references=references),
        majority={},
        train_rows=len(train),
        dev_rows=len(dev),
        model_parameters=model.num_parameters(),
        data=origin,
    )


def fit(
    checkpoint: Path,
    rows: Sequence[Row],
    recipe: Recipe,
    doc_stride: int,
    seed: int,
    bf16: bool,
    name: str,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Training]:
    """Fine-tune a checkpoint with a new span head on SQuAD's rows; the arguments are those of `fine_tune`."""
    model, tokenizer = load(checkpoint, AutoModelForQuestionAnswering, seed)
    features = [
        window.features for window in make_windows(rows, tokenizer, model, recipe.max_length, doc_stride, labelled=True)
    ]
    return model, tokenizer, fine_tune(model, tokenizer, features, recipe, seed, bf16, name)
