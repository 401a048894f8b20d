"""The three ways to prune a student, and what is reported of the result."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DistilBertForMaskedLM, PreTrainedModel

from stages.compression.magnitude import prune_magnitude
from stages.compression.recovery import with_states
from stages.compression.structured import Importance, importance, kept_heads, kept_width, shrink
from stages.compression.vocabulary import choose_tokens, count_tokens, coverage, trim_model, trim_tokenizer
from stages.core.errors import UserError
from stages.core.params import Params
from stages.distillation.corpus import load_blocks
from stages.distillation.distilling import Inputs, student_masking, triple_loss
from stages.distillation.masking import Batch, held_out_batches, held_out_rows
from stages.distillation.models import BertStates
from stages.distillation.objectives import TripleLoss
from stages.distillation.trainer import Counts


@dataclass(frozen=True)
class Pruned:
    """A pruned student, the inputs that it recovers with, and what is told of it beside its size."""

    model: PreTrainedModel
    inputs: Inputs
    kept: dict[str, float] = field(default_factory=dict)


def prune(model: PreTrainedModel, inputs: Inputs, params: Params, corpus: Path) -> Pruned:
    """Prune a student by `prune.method`; `corpus` is the folder that the blocks of `inputs` were packed from."""
    if params.prune.method == "magnitude":
        prune_magnitude(model, params.prune.amount)
        return Pruned(model, inputs)
    if params.prune.method == "structured":
        return _structured(model, inputs, params)
    return _vocabulary(model, inputs, params, corpus)


def _structured(model: PreTrainedModel, inputs: Inputs, params: Params) -> Pruned:
    settings = params.prune
    heads = kept_heads(model.config.n_heads, settings.amount) if settings.heads else model.config.n_heads
    columns = kept_width(model.config.hidden_dim, settings.amount)
    kept = {"heads": heads, "ffn_columns": columns}
    if settings.amount == 0.0:
        return Pruned(model, inputs, kept)
    return Pruned(shrink(model, rank(model, inputs, params), heads, columns), inputs, kept)


def rank(model: PreTrainedModel, inputs: Inputs, params: Params) -> Importance:
    """Score heads and FFN columns by the triple loss on held-out blocks that nothing is measured on.

    Raises UserError if no such block is left.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    states = with_states(model)
    states.to(device)  # type: ignore[arg-type]
    return importance(states, _losses(states, inputs, params, device))


def _losses(states: Any, inputs: Inputs, params: Params, device: torch.device) -> Iterator[Callable[[], Tensor]]:
    """Yield a loss a batch: its share of the mean over all blocks, without dropout, in fp32."""
    blocks = replace(inputs.dev, ids=inputs.dev.ids[ranking_rows(len(inputs.dev), params)])
    batches = held_out_batches(blocks, student_masking(inputs, params), len(blocks), params.batch_size)
    counts = Counts(*(float(sum(len(batch[name]) for batch in batches)) for name in ("labels", "order")))
    objective = triple_loss(inputs, params, torch.float32, device)
    for batch in batches:
        there = {name: value.to(device) for name, value in batch.items()}
        yield partial(_loss, objective, states, there, counts)


def ranking_rows(blocks: int, params: Params) -> NDArray[np.int64]:
    """Return at most `prune.importance_blocks` of so many held-out blocks, evenly spaced over those not measured.

    Measured are those of the curve (`distill.eval_blocks`) and of quality-eval (`quality_eval.blocks`), so that no
    figure is of text that chose what to remove. Raises UserError if they are all.
    """
    curve, quality = params.distill.eval_blocks, params.quality_eval.blocks
    measured = [held_out_rows(blocks, limit) for limit in (curve, quality)]
    others = np.setdiff1d(np.arange(blocks), np.concatenate(measured))
    if not len(others):
        raise UserError(
            f"params.yaml: prune.importance_blocks: none of the {blocks} held-out blocks is left to rank by, since "
            f"distill.eval_blocks {curve} and quality_eval.blocks {quality} take them all; lower them or use more text"
        )
    return others[held_out_rows(len(others), params.prune.importance_blocks)]


def _loss(objective: TripleLoss, states: Any, batch: Batch, counts: Counts) -> Tensor:
    """Return the weighted sum of the losses alone."""
    return objective.training(states, states, batch, counts)[0]


def _vocabulary(model: PreTrainedModel, inputs: Inputs, params: Params, corpus: Path) -> Pruned:
    settings, tokenizer = params.prune, inputs.tokenizer
    text = settings.vocabulary_text
    counts = count_tokens(text, tokenizer) if text else inputs.train.counts
    kept = choose_tokens(counts, model.config.vocab_size, tokenizer, settings.amount)
    smaller = trim_tokenizer(tokenizer, kept)
    train, dev = (
        load_blocks(corpus / f"{split}.parquet", smaller, params.distill.block_length) for split in ("train", "dev")
    )
    teacher = trim_model(inputs.teacher, kept, BertStates)
    trimmed = trim_model(model, kept, DistilBertForMaskedLM)
    return Pruned(trimmed, Inputs(teacher, smaller, train, dev), {"tokens": len(kept), **coverage(counts, kept)})
