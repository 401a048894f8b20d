"""Loading a masked language model, compressed or not, and what it holds."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

import stages.compression  # noqa: F401 - registers the classes of what the stages write
from stages.compression.int8 import Int8Linear
from stages.reading import readable, require_all_weights


def load_masked_lm(folder: Path) -> PreTrainedModel:
    """Load a checkpoint folder such as models/combined, to evaluate; UserError if it is missing or damaged."""
    with readable(folder):
        loaded: Any = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    model, info = loaded
    require_all_weights(folder, info["missing_keys"])
    made: PreTrainedModel = model.train(False)
    return made


def prunable_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the weights (out, in), or their integers, of all Linear layers but the vocabulary projection, by name.

    The projection is left alone because it is the embedding's matrix: its zeros would be zeros of the tokens' vectors.
    """
    projection = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    weights = {}
    for name, module in model.named_modules():
        if module is projection:
            continue
        if isinstance(module, Int8Linear):
            weights[name] = module.stored()[0]
        elif isinstance(module, nn.Linear):
            weights[name] = module.weight
    return weights


def sparsity(model: PreTrainedModel) -> float:
    """Return the share of zeros of the Linear weights, the vocabulary projection apart."""
    weights = prunable_weights(model).values()
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def parameter_count(model: PreTrainedModel) -> int:
    """Return how many weights and biases the model has, a matrix that is used twice counted once.

    An INT8 vocabulary projection is the float embedding a second time, so only its bias counts: the number is the
    same before and after quantization, whose scales are no parameters.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    projection = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    for module in model.modules():
        if isinstance(module, Int8Linear):
            matrix = 0 if module is projection else module.in_features * module.out_features
            total += matrix + module.out_features
    return total
