"""Fine-tuned models for a task: trained as the evaluation cells train, exported, and scored through ONNX Runtime."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from stages.core import runtime
from stages.core.params import Params, SquadOverrides
from stages.deployment.files import write_pair
from stages.deployment.intervals import paired_interval
from stages.deployment.session import open_session
from stages.deployment.smoothing import Calibration
from stages.deployment.verification import Logits, compare, run, significant
from stages.finetuning import answering, classification
from stages.finetuning.cells import read_origin, read_rows
from stages.finetuning.features import Features, encode
from stages.finetuning.metrics import Squad, score, squad_scores
from stages.finetuning.squad import best_answers, make_windows
from stages.finetuning.tasks import TASKS
from stages.finetuning.trainer import diverged

SQUAD = "SQuAD"
NAME = "model"  # of the fp32 file; the other one's is `model_int8`


@dataclass(frozen=True)
class Outcome:
    """A model's answers to the dev rows, its scores, and the headline score (0-1) of every row.

    `unit` is what the mean of the rows is multiplied by to give the headline score.
    """

    scores: dict[str, float]
    answers: list[Any]
    headline: NDArray[np.float64]
    unit: float


@dataclass(frozen=True)
class TaskModel:
    """A fine-tuned model, training and dev features to calibrate and score it on, and what judges its logits."""

    model: PreTrainedModel
    calibration: list[Features]
    features: list[Features]
    judge: Callable[[list[Logits]], Outcome]


def data_folder(task: str) -> Path:
    """Folder of a task's data set."""
    return {SQUAD: Path("data/squad"), "IMDb": Path("data/imdb")}.get(task, Path("data/glue", task))


def outputs_of(task: str) -> tuple[str, ...]:
    """Names of the outputs of a task's exported model."""
    return ("start_logits", "end_logits") if task == SQUAD else ("logits",)


