"""Post-training dynamic INT8 of a checkpoint, and how far it is from the float one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from stages.artifacts import atomic_path
from stages.compression.int8 import Int8Linear
from stages.compression.loading import load_masked_lm
from stages.compression.quantizer import DynamicInt8Config, linear_layers
from stages.distillation.corpus import load_blocks

COMPARED_BLOCKS = 8  # enough tokens for two digits of the errors


@dataclass(frozen=True)
class Comparison:
    """Text for the comparison of the float and the INT8 model: a parquet file, and tokens a block."""

    text: Path
    block_length: int


def quantize(model: PreTrainedModel, granularity: Literal["tensor", "channel"]) -> float:
    """Quantize the Linear layers in place and return the mean over the matrices of |W - Q| / |W| (Frobenius).

    This is where the method is chosen. The vocabulary projection is quantized and its twin, the embedding, stays
    float, as published. torchao's dynamic INT8, compiled, was measured beside torch.ao's, which runs these kernels
    with inputs of 7 bits: 48 against 35 ms for 64 tokens at the published size, relative error 2.6 against 4.2 %,
    155.1 against 154.8 MiB. With 8 bits most of that error goes too, and torchao is one more dependency.
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
    source: Path, target: Path, granularity: Literal["tensor", "channel"], comparison: Comparison
) -> dict[str, Any]:
    """Write `source` in INT8 with its tokenizer to `target`; returns errors against `source` and the file's bytes."""
    model = load_masked_lm(source)
    tokenizer = AutoTokenizer.from_pretrained(source)
    blocks = load_blocks(comparison.text, tokenizer, comparison.block_length).ids[-COMPARED_BLOCKS:]
    ids = torch.from_numpy(blocks.astype(np.int64))
    expected = _logits(model, ids)
    weight_error = quantize(model, granularity)
    with atomic_path(target) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    del model
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
