"""Post-training dynamic INT8 of a checkpoint, and how far it is from the float one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from stages.artifacts import atomic_path
from stages.cards.card import Card
from stages.compression.int8 import Int8Linear
from stages.compression.loading import load_masked_lm
from stages.compression.quantizer import DynamicInt8Config, linear_layers
from stages.distillation.corpus import load_blocks
from stages.reading import load_tokenizer

COMPARED_BLOCKS = 8  # enough tokens for two digits of the errors


@dataclass(frozen=True)
class Comparison:
    """Text for the comparison of the float and the INT8 model: a parquet file, and tokens a block."""

    text: Path
    block_length: int


def quantize(model: PreTrainedModel, granularity: Literal["tensor", "channel"]) -> float:
    """Quantize the Linear layers in place and return the mean over the matrices of |W - Q| / |W| (Frobenius).

    This is where the method is chosen. The vocabulary projection is quantized and its twin, the embedding, stays
    float, as published. torchao's dynamic INT8 was measured beside it (`benchmarks/int8_backends.py`, figures in
    docs/results.md): compiled it is as fast, uncompiled slower, its error is a little larger, and it is one more
    dependency.
    """
    errors = []
    for parent, name, linear in linear_layers(model):
        made = Int8Linear.of(linear, granularity)
        norm = linear.weight.detach().norm()
        errors.append(float((made.dequantized() - linear.weight.detach()).norm() / norm) if norm > 0 else 0.0)
        setattr(parent, name, made)
    model.config.tie_word_embeddings = False  # the integers of the projection are no embedding
    model.config.quantization_config = DynamicInt8Config(granularity=granularity)
    return sum(errors) / len(errors)


def quantize_checkpoint(
    model: PreTrainedModel,
    source: Path,
    target: Path,
    granularity: Literal["tensor", "channel"],
    comparison: Comparison,
    card: Card,
) -> dict[str, Any]:
    """Quantize the model of folder `source` in place and write it with its tokenizer and card to `target`.

    Returns its errors against the float model and the bytes of both files.
    """
    tokenizer = load_tokenizer(source)
    blocks = load_blocks(comparison.text, tokenizer, comparison.block_length).ids[-COMPARED_BLOCKS:]
    ids = torch.from_numpy(blocks.astype(np.int64))
    expected = _logits(model, ids)
    weight_error = quantize(model, granularity)
    with atomic_path(target) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        card.write(temporary)
    logits = _logits(load_masked_lm(target), ids)
    return {
        "weight_error": weight_error,
        "logit_error": float((logits - expected).norm() / expected.norm()),
        "top1_agreement": float((logits.argmax(-1) == expected.argmax(-1)).float().mean()),
        "bytes": (target / "model.safetensors").stat().st_size,
        "float_bytes": (source / "model.safetensors").stat().st_size,
    }


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Return logits (blocks, length, vocabulary)."""
    return torch.cat([model(input_ids=row[None]).logits for row in ids])
