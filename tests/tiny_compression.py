"""A small student, its project folder and text for the tests of `prune` and `quantize`."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from tiny_distillation import SPECIAL, WORDS, make_project, tokenizer, write_params
from transformers import DistilBertConfig, DistilBertForMaskedLM, PreTrainedModel

from stages import prune

IDS = torch.randint(5, 150, (3, 16), generator=torch.Generator().manual_seed(1))


def student(**changes: Any) -> DistilBertForMaskedLM:
    """A random DistilBERT, in evaluation mode, whose biases are random too."""
    torch.manual_seed(5)
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 32}
    model = DistilBertForMaskedLM(DistilBertConfig(**{"vocab_size": len(SPECIAL + WORDS), **sizes, **changes})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" not in name and "LayerNorm" not in name:
                parameter.normal_(std=0.2)
    return model


@torch.no_grad()
def logits(model: PreTrainedModel, ids: torch.Tensor = IDS) -> torch.Tensor:
    result: torch.Tensor = model(input_ids=ids).logits
    return result


def make_student_project(folder: Path, **changes: Any) -> None:
    """Lay out parameters, corpus, models/bert and models/distilbert."""
    make_project(folder, **changes)
    student().save_pretrained(folder / "models/distilbert")
    tokenizer().save_pretrained(folder / "models/distilbert")


def run_prune(folder: Path, **changes: Any) -> dict[str, Any]:
    """Run the stage in the current folder as DVC does, without what it wrote before; returns its metrics."""
    write_params(folder, **changes)
    shutil.rmtree(folder / "plots/prune", ignore_errors=True)
    prune.main()
    metrics: dict[str, Any] = json.loads((folder / "metrics/prune.json").read_text())
    return metrics
