"""The reference on this machine: the fixed input, its logits, and how far a device's logits are from them.

Equal files need not give equal logits: INT8 and float kernels differ by processor. So nearness is measured, never
equality.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stages.android.results import Agreement
from stages.core.artifacts import file_sha256
from stages.core.errors import UserError
from stages.deployment.session import open_session
from stages.measurement.inputs import token_ids

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"
INT8 = "_int8"


@dataclass(frozen=True)
class Reference:
    """A model file, its input and the logits (batch, length, vocabulary) that this machine computes for it."""

    name: str
    path: Path
    sha256: str
    input: bytes  # int64: input_ids, then attention_mask
    logits: "np.ndarray[Any, np.dtype[np.float32]]"
    float32: "Reference | None" = None  # of an INT8 model, the one that it was made from


def references(paths: Sequence[Path], batch: int, length: int) -> list[Reference]:
    """Run every model once on this machine; `<name>_int8` gets `<name>` as its float32 reference."""
    found = {path.stem: reference(path, batch, length) for path in paths}
    return [
        replace(each, float32=found.get(name.removesuffix(INT8))) if name.endswith(INT8) else each
        for name, each in found.items()
    ]


def reference(path: Path, batch: int, length: int) -> Reference:
    """Run a model once on this machine.

    Raises UserError if the file is missing, damaged or takes other inputs than token ids and attention mask.
    """
    session = open_session(path, threads=1)
    inputs = {value.name for value in session.get_inputs()}
    outputs = {value.name: value.shape for value in session.get_outputs()}
    if inputs != set(INPUTS) or OUTPUT not in outputs:
        raise UserError(
            f"{path}: takes {', '.join(sorted(inputs))} and gives {', '.join(outputs)}; a masked language model takes "
            f"{' and '.join(INPUTS)} and gives {OUTPUT}"
        )
    ids = token_ids(batch, length, int(outputs[OUTPUT][-1]))
    mask = np.ones_like(ids)
    (logits,) = session.run([OUTPUT], dict(zip(INPUTS, (ids, mask), strict=True)))
    data = b"".join(part.astype("<i8").tobytes() for part in (ids, mask))
    return Reference(path.stem, path, file_sha256(path), data, logits)


def compare(device: bytes, shape: list[int], expected: Reference) -> Agreement:
    """Compare a device's logits, raw float32, with the reference; UserError for another shape or infinite numbers."""
    found = np.frombuffer(device, dtype="<f4")
    if tuple(shape) != expected.logits.shape or found.size != expected.logits.size:
        raise UserError(
            f"{expected.name}: the device gave {found.size} logits of shape {shape}, not {list(expected.logits.shape)}"
        )
    if not np.isfinite(found).all():
        raise UserError(
            f"{expected.name}: the device's logits are not all finite numbers; its runtime computes wrongly"
        )
    values, wanted = found.reshape(shape).astype(np.float64), expected.logits.astype(np.float64)
    difference = values - wanted
    return Agreement(
        relative_error=float(np.linalg.norm(difference) / max(float(np.linalg.norm(wanted)), 1e-30)),
        max_abs_error=float(np.abs(difference).max()),
        top1_agreement=float((values.argmax(-1) == wanted.argmax(-1)).mean()),
    )
