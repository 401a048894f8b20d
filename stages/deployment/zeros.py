"""Fine-tuning that leaves a pruned model pruned."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback


class KeepZeros(TrainerCallback):
    """Sets the Linear weights that are zero when training begins back to zero after every update."""

    def __init__(self) -> None:
        self._pruned: list[tuple[Tensor, Tensor]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note where the model has zeros."""
        weights = [module.weight for module in kwargs["model"].modules() if isinstance(module, nn.Linear)]
        self._pruned = [(weight, weight == 0) for weight in weights if bool((weight == 0).any())]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Undo what the update did to them."""
        with torch.no_grad():
            for weight, zero in self._pruned:
                weight.masked_fill_(zero, 0.0)
