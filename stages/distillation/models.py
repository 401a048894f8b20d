"""Masked language models that stop before the vocabulary projection, which `losses` does in chunks.

Tokens are indexed first: B blocks of L tokens, K positions that a loss sees, H hidden size.
"""

from typing import Any, cast

import torch
from torch import Tensor
from transformers import BertForMaskedLM, DistilBertForMaskedLM

from stages.distillation.losses import Projection


class BertStates(BertForMaskedLM):  # type: ignore[no-untyped-call]
    """BERT whose forward yields hidden states (B * L, H) and those that the MLM head projects (K, H)."""

    def forward(self, input_ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, L) token ids without padding; `positions` (K,) are flat."""
        hidden = self.bert(input_ids=input_ids).last_hidden_state.flatten(0, 1)
        return hidden, self.cls.predictions.transform(hidden[positions])

    def project(self, states: Tensor) -> Projection:
        """Apply the head's projection of states (K, H) to the vocabulary."""
        decoder = self.cls.predictions.decoder
        return Projection(states, decoder.weight, decoder.bias)


class StudentStates:
    """Mixin for a DistilBERT-shaped MLM class, whose forward then yields (B * L, H) hidden states and (K, H) others."""

    distilbert: Any
    vocab_transform: Any
    vocab_layer_norm: Any
    vocab_projector: Any
    activation: Any

    def forward(self, input_ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, L) token ids without padding; `positions` (K,) are flat."""
        hidden = self.distilbert(input_ids=input_ids).last_hidden_state.flatten(0, 1)
        return hidden, self.vocab_layer_norm(self.activation(self.vocab_transform(hidden[positions])))

    def project(self, states: Tensor) -> Projection:
        """Apply the head's projection of states (K, H) to the vocabulary."""
        return Projection(states, self.vocab_projector.weight, self.vocab_projector.bias)


class DistilBertStates(StudentStates, DistilBertForMaskedLM):  # type: ignore[no-untyped-call]
    """DistilBERT whose forward yields hidden states (B * L, H) and those that the MLM head projects (K, H)."""


class FrozenTeacher:
    """A teacher that only answers, with its matrices kept in the type that it computes in."""

    def __init__(self, model: BertStates, compute_dtype: torch.dtype, device: torch.device) -> None:
        self.model = model.train(False).requires_grad_(False).to(device)
        self.compute_dtype = compute_dtype
        decoder = model.cls.predictions.decoder
        self.weight, self.bias = decoder.weight.to(compute_dtype), decoder.bias.to(compute_dtype)
        for module in (*model.bert.encoder.modules(), model.cls.predictions.transform.dense):
            if isinstance(module, torch.nn.Linear):  # what autocast would do anew in every step
                module.to(compute_dtype)

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, positions: Tensor) -> tuple[Tensor, Projection]:
        """Hidden states (B * L, H) and the projection of the states (K, H) at `positions`."""
        with torch.autocast(input_ids.device.type, self.compute_dtype, enabled=self.compute_dtype == torch.bfloat16):
            hidden, states = cast(tuple[Tensor, Tensor], self.model(input_ids, positions))
        return hidden, Projection(states.to(self.compute_dtype), self.weight, self.bias)
