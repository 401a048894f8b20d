from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_distillation import tokenizer, write_text

from stages.distillation.corpus import Blocks, load_blocks
from stages.distillation.masking import Batch, Draws, Masking, held_out_batches


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Blocks:
    folder = tmp_path_factory.mktemp("masking")
    write_text(folder / "text.parquet", 400)
    return load_blocks(folder / "text.parquet", tokenizer(), 32, folder / "cache")


def masking(blocks: Blocks, smoothing: float = 0.0, seed: int = 7) -> Masking:
    return Masking.of(tokenizer(), blocks.counts, 0.15, smoothing, seed)


def chosen(batch: Batch) -> torch.Tensor:
    """Flat positions of the masked tokens."""
    return batch["order"][: len(batch["labels"])]


def sample(blocks: Blocks, smoothing: float, passes: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Original and replaced tokens at the masked positions of several passes."""
    originals, replaced = [], []
    for number in range(passes):
        batch = masking(blocks, smoothing)(blocks.ids, np.arange(len(blocks)) + number * len(blocks))
        originals.append(batch["labels"].numpy())
        replaced.append(batch["input_ids"].flatten()[chosen(batch)].numpy())
    return np.concatenate(originals), np.concatenate(replaced)


def test_shares_of_masked_random_and_kept_tokens(blocks: Blocks) -> None:
    made = tokenizer()
    originals, replaced = sample(blocks, 0.0)
    ordinary = int(40 * np.isin(blocks.ids, made.all_special_ids, invert=True).sum())
    spread = 4 / np.sqrt(len(originals))
    assert abs(len(originals) / ordinary - 0.15) < 0.002
    assert abs((replaced == made.mask_token_id).mean() - 0.8) < spread
    assert abs((replaced == originals).mean() - 0.1 - 0.1 / 150) < spread
    random = replaced[(replaced != made.mask_token_id) & (replaced != originals)]
    assert np.isin(random, made.all_special_ids).sum() == 0
    assert len(np.unique(random)) > 140


def test_special_tokens_are_never_masked(blocks: Blocks) -> None:
    originals, _ = sample(blocks, 0.7, passes=5)
    assert not np.isin(originals, tokenizer().all_special_ids).any()


def test_smoothing_draws_rare_tokens_more_often(blocks: Blocks) -> None:
    """Among the tokens of equal blocks, draws go by count ** -0.7: compare two words, one about 20 times as common."""
    made = tokenizer()
    common, rare = made.convert_tokens_to_ids(["word0", "word19"])
    ratio = (blocks.counts[common] / blocks.counts[rare]) ** 0.7
    row = np.array([[made.cls_token_id, *[common, rare] * 100, made.sep_token_id]])
    made_masking = Masking.of(made, blocks.counts, 0.005, 0.7, 1)  # one of 200 at a time: no exhaustion
    labels = np.concatenate([made_masking(row, np.array([draw]))["labels"].numpy() for draw in range(4000)])
    drawn = (labels == rare).sum() / (labels == common).sum()
    assert abs(drawn / ratio - 1) < 0.2


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=6), st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=25)
def test_a_mask_depends_on_seed_and_draw_alone(blocks: Blocks, draws: list[int], seed: int) -> None:
    made = masking(blocks, 0.7, seed)
    rows = np.array(draws) % len(blocks)
    together = made(blocks.ids[rows], np.array(draws))["input_ids"]
    apart = [made(blocks.ids[[row]], np.array([draw]))["input_ids"] for row, draw in zip(rows, draws, strict=True)]
    assert torch.equal(together, torch.cat(apart))


def test_masks_change_from_pass_to_pass_and_with_the_seed(blocks: Blocks) -> None:
    first = masking(blocks)(blocks.ids, np.arange(len(blocks)))["input_ids"]
    later = masking(blocks)(blocks.ids, np.arange(len(blocks)) + len(blocks))["input_ids"]
    other = masking(blocks, seed=8)(blocks.ids, np.arange(len(blocks)))["input_ids"]
    assert not torch.equal(first, later)
    assert not torch.equal(first, other)


def test_order_lists_every_position_once_with_masked_ones_first(blocks: Blocks) -> None:
    batch = masking(blocks)(blocks.ids[:5], np.arange(5))
    assert sorted(batch["order"].tolist()) == list(range(5 * 32))
    ids = torch.from_numpy(blocks.ids[:5].astype(np.int64)).flatten()
    assert torch.equal(ids[chosen(batch)], batch["labels"])
    rest = batch["order"][len(batch["labels"]) :]
    assert torch.equal(ids[rest], batch["input_ids"].flatten()[rest])


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_draws_are_the_same_in_batches_of_any_size_and_from_any_start(blocks: Blocks, batch_size: int) -> None:
    draws = Draws(blocks, masking(blocks), 28)
    one_by_one = torch.cat([draws[index]["input_ids"] for index in range(28)])
    batched = [draws.__getitems__(list(range(start, start + batch_size))) for start in range(0, 28, batch_size)]
    assert torch.equal(torch.cat([batch["input_ids"] for batch in batched]), one_by_one)
    later = Draws(blocks, masking(blocks), 8, first=20)
    assert torch.equal(later.__getitems__(list(range(8)))["input_ids"], one_by_one[20:])


def test_a_pass_sees_every_block_once_in_an_order_of_its_own(blocks: Blocks) -> None:
    draws = Draws(blocks, masking(blocks), 2 * len(blocks))
    rows = [draws._row(draw) for draw in range(len(draws))]
    first, second = rows[: len(blocks)], rows[len(blocks) :]
    assert sorted(first) == sorted(second) == list(range(len(blocks)))
    assert first != second


def test_held_out_masks_never_change_and_differ_from_training(blocks: Blocks) -> None:
    def ids(batch_size: int) -> torch.Tensor:
        batches = held_out_batches(blocks, masking(blocks), 10, batch_size)
        return torch.cat([batch["input_ids"] for batch in batches])

    assert ids(3).shape == (10, 32)
    assert torch.equal(ids(3), ids(10))
    whole = held_out_batches(blocks, masking(blocks), 10**6, 8)
    assert sum(len(batch["input_ids"]) for batch in whole) == len(blocks)
    training = masking(blocks)(blocks.ids, np.arange(len(blocks)))["input_ids"]
    assert not torch.equal(torch.cat([batch["input_ids"] for batch in whole]), training)


def test_short_blocks_have_a_masked_token_each(tmp_path: Path) -> None:
    write_text(tmp_path / "text.parquet", 20)
    short = load_blocks(tmp_path / "text.parquet", tokenizer(), 8, tmp_path / "cache")
    made = Masking.of(tokenizer(), short.counts, 0.01, 0.0, 1)
    masked = [len(made(short.ids[[row]], np.array([row]))["labels"]) for row in range(len(short))]
    assert set(masked) == {1}
