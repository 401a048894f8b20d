"""Post-training dynamic INT8 of a checkpoint, and how far it is from the float one."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.cards.card import Card
from stages.core.artifacts import atomic_path
from stages.core.reading import load_tokenizer
from stages.distillation.corpus import load_blocks
from stages.modeling.int8 import Int8Linear
from stages.modeling.loading import load_masked_lm
from stages.modeling.quantizer import DynamicInt8Config, linear_layers

COMPARED_BLOCKS = 8  # enough tokens for two digits of the errors


@dataclass(frozen=True)
class Source:
    """A float checkpoint's folder, model and tokenizer, and token ids (blocks, length) to compare the INT8 one on."""

    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    ids: Tensor


def load_source(folder: Path, text: Path, block_length: int) -> Source:
    """Load a checkpoint and the last blocks of a parquet file; UserError if anything is missing or damaged."""
    model, tokenizer = load_masked_lm(folder), load_tokenizer(folder)
    blocks = load_blocks(text, tokenizer, block_length).ids[-COMPARED_BLOCKS:]
    return Source(folder, model, tokenizer, torch.from_numpy(blocks.astype(np.int64)))


def quantize(model: PreTrainedModel, granularity: Literal["tensor", "channel"]) -> float:
    """Quantize the Linear layers in place and return the mean over the matrices of |W - Q| / |W| (Frobenius).

    This is where the method is chosen. The vocabulary projection is quantized and its twin, the embedding, stays
    float, as published. torchao's dynamic INT8 was measured beside it (`benchmarks/int8_backends.py`, figures in
    docs/results.md): its error is a little larger, 2.55 against 2.43 %, compiled it is as fast, uncompiled slower, and
    it is one more dependency. `Int8Linear` stands on `torch.ops.quantized`, whose quantized tensors a later PyTorch
    will drop, while the file holds plain integers and scales: what breaks then is `Int8Linear.pack` and its forward,
    and the version of torch is pinned until they call another kernel, such as torchao's.
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
    source: Source, target: Path, granularity: Literal["tensor", "channel"], card: Card
) -> dict[str, Any]:
    """Quantize a model in place and write it to `target`, with its tokenizer and the card, to which figures are added.

    Returns these: its errors against the float model and the bytes of both files.
    """
    expected = _logits(source.model, source.ids)
    weight_error = quantize(source.model, granularity)
    with atomic_path(target) as temporary:
        source.model.save_pretrained(temporary)
        source.tokenizer.save_pretrained(temporary)
        logits = _logits(load_masked_lm(temporary), source.ids)
        metrics = {
            "weight_error": weight_error,
            "logit_error": float((logits - expected).norm() / expected.norm()),
            "top1_agreement": float((logits.argmax(-1) == expected.argmax(-1)).float().mean()),
            "bytes": (temporary / "model.safetensors").stat().st_size,
            "float_bytes": (source.folder / "model.safetensors").stat().st_size,
        }
        replace(card, figures=metrics).write(temporary)
    return metrics


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Return logits (blocks, length, vocabulary)."""
    return torch.cat([model(input_ids=row[None]).logits for row in ids])