def export_task(task: str, checkpoint: Path, models: Path, params: Params) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fine-tune a checkpoint, write `model.onnx` and `model_int8.onnx`, and return the metrics of both.

    Raises UserError if data are missing, training diverges, or ONNX Runtime and PyTorch disagree.
    """
    settings = next(found for name, found in params.onnx_export.tasks.items() if name == task)
    name = f"{task} {checkpoint.name}"
    runtime.configure(params.hardware, settings.applied_to(params.finetune).threads)  # as the evaluation's
    fitted = (_answering if task == SQUAD else _classification)(task, settings, checkpoint, name, params)
    runtime.configure(params.hardware)
    threads, rows = params.hardware.threads, (np.array(row["input_ids"], np.int64) for row in fitted.calibration)
    calibration = Calibration(list(rows), params.onnx_export.smoothing)
    outputs = outputs_of(task)
    files = write_pair(fitted.model, outputs, NAME, models, calibration, threads)
    sessions = [open_session(file.path, threads=1) for file in files]
    logits = [
        _predict(session, fitted.features, outputs, label, threads)
        for session, label in zip(sessions, (name, f"{name} INT8"), strict=True)
    ]
    if not all(np.isfinite(row).all() for rows in logits for row in rows):
        raise diverged(name, settings.applied_to(params.finetune))
    checked = [np.array(row["input_ids"], np.int64) for row in fitted.features[: params.onnx_export.check_blocks]]
    rounding, quantization = compare(fitted.model, sessions[0], sessions[1], checked, outputs)
    rounding.require_rounding(name)
    fp32, int8 = (fitted.judge(rows) for rows in logits)
    common = {"rows": len(fp32.answers), **read_origin(data_folder(task))}
    difference, error = significant(rounding.largest), significant(quantization.relative_error)
    return (
        {**files[0].facts, "max_abs_difference": difference, "scores": fp32.scores, **common},
        {**files[1].facts, "relative_error": error, "scores": int8.scores, **common, **_change(fp32, int8)},
    )


def _classification(task: str, settings: SquadOverrides, checkpoint: Path, name: str, params: Params) -> TaskModel:
    known, recipe = TASKS[task], settings.applied_to(params.finetune)
    data = data_folder(task)
    train, dev = read_rows(data, "train"), {split: read_rows(data, split) for split in known.dev_splits}
    bf16 = runtime.use_bf16(params.hardware)
    model, tokenizer, _ = classification.fit(checkpoint, known, train, recipe, params.seed, bf16, name)

    def judge(logits: list[Logits]) -> Outcome:
        decisions = classification.decide(known, np.concatenate(logits)).tolist()
        scores: dict[str, float] = {}
        begin = 0
        for split, rows in dev.items():
            scores |= score(known, split, decisions[begin : begin + len(rows)], [row["label"] for row in rows])
            begin += len(rows)
        answers, labels = decisions[: len(dev["dev"])], [row["label"] for row in dev["dev"]]
        return Outcome(scores, answers, np.equal(answers, labels).astype(np.float64), unit=1.0)

    shown = train[: params.onnx_export.calibration_rows]
    calibration, *features = (
        encode(rows, known, tokenizer, model, recipe.max_length) for rows in (shown, *dev.values())
    )
    return TaskModel(model, calibration, [row for rows in features for row in rows], judge)


def _answering(task: str, settings: SquadOverrides, checkpoint: Path, name: str, params: Params) -> TaskModel:
    recipe, data = settings.applied_to(params.finetune), data_folder(task)
    train, dev = read_rows(data, "train"), read_rows(data, "dev")
    bf16 = runtime.use_bf16(params.hardware)
    model, tokenizer, _ = answering.fit(checkpoint, train, recipe, settings.doc_stride, params.seed, bf16, name)
    shown = train[: params.onnx_export.calibration_rows]
    calibration, windows = (
        make_windows(rows, tokenizer, model, recipe.max_length, settings.doc_stride, labelled=False)
        for rows in (shown, dev)
    )
    references = [row["answers"]["text"] for row in dev]

    def judge(logits: list[Logits]) -> Outcome:
        starts, ends = [rows[0] for rows in logits], [rows[1] for rows in logits]
        answers = best_answers(dev, windows, starts, ends, settings.max_answer_length, settings.n_best)
        f1 = [squad_scores(*pair)[1] for pair in zip(answers, references, strict=True)]
        scores = Squad().compute(predictions=answers, references=references)
        return Outcome(scores, answers, np.array(f1), unit=100.0)

    shown_features, features = ([window.features for window in each] for each in (calibration, windows))
    return TaskModel(model, shown_features, features, judge)


def _predict(
    session: InferenceSession, features: Sequence[Features], names: Sequence[str], label: str, threads: int
) -> list[Logits]:
    """Compute each row's outputs [outputs, ...] by itself, as on a phone: a batch would share INT8 scales.

    A row is too little work for several threads, so each thread has a row of its own.
    """

    def outputs(row: Features) -> Logits:
        ids = np.array([row["input_ids"]], np.int64)
        return np.concatenate(run(session, ids, np.ones_like(ids), names))

    with ThreadPoolExecutor(threads) as pool:  # ONNX Runtime computes outside Python's lock
        rows = pool.map(outputs, features)
        return list(tqdm(rows, desc=label, total=len(features), unit="row", disable=None))


def _change(fp32: Outcome, int8: Outcome) -> dict[str, float]:
    """Share of equal answers, and by how much the headline score differs, with the interval, in the score's unit.

    The headline is accuracy (also for CoLA, whose Matthews correlation is no mean over rows), or SQuAD's F1.
    """
    same = [first == second for first, second in zip(fp32.answers, int8.answers, strict=True)]
    low, high = paired_interval(fp32.headline, int8.headline)
    return {
        "agreement": sum(same) / len(same),
        "difference": float(int8.unit * (int8.headline - fp32.headline).mean()),
        "difference_low": int8.unit * low,
        "difference_high": int8.unit * high,
    }
