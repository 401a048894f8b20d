"""Tiny ONNX files with the inputs and outputs of the exported models."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stages.measurement.variants import ONNX_MODELS

VOCABULARY, HIDDEN = 97, 16


def write_model(path: Path, seed: int = 0) -> Path:
    """Embedding, mask, projection: input_ids, attention_mask (batch, length) -> logits, last_hidden_state."""
    generator = np.random.default_rng(seed)
    tensors = {
        "table": generator.standard_normal((VOCABULARY, HIDDEN)).astype(np.float32),
        "projection": generator.standard_normal((HIDDEN, VOCABULARY)).astype(np.float32),
        "last": np.array([2]),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["embedded", "column"], ["last_hidden_state"]),
        helper.make_node("MatMul", ["last_hidden_state", "projection"], ["logits"]),
    ]
    shape = ["batch", "length"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [*shape, width])
        for name, width in (("logits", VOCABULARY), ("last_hidden_state", HIDDEN))
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def write_int8(model: Path) -> Path:
    """The same with its products in INT8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = model.with_name(f"{model.stem}_int8.onnx")
    quantize_dynamic(model, path, weight_type=QuantType.QInt8)
    return path


def write_models(folder: Path) -> Path:
    """All four of them."""
    for number, name in enumerate(ONNX_MODELS):
        if not name.endswith("_int8"):
            write_int8(write_model(folder / f"{name}.onnx", seed=number))
    return folder
