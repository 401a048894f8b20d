"""Leaving out of a classifier's last layer what no output depends on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel


@contextmanager
def first_token_only(model: PreTrainedModel) -> Iterator[None]:
    """Compute the last layer's feed-forward network for the first token alone, which is all that the head reads.

    Logits and gradients are the same but for rounding, and for dropout's noise where it is drawn. The network is up to
    two thirds of a layer's work: a ninth of a six-layer encoder's. BERT and DistilBERT, shrunken or not, leave it out;
    other models compute all of it.
    """
    norm = _attention_norm(model)
    if norm is None:
        yield
        return
    handle = norm.register_forward_hook(_first)
    try:
        yield
    finally:
        handle.remove()


def _attention_norm(model: PreTrainedModel) -> nn.Module | None:
    """Return what comes between the last layer's attention and its feed-forward network."""
    encoder: Any = model.base_model
    if model.config.model_type == "bert":
        found: nn.Module = encoder.encoder.layer[-1].attention.output.LayerNorm
    elif model.config.model_type in ("distilbert", "distilbert_shrunken"):
        found = encoder.transformer.layer[-1].sa_layer_norm
    else:
        return None
    return found


def _first(_: nn.Module, __: Any, hidden: torch.Tensor) -> torch.Tensor:
    return hidden[:, :1]  # of [rows, tokens, width]
