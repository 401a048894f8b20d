"""Sentences and sentence pairs as token ids."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.core.errors import UserError
from stages.finetuning.tasks import Task

Row = Mapping[str, Any]
Features = dict[str, Any]  # of one row: input_ids, labels, token_type_ids where the model takes them


def encode(
    rows: Sequence[Row], task: Task, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, max_length: int
) -> list[Features]:
    """Tokenise a task's rows to at most `max_length` ids with the special ones; pairs are cut longest first.

    Raises UserError if the model has fewer positions than `max_length`.
    """
    check_length(model, max_length)
    if not rows:
        return []
    text = [[row[column] for row in rows] for column in task.text]
    encoded = tokenizer(
        *text,
        truncation="longest_first",
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=takes_token_types(model),
    )
    label = float if task.regression else int
    return [
        {**{name: ids[index] for name, ids in encoded.items()}, "labels": label(row["label"])}
        for index, row in enumerate(rows)
    ]


def takes_token_types(model: PreTrainedModel) -> bool:
    """Whether the model tells the two texts of a pair apart by token types; DistilBERT does not."""
    return "token_type_ids" in signature(model.forward).parameters


def check_length(model: PreTrainedModel, max_length: int) -> None:
    """Raise UserError if the model has fewer positions than `max_length`."""
    positions = model.config.max_position_embeddings
    if max_length > positions:
        raise UserError(f"params.yaml: finetune.max_length {max_length} exceeds the model's {positions} positions")
