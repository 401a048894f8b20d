"""Running text, tokenised once into equal blocks in a memory map that later runs reuse."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from stages.core.artifacts import atomic_path, digest, read_json, readable_parquet, write_json
from stages.core.errors import UserError

BLOCKS_CACHE = Path(".cache/blocks")
FORMAT_VERSION = 1  # part of the cache's key: raise it when the packing changes
ROWS_PER_BATCH = 1000


@dataclass(frozen=True)
class Blocks:
    """Text as `[CLS] ... [SEP]` blocks without padding, and how often each token occurs.

    `ids` is (blocks, block_length) on disk; `counts` is (vocabulary,); `dropped_tokens` did not fill a last block.
    """

    ids: NDArray[np.unsignedinteger[Any]]
    counts: NDArray[np.int64]
    dropped_tokens: int
    key: str

    def __len__(self) -> int:
        return len(self.ids)


def load_blocks(
    text: Path, tokenizer: PreTrainedTokenizerBase, block_length: int, cache: Path = BLOCKS_CACHE
) -> Blocks:
    """Return the blocks of a parquet file's `text` column, packed now or taken from the cache.

    Raises UserError if the file is missing or damaged, or holds too little text for one block.
    """
    if not text.is_file():
        raise UserError(f"{text}: not found; `dvc repro download` makes it")
    key = digest(text, _tokenizer_state(tokenizer), block_length, FORMAT_VERSION)[:32]
    folder = cache / key
    if not (folder / "pack.json").is_file():
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            _pack(text, tokenizer, block_length, temporary)
    dropped = int(read_json(folder / "pack.json")["dropped_tokens"])
    ids = np.load(folder / "ids.npy", mmap_mode="r")
    if not len(ids):
        raise UserError(
            f"{text}: {dropped} tokens do not fill a block of {block_length}; use more text or shorter blocks"
        )
    return Blocks(ids, np.load(folder / "counts.npy"), dropped, key)


def _tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return what decides the tokens; truncation and padding, which packing switches off, do not."""
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return {name: value for name, value in state.items() if name not in ("truncation", "padding")}


def _pack(text: Path, tokenizer: PreTrainedTokenizerBase, block_length: int, folder: Path) -> None:
    counts = np.zeros(len(tokenizer), np.int64)
    width = block_length - 2
    dtype = np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)
    remainder = np.empty(0, dtype)
    blocks = 0
    with (folder / "ids.npy").open("wb") as stream:
        _write_header(stream, dtype, 0, block_length)
        for tokens in _token_stream(text, tokenizer, dtype):
            counts += np.bincount(tokens, minlength=len(counts))
            tokens = np.concatenate([remainder, tokens])
            whole = len(tokens) // width
            _framed(tokens[: whole * width].reshape(whole, width), tokenizer).tofile(stream)
            blocks += whole
            remainder = tokens[whole * width :]
        stream.seek(0)
        _write_header(stream, dtype, blocks, block_length)
    np.save(folder / "counts.npy", counts)
    write_json(folder / "pack.json", {"dropped_tokens": len(remainder)})


def _write_header(stream: BinaryIO, dtype: np.dtype[Any], rows: int, columns: int) -> None:
    """Write the .npy header, which NumPy pads so that the number of rows may grow in place."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, columns)}
    np.lib.format.write_array_header_1_0(stream, header)


def _framed(pieces: NDArray[Any], tokenizer: PreTrainedTokenizerBase) -> NDArray[Any]:
    """Put each row between [CLS] and [SEP]."""
    frame = np.empty((len(pieces), pieces.shape[1] + 2), pieces.dtype)
    frame[:, 0] = tokenizer.cls_token_id
    frame[:, 1:-1] = pieces
    frame[:, -1] = tokenizer.sep_token_id
    return frame


def _token_stream(text: Path, tokenizer: PreTrainedTokenizerBase, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """Yield the tokens of successive groups of documents, each document but the first preceded by [SEP]."""
    started = False
    with readable_parquet(text):
        rows_in_all = pq.read_metadata(text).num_rows
    with tqdm(total=rows_in_all, desc=f"tokenise {text}", unit="row", disable=None) as bar:
        for rows in read_texts(text, ROWS_PER_BATCH):
            bar.update(len(rows))
            documents = [ids for ids in _tokenise([row for row in rows if row], tokenizer) if ids]
            if documents:
                joined = [token for ids in documents for token in (tokenizer.sep_token_id, *ids)]
                yield np.array(joined if started else joined[1:], dtype)
                started = True


def read_texts(text: Path, rows: int) -> Iterator[list[str]]:
    """Yield that many documents at a time of a parquet file's `text`; UserError if it is missing or damaged."""
    with readable_parquet(text):
        for batch in pq.ParquetFile(text).iter_batches(rows, columns=["text"]):
            yield batch.column("text").to_pylist()


def _tokenise(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    if not texts:
        return []
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        truncation=False,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids
