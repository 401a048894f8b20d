"""Structured pruning: whole attention heads and FFN columns go, so that the network itself is smaller.

Shapes: B blocks of L tokens, H heads of size D, F columns of the FFN's hidden layer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertForMaskedLM, PreTrainedModel

from stages.modeling.shrunken import ShrunkenDistilBertConfig, ShrunkenDistilBertForMaskedLM

LANE = 8  # widths from LANE * LANE on are multiples of it, since kernels work on so many numbers at once


@dataclass(frozen=True)
class Importance:
    """A score for each head (H,) and each FFN column (F,) of every layer."""

    heads: list[Tensor]
    columns: list[Tensor]


def importance(model: PreTrainedModel, losses: Iterator[Callable[[], Tensor]]) -> Importance:
    """Score heads and columns by the sum over blocks of |sum over positions of activation * gradient of the loss|.

    That is the first-order (Taylor) change of the loss when the unit is removed: for heads the importance of Michel et
    al. 2019, section 4.1, whose mean over blocks ranks as the sum does (their scaling by layer does not matter to a
    ranking within layers); for columns Molchanov et al. 2017. Each of `losses` runs the model on a few blocks and
    returns their loss; where that is their share of a mean over all blocks, the sum is the mean. The activations are
    the inputs of the output projections, after which nothing but a sum is left of a unit.
    """
    encoder: Any = model.distilbert
    blocks = encoder.transformer.layer
    size = blocks[0].attention.attention_head_size
    heads = [torch.zeros(block.attention.out_lin.in_features // size) for block in blocks]
    columns = [torch.zeros(block.ffn.lin2.in_features) for block in blocks]
    with _inputs_of([*(b.attention.out_lin for b in blocks), *(b.ffn.lin2 for b in blocks)]) as seen:
        for loss in losses:
            model.zero_grad()
            loss().backward()  # type: ignore[no-untyped-call]
            changes = [_change(tensor) for tensor in seen]
            for layer in range(len(blocks)):
                by_head = changes[layer].view(-1, len(heads[layer]), size).sum(2)
                heads[layer] += by_head.abs().sum(0).cpu()
                columns[layer] += changes[len(blocks) + layer].abs().sum(0).cpu()
    model.zero_grad()
    return Importance(heads, columns)


def _change(activation: Tensor) -> Tensor:
    """Return the sum over positions of activation (B, L, units) times gradient, as (B, units)."""
    assert activation.grad is not None
    return (activation.detach() * activation.grad).sum(1)


@contextmanager
def _inputs_of(modules: list[nn.Module]) -> Iterator[list[Tensor]]:
    """Yield a list that each forward fills with the modules' inputs, whose gradients are kept."""
    seen: list[Tensor] = [torch.empty(0)] * len(modules)

    def hook(position: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            inputs[0].retain_grad()
            seen[position] = inputs[0]

        return keep

    handles = [module.register_forward_pre_hook(hook(position)) for position, module in enumerate(modules)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def kept_width(width: int, amount: float) -> int:
    """Return how many of a layer's columns stay: round((1 - amount) * width), at least 1; large ones in eights."""
    exact = max(1, round((1.0 - amount) * width))
    return exact if amount == 0.0 or exact < LANE * LANE else min(width, LANE * round(exact / LANE))


def kept_heads(heads: int, amount: float) -> int:
    """Return how many of a layer's heads stay: round((1 - amount) * heads), at least 1."""
    return max(1, round((1.0 - amount) * heads))


def best(scores: Tensor, count: int) -> Tensor:
    """Return the indices (count,) of the highest scores in ascending order; of equal ones the first."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def shrink(model: PreTrainedModel, units: Importance, heads: int, columns: int) -> PreTrainedModel:
    """Return a model with the `heads` and `columns` of each layer that score highest; `model` is left as it is.

    With all heads kept it is a plain DistilBERT with a smaller `hidden_dim`.
    """
    state = model.state_dict()
    size = model.config.dim // model.config.n_heads
    for layer, (head_scores, column_scores) in enumerate(zip(units.heads, units.columns, strict=True)):
        name = f"distilbert.transformer.layer.{layer}"
        rows = (best(head_scores, heads)[:, None] * size + torch.arange(size)).flatten()
        _select(state, f"{name}.attention", ("q_lin", "k_lin", "v_lin"), "out_lin", rows)
        _select(state, f"{name}.ffn", ("lin1",), "lin2", best(column_scores, columns))
    smaller = _empty(model, size, heads, columns)
    smaller.load_state_dict(state)
    smaller.train(model.training)
    return smaller


def _select(state: dict[str, Tensor], name: str, into: tuple[str, ...], out_of: str, units: Tensor) -> None:
    """Keep some units: rows of the matrices that lead into them, columns of the one that leads out."""
    for matrix in into:
        for kind in ("weight", "bias"):
            state[f"{name}.{matrix}.{kind}"] = state[f"{name}.{matrix}.{kind}"][units]
    state[f"{name}.{out_of}.weight"] = state[f"{name}.{out_of}.weight"][:, units]


def _empty(model: PreTrainedModel, size: int, heads: int, columns: int) -> PreTrainedModel:
    values: dict[str, Any] = model.config.to_dict() | {"hidden_dim": columns}
    if heads == model.config.n_heads:
        return DistilBertForMaskedLM(DistilBertConfig(**values))
    values |= {"model_type": ShrunkenDistilBertConfig.model_type, "head_size": size, "kept_heads": heads}
    return ShrunkenDistilBertForMaskedLM(ShrunkenDistilBertConfig(**values))
