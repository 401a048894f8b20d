"""What a variant's files hold: bytes, parameters and zeros."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.errors import UserError
from stages.measurement.sizes import compressed_megabytes, megabytes
from stages.measurement.variants import Variant

SIZES = Path("data/eval/size/sizes.json")  # of every variant
MATRIX_PRODUCTS = {"MatMul", "Gemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}


def file_facts(variant: Variant) -> dict[str, float]:
    """Sizes of the weights in MiB."""
    return {
        "size_mb": round(megabytes(variant.weights), 2),
        "compressed_mb": round(compressed_megabytes(variant.weights), 2),
    }


def checkpoint_facts(folder: Path) -> dict[str, Any]:
    """Parameters (tied ones once), share of zeros in the Linear weights, and vocabulary of a checkpoint."""
    from stages.modeling.loading import load_masked_lm, parameter_count
    from stages.modeling.zeros import sparsity

    model = load_masked_lm(folder)
    return {
        "parameters": parameter_count(model),
        "sparsity": round(sparsity(model), 4),
        "vocabulary": model.config.vocab_size,
    }


def model_facts(variant: Variant, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and vocabulary of its `checkpoint`, and the share of zeros in the weights that a variant runs with."""
    if variant.runtime == "torch":
        return dict(checkpoint)
    return {**checkpoint, "sparsity": round(onnx_sparsity(variant.path, checkpoint["vocabulary"]), 4)}


def onnx_sparsity(path: Path, vocabulary: int) -> float:
    """Share of zeros in the weights of an ONNX file's matrix products, the vocabulary projection apart.

    Raises UserError if the file is damaged.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper

    from stages.deployment.graphs import initializers

    try:
        model = onnx.load(str(path))
        if not model.graph.node:  # as of an empty file, which is a valid message
            raise DecodeError("no graph in it")
    except DecodeError as error:
        raise UserError(f"{path}: damaged ({error}); delete it and run `dvc repro onnx-export`") from error
    weights = initializers(model)
    # An int8 matrix may reach its product through a Transpose or a DequantizeLinear.
    passed = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type in ("Transpose", "DequantizeLinear", "Identity") and node.input[0] in weights
    }
    names = {
        passed.get(name, name) for node in model.graph.node if node.op_type in MATRIX_PRODUCTS for name in node.input
    }
    zeros = total = 0
    for name in sorted(names & set(weights)):
        array = numpy_helper.to_array(weights[name])
        if array.ndim == 2 and vocabulary not in array.shape:
            zeros, total = zeros + array.size - int(np.count_nonzero(array)), total + array.size
    return zeros / total if total else 0.0
