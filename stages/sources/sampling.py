"""Which rows a limit keeps: drawn shuffled, seeded and class-balanced, in memory or from a stream."""

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def generator(seed: int, name: str) -> np.random.RandomState:
    """Seed the draws of one split; RandomState's streams are frozen, so that cuts outlive numpy's versions."""
    return np.random.RandomState([seed, zlib.crc32(name.encode())])


def draw(rows: int, limit: int | None, random: np.random.RandomState, classes: Sequence[int] | None = None) -> Indices:
    """Return the indices of the rows to keep, shuffled; all of them, in their order, if the limit does not bite.

    With `classes`, a row's class each, every class gives equally many as far as it has them, and the others fill up.
    """
    if limit is None or limit >= rows:
        return np.arange(rows)
    if classes is None:
        return random.permutation(rows)[:limit]
    values = np.asarray(classes)
    members = [random.permutation(np.flatnonzero(values == value)) for value in np.unique(values)]
    quotas = equal_shares([len(group) for group in members], limit)
    kept = np.concatenate([group[:quota] for group, quota in zip(members, quotas, strict=True)])
    return random.permutation(kept)


def equal_shares(sizes: Sequence[int], total: int) -> list[int]:
    """Share `total` out among groups of these sizes, as equally as they allow; a remainder goes to the largest."""
    shares = [0] * len(sizes)
    left = total
    for place, group in enumerate(sorted(range(len(sizes)), key=lambda index: sizes[index])):
        shares[group] = min(sizes[group], left // (len(sizes) - place))
        left -= shares[group]
    return shares


class Scatter:
    """Disjoint uniform samples of a stream whose length is known, drawn while it passes in batches.

    So a corpus larger than memory is cut in one pass: what a batch gives is a multivariate hypergeometric draw.
    """

    def __init__(self, total: int, wanted: Sequence[int], random: np.random.RandomState) -> None:
        self._left, self._missing, self._random = total, list(wanted), random

    def picks(self, length: int) -> list[Indices]:
        """Return, for the next batch of this length, the ascending indices within it that each sample takes."""
        order, outside = self._random.permutation(length), self._left
        picks: list[Indices] = []
        for sample, need in enumerate(self._missing):
            count = _hypergeometric(need, outside - need, len(order), self._random)
            picks.append(np.sort(order[:count]))
            order, outside = order[count:], outside - need
            self._missing[sample] -= count
        self._left -= length
        return picks


def _hypergeometric(good: int, bad: int, draws: int, random: np.random.RandomState) -> int:
    """Draw how many of `draws` rows, taken without replacement, are good ones."""
    if good == 0 or draws == 0:
        return 0
    return int(random.hypergeometric(good, bad, draws))
