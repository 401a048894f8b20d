"""Dynamic masking: new masks at every pass, each a pure function of the seed and of the draw's number."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from stages.distillation.corpus import Blocks

Batch = dict[str, torch.Tensor]
TRAINING, HELD_OUT, ORDER = 0, 1, 2  # streams of random numbers
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the chosen tokens, as in BERT; the rest stay as they are


@dataclass(frozen=True)
class Masking:
    """Chooses a share `probability` of a block's tokens by `weights` (vocabulary,), which are 0 for special ones."""

    weights: NDArray[np.float64]
    ordinary_ids: NDArray[np.int64]
    mask_id: int
    probability: float
    seed: int

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        counts: NDArray[np.int64],
        probability: float,
        smoothing: float,
        seed: int,
    ) -> Self:
        """Weigh tokens by `count ** -smoothing`, 0 being uniform (smoothing as in the code of Sanh et al. 2019)."""
        weights = np.maximum(counts, 1).astype(np.float64) ** -smoothing
        weights[tokenizer.all_special_ids] = 0.0
        assert tokenizer.mask_token_id is not None
        return cls(weights, np.flatnonzero(weights), tokenizer.mask_token_id, probability, seed)

    def __call__(self, blocks: NDArray[Any], draws: NDArray[np.int64], stream: int = TRAINING) -> Batch:
        """Mask blocks (batch, length), the `draws`-th ones of a stream, whatever else is in the batch.

        Returns `input_ids` (batch, length); `order` (batch * length,), flat positions with the masked ones first; and
        `labels` (masked,), the original tokens at the first `masked` positions of `order`.
        """
        ids = blocks.astype(np.int64)
        uniform = np.stack([self._uniform(stream, int(draw), ids.shape[1]) for draw in draws])
        chosen = self._choose(ids, uniform[:, 0], uniform[:, 3, 0])
        replaced = np.where(uniform[:, 1] < MASK_SHARE, self.mask_id, ids)
        swap = (uniform[:, 1] >= MASK_SHARE) & (uniform[:, 1] < MASK_SHARE + RANDOM_SHARE)
        anything = self.ordinary_ids[(uniform[:, 2] * len(self.ordinary_ids)).astype(np.int64)]
        replaced = np.where(swap, anything, replaced)
        flat = chosen.ravel()
        order = np.concatenate([np.flatnonzero(flat), np.flatnonzero(~flat)])
        return {
            "input_ids": torch.from_numpy(np.where(chosen, replaced, ids)),
            "order": torch.from_numpy(order),
            "labels": torch.from_numpy(ids[chosen]),
        }

    def _uniform(self, stream: int, draw: int, length: int) -> NDArray[np.float64]:
        return np.random.default_rng((self.seed, stream, draw)).random((4, length))

    def _choose(
        self, ids: NDArray[np.int64], keys: NDArray[np.float64], rounding: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Draw by weight without replacement: a row's smallest `-log(u) / weight` (Efraimidis and Spirakis 2006).

        A row's number of tokens is rounded up or down at random so that its mean is exact, but is at least one.
        """
        weights = self.weights[ids]
        ordinary = weights > 0.0
        wanted = np.floor(self.probability * ordinary.sum(1) + rounding)
        wanted = np.minimum(np.maximum(wanted, 1), ordinary.sum(1))
        with np.errstate(divide="ignore"):
            arrival = np.where(ordinary, -np.log1p(-keys) / weights, np.inf)
        rank = arrival.argsort(1, kind="stable").argsort(1, kind="stable")
        chosen: NDArray[np.bool_] = rank < wanted[:, None]
        return chosen


class Draws(torch.utils.data.Dataset[Batch]):
    """The blocks of a whole training, pass after pass, in an order shuffled anew for every pass.

    Item `i` is draw `first + i` and depends on nothing else, so it is the same for any batch size, number of
    processes or workers, and after a resume.
    """

    def __init__(self, blocks: Blocks, masking: Masking, draws: int, first: int = 0) -> None:
        self.blocks, self.masking, self.draws, self.first = blocks, masking, draws, first
        self._pass: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        return self.draws

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return one masked batch of several draws; PyTorch's loader calls this instead of collating single items."""
        draws = np.array(indices, np.int64) + self.first
        rows = np.array([self._row(int(draw)) for draw in draws])
        return self.masking(self.blocks.ids[rows], draws)

    def _row(self, draw: int) -> int:
        number, position = divmod(draw, len(self.blocks))
        if self._pass[0] != number:
            generator = np.random.default_rng((self.masking.seed, ORDER, number))
            self._pass = (number, generator.permutation(len(self.blocks)))
        return int(self._pass[1][position])


def held_out_batches(blocks: Blocks, masking: Masking, limit: int, batch_size: int) -> list[Batch]:
    """Return at most `limit` blocks, evenly spaced over the held-out text, with masks that never change."""
    rows = held_out_rows(len(blocks), limit)
    chunks = [np.arange(start, min(start + batch_size, len(rows))) for start in range(0, len(rows), batch_size)]
    return [masking(blocks.ids[rows[chunk]], chunk, HELD_OUT) for chunk in chunks]


def held_out_rows(blocks: int, limit: int) -> NDArray[np.int64]:
    """Numbers of the blocks that `held_out_batches` takes of that many."""
    return np.linspace(0, blocks - 1, min(limit, blocks)).round().astype(np.int64)
