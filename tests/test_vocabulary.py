import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_compression import logits, make_student_project, run_prune, student
from tiny_distillation import SPECIAL, WORDS, teacher, write_params
from tokenizers import Tokenizer
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertTokenizer,
    DistilBertForMaskedLM,
    PreTrainedTokenizerFast,
)

from stages import prune
from stages.compression.vocabulary import choose_tokens, count_tokens, coverage, renumbered, trim_model, trim_tokenizer
from stages.core.errors import UserError
from stages.modeling.loading import load_masked_lm

PIECES = ["a", "b", "c", "ab", "abc", "bc", "##a", "##b", "##c", "##ab", "##bc", "##abc"]
NAMES = ["[unused0]", "[PAD]", "a", "[UNK]", "b", "[CLS]", "[SEP]", "c", "[MASK]", *PIECES[3:]]


def pieces() -> BertTokenizer:
    """A WordPiece vocabulary with special tokens in the midst of it, the padding not at 0."""
    return BertTokenizer(vocab={name: index for index, name in enumerate(NAMES)})


@settings(max_examples=40, deadline=None)
@given(words=st.lists(st.text("abc", min_size=1, max_size=8), min_size=1, max_size=6), extra=st.integers(0, 5))
def test_text_of_kept_tokens_is_tokenised_as_before(words: list[str], extra: int) -> None:
    original, text = pieces(), " ".join(words)
    counts = np.bincount(original(text, add_special_tokens=False)["input_ids"], minlength=len(NAMES))
    size = 5 + int((counts > 0).sum()) + extra
    kept = choose_tokens(counts, len(NAMES), original, 1 - min(size, len(NAMES)) / len(NAMES))
    smaller = trim_tokenizer(original, kept)
    assert smaller.tokenize(text) == original.tokenize(text)
    both = [
        tok(text, "a b").input_ids if "a" in words and "b" in words else tok(text).input_ids
        for tok in (original, smaller)
    ]
    assert [int(kept[new]) for new in both[1]] == both[0]


def test_the_small_tokenizer_is_consistent() -> None:
    counts = np.zeros(len(NAMES), np.int64)
    counts[NAMES.index("c")] = 1
    kept = choose_tokens(counts, len(NAMES), pieces(), 1 - 8 / len(NAMES))
    smaller = trim_tokenizer(pieces(), kept)
    # five special ones, "c", and the two other letters; all in their old order
    assert smaller.convert_ids_to_tokens(range(len(smaller))) == [
        "[PAD]", "a", "[UNK]", "b", "[CLS]", "[SEP]", "c", "[MASK]",
    ]  # fmt: skip
    assert (smaller.pad_token_id, smaller.cls_token_id, smaller.sep_token_id, smaller.mask_token_id) == (0, 4, 5, 7)
    assert smaller("a [MASK] ab", "c").input_ids == [4, 1, 7, 2, 5, 6, 5]
    assert smaller.decode([4, 1, 6, 5], skip_special_tokens=True) == "a c"


def with_processor(processor: dict[str, Any] | None) -> PreTrainedTokenizerFast:
    """The vocabulary of `pieces` with something else, or nothing, that adds [CLS] and [SEP]."""
    state = json.loads(pieces().backend_tokenizer.to_str()) | {"post_processor": processor}
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **names)


BERT = {"type": "BertProcessing", "sep": ["[SEP]", 6], "cls": ["[CLS]", 5]}
TEMPLATE = json.loads(pieces().backend_tokenizer.to_str())["post_processor"]
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}


@pytest.mark.parametrize(
    "processor",
    [None, BERT, TEMPLATE, {"type": "Sequence", "processors": [BYTES, TEMPLATE]}],
    ids=["none", "bert", "template", "sequence"],
)
def test_what_adds_special_tokens_is_renumbered(processor: dict[str, Any] | None) -> None:
    original = with_processor(processor)
    kept = np.array([1, 2, 3, 4, 5, 6, 7, 8])
    state = json.loads(original.backend_tokenizer.to_str())
    smaller = Tokenizer.from_str(json.dumps(renumbered(state, {int(old): new for new, old in enumerate(kept)})))
    expected = original("a b", "c").input_ids
    assert [int(kept[new]) for new in smaller.encode("a b", "c").ids] == expected
    assert (5 in expected) == (processor is not None)  # [CLS]


def test_an_unknown_processor_is_told_in_one_line() -> None:
    state = json.loads(pieces().backend_tokenizer.to_str()) | {"post_processor": {"type": "New"}}
    with pytest.raises(UserError, match="this tokenizer's post_processor New is of no known kind"):
        renumbered(state, {index: index for index in range(len(NAMES))})


