from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import write_damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_distillation import WORDS, tokenizer, write_text
from transformers import BertTokenizer

from stages.core.errors import UserError
from stages.distillation import corpus
from stages.distillation.corpus import load_blocks


def expected_tokens(texts: list[str], made: BertTokenizer) -> list[int]:
    """All documents that hold a token, with one [SEP] between two."""
    documents = [made.convert_tokens_to_ids(made.tokenize(text)) for text in texts if text]
    assert made.sep_token_id is not None
    joined = [token for ids in documents for token in (made.sep_token_id, *ids)]
    return joined[1:]


@given(
    st.lists(st.lists(st.sampled_from([*WORDS[:20], "unknown"]), max_size=12).map(" ".join), min_size=1, max_size=30),
    st.integers(8, 20),
    st.integers(1, 7),
)
@settings(deadline=None, max_examples=25)
def test_packing_loses_and_repeats_no_token(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], length: int, rows: int
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    made = tokenizer()
    pq.write_table(pa.table({"text": texts}), folder / "text.parquet")
    tokens = expected_tokens(texts, made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "ROWS_PER_BATCH", rows)
        if len(tokens) < length - 2:
            with pytest.raises(UserError, match=f"{len(tokens)} tokens do not fill a block of {length}"):
                load_blocks(folder / "text.parquet", made, length, folder / "cache")
            return
        blocks = load_blocks(folder / "text.parquet", made, length, folder / "cache")
    assert blocks.ids.shape == (len(tokens) // (length - 2), length)
    assert set(blocks.ids[:, 0]) == {made.cls_token_id}
    assert set(blocks.ids[:, -1]) == {made.sep_token_id}
    packed = blocks.ids[:, 1:-1].ravel().tolist()
    assert packed == tokens[: len(packed)]
    assert blocks.dropped_tokens == len(tokens) - len(packed) < length - 2
    assert np.array_equal(blocks.counts, np.bincount(tokens, minlength=len(made)))


def test_a_second_load_takes_the_cache_and_a_memory_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "text.parquet", 30)
    first = load_blocks(tmp_path / "text.parquet", tokenizer(), 16, tmp_path / "cache")
    monkeypatch.setattr(corpus, "_pack", lambda *_: pytest.fail("packed again"))
    again = load_blocks(tmp_path / "text.parquet", tokenizer(), 16, tmp_path / "cache")
    assert isinstance(again.ids, np.memmap)
    assert again.ids.dtype == np.uint16
    assert np.array_equal(first.ids, again.ids)
    assert (first.key, first.dropped_tokens) == (again.key, again.dropped_tokens)


def test_the_cache_is_keyed_by_text_vocabulary_and_length(tmp_path: Path) -> None:
    path = tmp_path / "text.parquet"
    write_text(path, 30)
    cased = BertTokenizer(vocab=tokenizer().get_vocab(), do_lower_case=False)
    keys = [
        load_blocks(path, made, length, tmp_path).key
        for made, length in ((tokenizer(), 16), (tokenizer(), 17), (cased, 16))
    ]
    write_text(path, 30, seed=1)
    keys.append(load_blocks(path, tokenizer(), 16, tmp_path).key)
    assert len(set(keys)) == 4


def test_truncation_of_the_tokenizer_file_does_not_count(tmp_path: Path) -> None:
    write_text(tmp_path / "text.parquet", 30)
    cut = tokenizer()
    cut.backend_tokenizer.enable_truncation(5)
    cut.backend_tokenizer.enable_padding(length=5)
    whole = load_blocks(tmp_path / "text.parquet", tokenizer(), 16, tmp_path / "a")
    same = load_blocks(tmp_path / "text.parquet", cut, 16, tmp_path / "b")
    assert whole.key == same.key
    assert np.array_equal(whole.ids, same.ids)


def test_packing_cut_short_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "text.parquet", 30)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_blocks(tmp_path / "text.parquet", tokenizer(), 16, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_damaged_text_is_named(tmp_path: Path) -> None:
    write_damaged(tmp_path / "text.parquet", {"text": [f"text {number}" for number in range(999)]})
    with pytest.raises(UserError, match=r"text\.parquet: damaged, .*; delete it and run `dvc repro download`"):
        load_blocks(tmp_path / "text.parquet", tokenizer(), 16, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_missing_text_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro download"):
        load_blocks(tmp_path / "none.parquet", tokenizer(), 16, tmp_path)
