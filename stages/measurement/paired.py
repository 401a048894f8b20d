"""What two models' losses on the same blocks differ by, with an interval: blocks, not tokens, are drawn again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 5000
SEED = 20191002  # fixed, so that the same losses always give the same interval
COMPARED = ("mlm_loss", "distill_loss", "accuracy")


@dataclass(frozen=True)
class Tally:
    """A model's sums over the tokens of each block, and how many tokens each sum is over: both [blocks, figures]."""

    names: Sequence[str]
    sums: NDArray[np.float64]
    counts: NDArray[np.float64]

    def averages(self) -> dict[str, float]:
        """Return each figure's average over all tokens that it sees; 0 where it sees none."""
        found = self._averages(np.ones((1, len(self.sums))))[0]
        return dict(zip(self.names, found.tolist(), strict=True))

    def seen(self, name: str) -> int:
        """Return the number of tokens that a figure is over."""
        return int(self.counts[:, self.names.index(name)].sum())

    def minus(self, baseline: "Tally") -> dict[str, float]:
        """Return the compared figures' differences to the baseline's and their 95 % intervals, as flat keys.

        A percentile bootstrap over the blocks, paired: both models are averaged over the same draw.
        """
        blocks = len(self.sums)
        draws = np.random.default_rng(SEED).multinomial(blocks, np.full(blocks, 1 / blocks), size=RESAMPLES)
        drawn = self._averages(draws) - baseline._averages(draws)
        bounds = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        ours, theirs = self.averages(), baseline.averages()
        found: dict[str, float] = {}
        for name in COMPARED:
            low, high = bounds[:, self.names.index(name)].tolist()
            found |= _flat(f"{name}_difference", {"": ours[name] - theirs[name], "_low": low, "_high": high})
        return found

    def _averages(self, weights: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
        """Average the figures [draws, figures] over blocks that count as often as `weights` [draws, blocks] say."""
        averages: NDArray[np.float64] = (weights @ self.sums) / np.maximum(weights @ self.counts, 1)
        return averages


def _flat(name: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}{end}": value for end, value in values.items()}
