"""Zeros among the Linear weights: how many there are, and keeping them while a pruned model learns again."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.modeling.int8 import Int8Linear


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


class KeepZeros(TrainerCallback):
    """Sets the Linear weights that are zero when training begins to zero again after each update."""

    def __init__(self) -> None:
        self._zeros: list[tuple[torch.Tensor, torch.Tensor]] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note where the model has zeros."""
        weights = prunable_weights(kwargs["model"]).values()
        self._zeros = [(weight, weight == 0.0) for weight in weights if bool((weight == 0.0).any())]

    @torch.no_grad()
    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Undo what the optimizer did to them."""
        for weight, zero in self._zeros:
            weight.masked_fill_(zero, 0.0)
