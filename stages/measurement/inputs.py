"""The token ids that models are timed on, here and on a phone."""

import numpy as np
from numpy.typing import NDArray

STRIDE = 7919  # a prime, so that consecutive positions hold unlike tokens


def token_ids(rows: int, tokens: int, vocabulary: int) -> NDArray[np.int64]:
    """Token ids (rows, tokens) spread over the vocabulary, the same at every call."""
    return (np.arange(rows * tokens, dtype=np.int64) * STRIDE % vocabulary).reshape(rows, tokens)
