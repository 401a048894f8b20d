"""A tiny random student and a project that `onnx-export` can run in."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from ruamel.yaml import YAML
from tiny_checkpoints import WORDS, save_distilbert, tokenizer
from transformers import DistilBertConfig, DistilBertForMaskedLM

from stages.modeling.shrunken import ShrunkenDistilBertConfig, ShrunkenDistilBertForMaskedLM

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY, WIDTH, POSITIONS = 211, 32, 48
ROWS = 24
INT8_ERROR_BOUND = 0.05  # relative error that INT8 logits of `student` may have


def student() -> DistilBertForMaskedLM:
    """A random DistilBERT of which no two weights are equal, so that the exporter can merge none."""
    torch.manual_seed(5)
    config = DistilBertConfig(
        vocab_size=VOCABULARY, dim=WIDTH, n_layers=1, n_heads=4, hidden_dim=48, max_position_embeddings=POSITIONS
    )
    model = DistilBertForMaskedLM(config).train(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make_project(folder: Path) -> None:
    """Lay out a baseline, a half pruned student, corpus, SST-2, SQuAD and parameters."""
    save_distilbert(folder / "models/distilbert")
    save_pruned(folder / "models/pruned")
    draw = random.Random(0)
    for split in ("train", "dev"):
        _write(folder / f"data/corpus/{split}.parquet", [{"text": _sentence(draw, 30)} for _ in range(20)])
        rows = [{"sentence": _sentence(draw, 6), "label": draw.randrange(2)} for _ in range(ROWS)]
        _write(folder / f"data/glue/SST-2/{split}.parquet", rows)
        _write(folder / f"data/squad/{split}.parquet", [_question(draw, index) for index in range(ROWS)])
    for data in ("glue/SST-2", "squad"):
        (folder / "data" / data / "dataset.json").write_text(
            json.dumps({"name": data, "source": "files", "note": "made up"})
        )
    _write_params(folder)


def save_pruned(folder: Path) -> None:
    """A random DistilBERT with one of two heads left, and every second weight of its encoder's matrices zero."""
    torch.manual_seed(1)
    sizes = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64}
    config = ShrunkenDistilBertConfig(vocab_size=len(tokenizer()), head_size=16, kept_heads=1, **sizes)
    model = ShrunkenDistilBertForMaskedLM(config)
    with torch.no_grad():
        for module in model.distilbert.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight[:, ::2] = 0.0
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def _write_params(folder: Path) -> None:
    yaml = YAML(typ="safe", pure=True)
    params: dict[str, Any] = yaml.load(ROOT / "profiles/tiny.yaml")
    params["hardware"] = {"threads": 2, "precision": "fp32"}  # of which each scores a row
    params["distill"]["block_length"] = 16
    params["finetune"] |= {"epochs": 1.0, "batch_size": 8, "max_length": 32}
    tasks = {"SST-2": {}, "SQuAD": {"doc_stride": 8}}
    params["squad"]["tasks"] = {}
    params["onnx_export"] = {"check_blocks": 5, "smoothing": 0.6, "calibration_rows": 6, "tasks": tasks}
    yaml.dump(params, folder / "params.yaml")


def _sentence(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, words)))


def _question(draw: random.Random, index: int) -> dict[str, Any]:
    words = draw.choices(WORDS, k=40)
    answer = {"text": [words[0]], "answer_start": [0]}
    return {"id": f"q{index}", "question": _sentence(draw, 5), "context": " ".join(words), "answers": answer}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
