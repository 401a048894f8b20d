"""A model as a pair of ONNX files, float32 and INT8, and what can be said of each without running it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto, TensorProto
from transformers import PreTrainedModel

from stages.deployment.export import export
from stages.deployment.graphs import save, vocabulary_matrices
from stages.deployment.quantization import quantize
from stages.deployment.smoothing import Calibration, smooth

MIB = 2**20


@dataclass(frozen=True)
class OnnxFile:
    """A written file and its size in bytes and MiB and its stored vocabulary matrices."""

    path: Path
    facts: dict[str, Any]


def write_pair(
    model: PreTrainedModel,
    outputs: Sequence[str],
    name: str,
    folder: Path,
    calibration: Calibration,
    threads: int,
) -> tuple[OnnxFile, OnnxFile]:
    """Write `<name>.onnx` and `<name>_int8.onnx` into a folder; `outputs` as for `export`.

    With a strength of 0 the INT8 products are not smoothed.
    """
    graph = export(model, outputs)
    int8 = quantize(smooth(graph, calibration, threads) if calibration.strength else graph)
    rows = model.config.vocab_size
    return _write(graph, folder / f"{name}.onnx", rows), _write(int8, folder / f"{name}_int8.onnx", rows)


def _write(graph: ModelProto, path: Path, rows: int) -> OnnxFile:
    save(graph, path)
    size = path.stat().st_size
    facts = {
        "bytes": size,
        "size_mb": round(size / MIB, 2),
        "vocabulary_matrices": vocabulary_matrices(graph, rows),
        "int8_vocabulary_matrices": vocabulary_matrices(graph, rows, TensorProto.INT8),
    }
    return OnnxFile(path, facts)
