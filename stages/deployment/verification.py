"""Whether ONNX graphs compute what the PyTorch model computes: float32 to rounding, INT8 as an error and an agreement.

Shapes: B sequences of L tokens; V vocabulary size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from transformers import PreTrainedModel

from stages.core.errors import UserError

TOLERANCE = 1e-4
ROWS = 4  # of a batch
Logits = NDArray[np.float32]


@dataclass
class Difference:
    """Running comparison of logits [..., V] with reference logits."""

    largest: float = 0.0
    largest_reference: float = 0.0
    _squared_error: float = field(default=0.0, repr=False)
    _squared_reference: float = field(default=0.0, repr=False)
    _agreements: int = field(default=0, repr=False)
    _rows: int = field(default=0, repr=False)

    def add(self, logits: Logits, reference: Logits) -> None:
        """Count one more array of each, of the same shape."""
        error = logits - reference
        self.largest = float(np.maximum(self.largest, np.abs(error).max()))  # which, unlike max, keeps NaN
        self.largest_reference = max(self.largest_reference, float(np.abs(reference).max()))
        self._squared_error += float(np.square(error, dtype=np.float64).sum())
        self._squared_reference += float(np.square(reference, dtype=np.float64).sum())
        same = logits.argmax(-1) == reference.argmax(-1)
        self._agreements += int(same.sum())
        self._rows += same.size

    @property
    def relative_error(self) -> float:
        """Norm of the differences over the norm of the reference."""
        return float(np.sqrt(self._squared_error / self._squared_reference))

    @property
    def agreement(self) -> float:
        """Share of rows whose largest logit is at the same place."""
        return self._agreements / self._rows

    def require_rounding(self, name: str) -> None:
        """Raise UserError if an element differs by more than 1e-4, or 1e-4 of the largest logit where that exceeds 1.

        Float32 sums in another order differ in proportion to the numbers summed, so the tolerance does too.
        """
        tolerance = TOLERANCE * max(1.0, self.largest_reference)
        if not self.largest <= tolerance:  # or is not a number
            raise UserError(
                f"{name}: ONNX Runtime and PyTorch differ by {self.largest:.2e}, more than {tolerance:.0e}; "
                "install the versions of constraints.txt and run `dvc repro`"
            )


def compare(
    model: PreTrainedModel,
    fp32: InferenceSession,
    int8: InferenceSession,
    rows: Sequence[NDArray[np.int64]],
    outputs: Sequence[str],
) -> tuple[Difference, Difference]:
    """Compare float32 with PyTorch, and INT8 with float32, on rows of token ids (L,) in padded batches, whole and cut.

    PyTorch gets every row alone and without padding, so that a mask that lets padding through shows.
    """
    rounding, quantization = Difference(), Difference()
    pad = model.config.pad_token_id
    for batch in batches(rows):
        ids, mask = padded(batch, pad)
        both = [run(session, ids, mask, outputs) for session in (fp32, int8)]
        for index, row in enumerate(batch):
            for exact, rounded, reference in zip(*both, run_torch(model, row, outputs), strict=True):
                length = reference.shape[1]  # of the row, or of the labels where an output has no tokens
                rounding.add(exact[index, :length], reference[0])
                quantization.add(rounded[index, :length], exact[index, :length])
    return rounding, quantization


def batches(rows: Sequence[NDArray[np.int64]]) -> Iterator[list[NDArray[np.int64]]]:
    """Yield the rows in fours, and after each four a batch cut to the whole, three, two and one quarters."""
    for begin in range(0, len(rows), ROWS):
        yield list(rows[begin : begin + ROWS])
        cut = (rows[(begin + place) % len(rows)] for place in range(ROWS))
        yield [row[: max(1, len(row) * (ROWS - place) // ROWS)] for place, row in enumerate(cut)]


def padded(rows: Sequence[NDArray[np.int64]], pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pad rows of token ids on the right: ids and attention mask, both (B, L) of the longest."""
    ids = np.full((len(rows), max(len(row) for row in rows)), pad, np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def run(
    session: InferenceSession, ids: NDArray[np.int64], mask: NDArray[np.int64], outputs: Sequence[str]
) -> list[Logits]:
    """Compute the named outputs of token ids and attention mask, both (B, L)."""
    found: list[Logits] = session.run(list(outputs), {"input_ids": ids, "attention_mask": mask})
    return found


def run_torch(model: PreTrainedModel, row: NDArray[np.int64], outputs: Sequence[str]) -> list[Logits]:
    """Compute the named outputs of one row of token ids (L,) in PyTorch, as a batch of one without a mask."""
    with torch.inference_mode():
        found = model(input_ids=torch.from_numpy(row)[None])
    return [found[name].numpy() for name in outputs]


def significant(value: float) -> float:
    """Round to four significant digits."""
    return float(f"{value:.4g}")