def test_the_most_frequent_stay_and_the_rest_fills_up() -> None:
    counts = np.zeros(len(NAMES), np.int64)
    counts[[2, 4, 9, 12]] = [1, 5, 7, 5]
    kept = choose_tokens(counts, len(NAMES), pieces(), 1 - 8 / len(NAMES))
    assert set(kept) - {1, 3, 5, 6, 8} == {4, 9, 12}
    more = set(choose_tokens(counts, len(NAMES), pieces(), 1 - 10 / len(NAMES)))
    assert more - set(kept) == {2, 7}  # "a", which occurs once, and the first letter that does not
    assert 0 not in choose_tokens(counts, len(NAMES), pieces(), 1 - (len(NAMES) - 1) / len(NAMES))
    assert list(choose_tokens(counts, len(NAMES), pieces(), 0.99)) == [1, 3, 5, 6, 8]


def test_what_is_covered_of_a_text() -> None:
    counts = np.array([0, 6, 3, 0, 1])
    assert coverage(counts, np.array([0, 1, 4, 5])) == {"text_tokens": 3, "text_tokens_kept": 2, "text_covered": 0.7}


def test_logits_of_kept_tokens_are_unchanged() -> None:
    kept = np.array([0, 1, 2, 3, 4, *range(20, 80), 154])
    ids = torch.randint(0, len(kept), (2, 12), generator=torch.Generator().manual_seed(3))
    for model, make in ((student(pad_token_id=20), DistilBertForMaskedLM), (teacher(pad_token_id=20), BertForMaskedLM)):
        smaller = trim_model(model, kept, make)
        expected = logits(model, torch.from_numpy(kept)[ids])[..., torch.from_numpy(kept)]
        torch.testing.assert_close(logits(smaller, ids), expected)
        assert (smaller.config.vocab_size, smaller.config.pad_token_id) == (len(kept), 5)
        assert smaller.get_input_embeddings().padding_idx == 5
        assert smaller.get_input_embeddings().weight is smaller.get_output_embeddings().weight
        assert model.config.vocab_size == len(SPECIAL + WORDS)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_student_project(tmp_path)
    return tmp_path


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
def test_the_stage_keeps_the_tokens_of_a_text(project: Path, suffix: str) -> None:
    rows = ["word140 word141 word142", "word141"]
    lines = rows if suffix == "txt" else [json.dumps({"text": row}) for row in rows]
    (project / f"own.{suffix}").write_text("\n".join(lines))
    metrics = run_prune(project, prune__method="vocabulary", prune__amount=0.9, prune__vocabulary_text=f"own.{suffix}")
    tokenizer, model = AutoTokenizer.from_pretrained("models/pruned"), load_masked_lm(Path("models/pruned"))
    assert len(tokenizer) == model.config.vocab_size == metrics["tokens"] == round((1 - 0.9) * len(SPECIAL + WORDS))
    assert {"word140", "word141", "word142", "word0", *SPECIAL} <= set(tokenizer.get_vocab())
    assert metrics["parameters_before"] - metrics["parameters"] == (155 - len(tokenizer)) * (32 + 1)
    words = "word142 word140 word0"
    old = AutoTokenizer.from_pretrained("models/distilbert")
    ids = [torch.tensor([tok(words).input_ids]) for tok in (old, tokenizer)]
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    kept = torch.tensor(old.convert_tokens_to_ids(names))
    torch.testing.assert_close(logits(model, ids[1]), logits(student(), ids[0])[..., kept])


def test_recovery_of_a_small_vocabulary(project: Path) -> None:
    metrics = run_prune(project, prune__method="vocabulary", prune__amount=0.5, prune__recovery_epochs=0.5)
    assert metrics["updates"] > 0
    assert metrics["loss"] < metrics["before_recovery"]["loss"]
    assert metrics["text_tokens_kept"] <= metrics["text_tokens"]
    assert 0 < metrics["text_covered"] <= 1
    assert metrics["tokens"] == 78
    assert load_masked_lm(Path("models/pruned")).config.vocab_size == 78


def test_a_missing_or_empty_text_is_named(project: Path) -> None:
    write_params(project, prune__method="vocabulary", prune__vocabulary_text="none.txt")
    with pytest.raises(UserError, match=r"none.txt: no such file"):
        prune.main()
    (project / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match=r"prune.vocabulary_text: empty.txt holds no text"):
        count_tokens("empty.txt", AutoTokenizer.from_pretrained("models/distilbert"))
