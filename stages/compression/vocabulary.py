"""A smaller vocabulary: tokenizer, embedding and vocabulary projection lose the same tokens.

WordPiece takes the longest token that matches at each position, so text whose tokens are all kept is tokenised as
before; other text falls into shorter tokens or [UNK].
"""

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from stages.core.errors import UserError
from stages.sources.files import existing, text_batches

Model = TypeVar("Model", bound=PreTrainedModel)
VOCABULARY_ROWS = (
    "embeddings.word_embeddings.weight",
    "vocab_projector.weight",
    "vocab_projector.bias",
    "predictions.decoder.weight",
    "predictions.decoder.bias",
    "predictions.bias",
)  # of DistilBERT and BERT
CHARACTER, OTHER, LAST = range(3)  # the order in which tokens that the text lacks fill up
RESERVED = re.compile(r"\[unused\d+\]")  # BERT's


def count_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int64]:
    """Count each token (vocabulary,) in a parquet or jsonl file's `text` or a txt file; UserError if it is none."""
    (path,) = existing([text], (".parquet", ".jsonl", ".txt"))
    counts = np.zeros(len(tokenizer), np.int64)
    for batch in text_batches(path, "text"):
        rows = [row for row in batch.to_pylist() if row]
        ids = tokenizer(rows, add_special_tokens=False, truncation=False, verbose=False)["input_ids"] if rows else []
        counts += np.bincount([token for row in ids for token in row], minlength=len(counts))
    if not counts.any():
        raise UserError(f"params.yaml: prune.vocabulary_text: {text} holds no text")
    return counts


def choose_tokens(
    counts: NDArray[np.int64], vocab_size: int, tokenizer: PreTrainedTokenizerBase, amount: float
) -> NDArray[np.int64]:
    """Return ids to keep, ascending: special ones, then the most frequent, single characters, and the others by id.

    Characters come first of what the text lacks, since any word can be spelt with them; reserved names such as
    [unused0] come last. They are round((1 - amount) * vocab_size) in number, or as many as there are special and added
    ones if that is more.
    """
    always = sorted({*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()})
    frequency = np.zeros(vocab_size, np.int64)
    frequency[: len(counts)] = counts
    frequency[always] = np.iinfo(np.int64).max
    size = max(round((1.0 - amount) * vocab_size), len(always))
    rank = np.full(vocab_size, OTHER)
    for token, index in tokenizer.get_vocab().items():
        if RESERVED.fullmatch(token):
            rank[index] = LAST
        elif len(token.removeprefix("##")) == 1:
            rank[index] = CHARACTER
    return np.sort(np.lexsort((np.arange(vocab_size), rank, -frequency))[:size])


def coverage(counts: NDArray[np.int64], kept: NDArray[np.int64]) -> dict[str, float]:
    """Tell how many of the text's distinct tokens are kept, and which share of the running text they are."""
    found = counts[kept[kept < len(counts)]]
    return {
        "text_tokens": int((counts > 0).sum()),
        "text_tokens_kept": int((found > 0).sum()),
        "text_covered": float(found.sum() / counts.sum()),
    }


def trim_model(model: Model, kept: NDArray[np.int64], make: Callable[[Any], Model]) -> Model:
    """Return a model that `make` builds of a configuration, with the vocabulary rows `kept`; `model` stays as it is."""
    config = type(model.config)(**model.config.to_dict())
    config.vocab_size = len(kept)
    if config.pad_token_id is not None:
        config.pad_token_id = int(np.searchsorted(kept, config.pad_token_id))
    config._attn_implementation = model.config._attn_implementation
    rows = torch.from_numpy(kept)
    state = {
        name: value[rows] if name.endswith(VOCABULARY_ROWS) else value for name, value in model.state_dict().items()
    }
    smaller = make(config)
    smaller.load_state_dict(state)
    smaller.train(model.training)
    return smaller


def trim_tokenizer(tokenizer: PreTrainedTokenizerBase, kept: NDArray[np.int64]) -> PreTrainedTokenizerBase:
    """Return a tokenizer of the tokens `kept`, numbered in their order, with all else as it was."""
    new_ids = {int(old): new for new, old in enumerate(kept)}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        path = Path(folder) / "tokenizer.json"
        state = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(renumbered(state, new_ids), ensure_ascii=False), encoding="utf-8")
        return AutoTokenizer.from_pretrained(folder)


def renumbered(state: dict[str, Any], new_ids: dict[int, int]) -> dict[str, Any]:
    """Return the content of a tokenizer.json with the new ids everywhere that ids stand."""
    if state["model"]["type"] != "WordPiece":
        raise UserError(f"prune.method vocabulary needs a WordPiece tokenizer, this is {state['model']['type']}")
    vocabulary = state["model"]["vocab"]
    state["model"]["vocab"] = {token: new_ids[old] for token, old in vocabulary.items() if old in new_ids}
    for token in state["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    _renumber_processor(state["post_processor"], new_ids)
    return state


def _renumber_processor(processor: dict[str, Any] | None, new_ids: dict[int, int]) -> None:
    """Change the ids in what adds [CLS] and [SEP], in place; UserError if it is of a kind that is not known."""
    kind = None if processor is None else processor["type"]
    if processor is None or kind == "ByteLevel":  # which hold no ids
        return
    if kind == "Sequence":
        for part in processor["processors"]:
            _renumber_processor(part, new_ids)
    elif kind == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [new_ids[old] for old in token["ids"]]
    elif kind in ("BertProcessing", "RobertaProcessing"):  # [token, id]
        for name in ("sep", "cls"):
            processor[name][1] = new_ids[processor[name][1]]
    else:
        raise UserError(f"prune.method vocabulary: this tokenizer's post_processor {kind} is of no known kind")
