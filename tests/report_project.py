"""Made-up cells and all else that the stage `report` reads, and a run of it."""

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from measurements import write_measurements
from ruamel.yaml import YAML

from stages import report
from stages.measurement.variants import ONNX_MODELS

ROOT = Path(__file__).resolve().parents[1]
GLUE = ("CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI")
MODELS = ("bert", "distilbert")
SEEDS = (1, 2, 3)
ROWS = 200
LABELS = np.arange(ROWS) % 2
GENERATED = "generated, not the published data"
DISTILL = {"mlm_loss": 2.5, "distill_loss": 1.25, "updates": 12345, "teacher_layers": "0,1,3,5"}


def score(model: str, task: str, seed: int) -> float:
    """A score that differs by model, task and seed; the median over SEEDS is the one of seed 1."""
    base = {"bert": 0.8, "distilbert": 0.7}.get(model, 0.65) + 0.01 * (len(task) % 4)
    return base + {1: 0.0, 2: 0.05, 3: -0.02}[seed]


def scores(model: str, task: str, seed: int) -> dict[str, float]:
    value = score(model, task, seed)
    if task == "WNLI":
        return {"accuracy": 0.5 + 0.01 * seed}
    if task == "MNLI":
        return {"accuracy": value, "accuracy_mismatched": value - 0.01}
    if task in ("MRPC", "QQP"):
        return {"accuracy": value, "f1": value + 0.04}
    if task == "STS-B":
        return {"pearson": value, "spearman": value - 0.04}
    if task == "CoLA":
        return {"matthews": value, "accuracy": 0.9}
    if task == "SQuAD":
        return {"exact_match": 100 * value - 10, "f1": 100 * value}
    return {"accuracy": value}


def majority(task: str) -> dict[str, float]:
    known = {
        "CoLA": {"matthews": 0.0, "accuracy": 0.5},
        "STS-B": {"pearson": 0.0, "spearman": 0.0},
        "MNLI": {"accuracy": 0.34, "accuracy_mismatched": 0.35},
        "SQuAD": {},
    }
    return known.get(task, {"accuracy": 0.5})


def write_cell(
    folder: Path,
    suite: str,
    model: str,
    task: str,
    seed: int,
    source: str = "embedded",
    note: str = GENERATED,
) -> None:
    place = folder / "data/eval" / suite / model / task / str(seed)
    place.mkdir(parents=True)
    result = {
        "model": model, "task": task, "seed": seed, "scores": scores(model, task, seed), "majority": majority(task),
        "train_rows": 800, "dev_rows": ROWS, "data": {"source": source, "note": note}, "recipe": {},
        "model_parameters": 22_700_000,
    }  # fmt: skip
    (place / "result.json").write_text(json.dumps(result))
    pq.write_table(pa.table(predictions(task, made(model, task, seed))), place / "predictions.parquet")


def made(model: str, task: str, seed: int) -> float:
    """The share of rows that are right; on WNLI the models are equal."""
    return scores(model, task, seed)["accuracy"] if task == "WNLI" else score(model, task, seed)


def predictions(task: str, value: float) -> dict[str, np.ndarray]:
    """Predictions of about that score, right on the first rows; MNLI's second dev split is all wrong."""
    right = np.arange(ROWS) < ROWS * value
    if task == "SQuAD":
        return {"id": np.arange(ROWS).astype(str), "f1": 100.0 * right}
    if task == "STS-B":
        graded = np.random.default_rng(0).permutation(np.linspace(0, 5, ROWS))
        return {"label": graded, "prediction": np.where(right, graded, 2.5)}
    guesses = np.where(right, LABELS, 1 - LABELS)
    if task == "MNLI":
        both = {"label": np.tile(LABELS, 2), "prediction": np.concatenate([guesses, 1 - LABELS])}
        return both | {"split": np.repeat(["dev", "dev_mismatched"], ROWS)}
    return {"label": LABELS, "prediction": guesses}


def make_project(folder: Path) -> None:
    """Lay out cells of every task and model for SEEDS, and what the other stages wrote."""
    for model in MODELS:
        for seed in SEEDS:
            for task in GLUE:
                write_cell(folder, "glue", model, task, seed)
            write_cell(folder, "imdb", model, "IMDb", seed)
            write_cell(folder, "squad", model, "SQuAD", seed)
    write_measurements(folder)
    shutil.copytree(folder / "data/eval/onnx/SST-2", folder / "data/eval/onnx/SQuAD")
    (folder / "metrics/android").mkdir()
    for name in ONNX_MODELS:
        row = {"status": "not measured", "size_mb": 1.0}
        (folder / f"metrics/android/{name}.json").write_text(json.dumps(row))
    (folder / "metrics/distill.json").write_text(json.dumps(DISTILL))


def run(values: dict, project: Path, *arguments: str) -> str:
    """Run the stage in the folder and return what it prints."""
    YAML().dump(values, project / "params.yaml")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(sys, "argv", ["report", *arguments])
        report.main()
    return printed.getvalue()
