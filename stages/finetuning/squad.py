"""SQuAD as token ids: overlapping windows over a context, labels by character span, and answers out of logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.core.errors import UserError
from stages.finetuning.features import Features, Row, check_length, takes_token_types

MAX_QUESTION_LENGTH = 64  # tokens, as in BERT's own SQuAD code
SPECIAL_TOKENS = 3  # [CLS] question [SEP] context [SEP]


@dataclass(frozen=True)
class Window:
    """A question with a part of its context.

    `row` is the question's index, `first` the input position of the first context token, `spans` holds the context
    tokens' character spans [tokens, 2] in the whole context.
    """

    row: int
    features: Features
    first: int
    spans: NDArray[np.int64]


def make_windows(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    max_length: int,
    doc_stride: int,
    labelled: bool,
) -> list[Window]:
    """Cut every question's context into windows of at most `max_length` ids that share `doc_stride` context tokens.

    A question keeps at most 64 tokens and half of the window; a long one lowers the overlap to half of what is left.
    With `labelled`, windows carry the token positions of the first answer, or of [CLS] where they do not hold it whole.
    Raises UserError if the model has fewer positions than `max_length` or the windows could not advance.
    """
    check_length(model, max_length)
    if doc_stride >= max_length - SPECIAL_TOKENS:
        raise UserError(
            f"params.yaml: squad.tasks.SQuAD.doc_stride {doc_stride} must be below "
            f"max_length - {SPECIAL_TOKENS} = {max_length - SPECIAL_TOKENS}"
        )
    questions = _token_ids(tokenizer, [row["question"] for row in rows])
    contexts = _tokenised_contexts(tokenizer, rows)
    longest = min(MAX_QUESTION_LENGTH, (max_length - SPECIAL_TOKENS) // 2)
    typed = takes_token_types(model)
    windows = []
    for index, (row, question) in enumerate(zip(rows, questions, strict=True)):
        ids, spans = contexts[row["context"]]
        head = [tokenizer.cls_token_id, *question[:longest], tokenizer.sep_token_id]
        for part in _parts(len(ids), max_length - len(head) - 1, doc_stride):
            features: Features = {"input_ids": [*head, *ids[part], tokenizer.sep_token_id]}
            if typed:
                features["token_type_ids"] = [0] * len(head) + [1] * (len(features["input_ids"]) - len(head))
            if labelled:
                start, end = _label(row, spans[part], len(head))
                features |= {"start_positions": start, "end_positions": end}
            windows.append(Window(index, features, len(head), spans[part]))
    return windows


def best_answers(
    rows: Sequence[Row],
    windows: Sequence[Window],
    start_logits: Sequence[NDArray[np.float32]],
    end_logits: Sequence[NDArray[np.float32]],
    max_answer_length: int,
    n_best: int,
) -> list[str]:
    """Answer each question with the context span of the highest start + end logit over all its windows.

    Logits are [positions] for each window; candidates are the `n_best` starts and ends among a window's context tokens.
    A question without any pair of at most `max_answer_length` tokens is answered with the empty text.
    """
    answers, scores = [""] * len(rows), [-np.inf] * len(rows)
    for window, starts, ends in zip(windows, start_logits, end_logits, strict=True):
        context = slice(window.first, window.first + len(window.spans))
        found = best_span(starts[context], ends[context], max_answer_length, n_best)
        if found is not None and found[0] > scores[window.row]:
            score, first, last = found
            scores[window.row] = score
            answers[window.row] = rows[window.row]["context"][window.spans[first, 0] : window.spans[last, 1]]
    return answers


def best_span(
    starts: NDArray[np.float32], ends: NDArray[np.float32], max_answer_length: int, n_best: int
) -> tuple[float, int, int] | None:
    """Find the best pair of the `n_best` starts and ends of logits [tokens]: score, first, last; None if none fits."""
    first = np.argsort(-starts, kind="stable")[:n_best, None]
    last = np.argsort(-ends, kind="stable")[None, :n_best]
    fits = (last >= first) & (last - first < max_answer_length)
    if not fits.any():
        return None
    scores = np.where(fits, starts[first] + ends[last], -np.inf)
    row, column = np.unravel_index(np.argmax(scores), scores.shape)
    return float(scores[row, column]), int(first[row, 0]), int(last[0, column])


def _parts(tokens: int, room: int, overlap: int) -> list[slice]:
    """Slices of at most `room` tokens that cover `tokens` and share `overlap`, or room // 2 if that is less."""
    step = room - min(overlap, room // 2)
    starts = range(0, max(tokens - room, 0) + step, step)
    return [slice(start, min(start + room, tokens)) for start in starts]


def _label(row: Row, spans: NDArray[np.int64], first: int) -> tuple[int, int]:
    """Locate the first answer: input positions of its first and last token, (0, 0), [CLS], if it is not wholly here."""
    begin = row["answers"]["answer_start"][0]
    end = begin + len(row["answers"]["text"][0])
    inside = np.flatnonzero((spans[:, 1] > begin) & (spans[:, 0] < end))
    if not len(inside) or spans[0, 0] > begin or spans[-1, 1] < end:
        return 0, 0
    return first + int(inside[0]), first + int(inside[-1])


def _token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _tokenised_contexts(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]
) -> dict[str, tuple[list[int], NDArray[np.int64]]]:
    """Token ids and character spans of every distinct context: several questions share one."""
    contexts = list(dict.fromkeys(row["context"] for row in rows))
    encoded = tokenizer(contexts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans = [np.array(offsets, dtype=np.int64).reshape(-1, 2) for offsets in encoded["offset_mapping"]]
    return dict(zip(contexts, zip(encoded["input_ids"], spans, strict=True), strict=True))
