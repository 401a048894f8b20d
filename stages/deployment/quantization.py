"""INT8 graphs: dynamic quantization of every product, and one int8 matrix for embedding and vocabulary projection.

ONNX Runtime's own `quantize_dynamic` leaves a matrix that an embedding shares in float32, so the shared ones are
rewritten here. Weights are signed and symmetric with a scale a row or output channel: q = round(w / s) with
s = max |w| / 127 for the shared matrix and max |w| / 64 for the others. On x86 without VNNI, ONNX Runtime adds pairs
of their products with unsigned inputs in 16 bits: 2 * 255 * 127 would saturate, 2 * 255 * 64 cannot. The shared matrix
keeps its eighth bit, which is worth more to the logits than what saturates there.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from stages.deployment.graphs import embedding_tables, initializers, is_head, products, strip

INT8_MAX = 127
OWN = "shared_"  # begins the names that are made here, since ONNX Runtime ends its own in `_quantized` and the like
LAST_AXIS = f"{OWN}last_axis"


def quantize(model: ModelProto) -> ModelProto:
    """Return the INT8 form of an exported float32 graph, with the same inputs and outputs; the original stays as it is.

    Every product with constant weights becomes DynamicQuantizeLinear and MatMulInteger with a scale an output channel,
    but for heads of less than 32 outputs, which cost nothing and decide. Every embedding becomes a Gather of int8 rows,
    and a projection onto the vocabulary multiplies with the transpose of the embedding's own int8 matrix, which ONNX
    Runtime transposes once, when it loads the file.
    """
    tables = embedding_tables(model)
    transposed = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Transpose" and node.input[0] in tables
    }
    projections = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in transposed]
    known = initializers(model)
    heads = [node.name for group in products(model).values() for node in group if is_head(known, node)]
    result = _with_int8_products(model, projections + heads)
    _quantize_tables(result, sorted(tables))
    nodes = [new for node in result.graph.node for new in _rewritten(node, tables, transposed)]
    result.graph.ClearField("node")
    result.graph.node.extend(nodes)
    strip(result)
    onnx.checker.check_model(result, full_check=True)
    return result


def quantized_rows(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize a matrix (rows, H) row by row: int8 values and scales (rows,); rows of zeros stay zero."""
    largest = np.abs(table).max(axis=1)
    scales = np.where(largest > 0, largest / INT8_MAX, 1.0).astype(np.float32)
    return np.rint(table / scales[:, None]).astype(np.int8), scales


def _with_int8_products(model: ModelProto, excluded: list[str]) -> ModelProto:
    """Quantize every MatMul with constant weights but the excluded nodes."""
    source = ModelProto()
    source.CopyFrom(model)
    source.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # or it recommends that step
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "int8.onnx")
        quantize_dynamic(
            source,
            file,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,  # 7 bits
            weight_type=QuantType.QInt8,  # products with unsigned weights are twice as slow
            nodes_to_exclude=excluded,
        )
        return onnx.load(file)


def _quantize_tables(model: ModelProto, tables: list[str]) -> None:
    """Store each table as int8 rows and scales in place of float32."""
    known = initializers(model)
    for name in tables:
        rows, scales = quantized_rows(numpy_helper.to_array(known[name]))
        model.graph.initializer.remove(known[name])
        model.graph.initializer.append(numpy_helper.from_array(rows, _rows(name)))
        model.graph.initializer.append(numpy_helper.from_array(scales, _scales(name)))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), LAST_AXIS))


def _rewritten(node: NodeProto, tables: set[str], transposed: dict[str, str]) -> Iterator[NodeProto]:
    """Yield the nodes that take a node's place once the tables are int8; `transposed` maps a name to its table."""
    if node.op_type == "Gather" and node.input[0] in tables:
        yield from _embedding(node)
    elif node.op_type == "MatMul" and node.input[1] in transposed:
        yield from _projection(node, transposed[node.input[1]])
    else:
        if node.op_type == "Transpose" and node.input[0] in tables:
            node.input[0] = _rows(node.input[0])
        yield node


def _embedding(node: NodeProto) -> Iterator[NodeProto]:
    """Look int8 rows and their scales up, and multiply: rows (B, L, H) float32."""
    table, ids = node.input
    rows, values, scales, columns = (f"{OWN}{node.output[0]}_{part}" for part in ("int8", "float", "scale", "scales"))
    yield _node("Gather", [_rows(table), ids], rows, axis=0)
    yield _node("Cast", [rows], values, to=TensorProto.FLOAT)
    yield _node("Gather", [_scales(table), ids], scales, axis=0)
    yield _node("Unsqueeze", [scales, LAST_AXIS], columns)
    yield _node("Mul", [values, columns], node.output[0])


def _projection(node: NodeProto, table: str) -> Iterator[NodeProto]:
    """Quantize the states (B, L, H), multiply as integers and scale: logits (B, L, V) float32.

    This is the pattern that ONNX Runtime fuses into one kernel with packed weights.
    """
    states, matrix = node.input
    product, values, scales = (f"{OWN}{node.output[0]}_{part}" for part in ("int32", "float", "scales"))
    quantized, scale, zero_point = (f"{OWN}{states}_{part}" for part in ("quantized", "scale", "zero_point"))
    yield helper.make_node(
        "DynamicQuantizeLinear", [states], [quantized, scale, zero_point], name=f"{OWN}{states}_QuantizeLinear"
    )
    yield _node("MatMulInteger", [quantized, matrix, zero_point], product)
    yield _node("Cast", [product], values, to=TensorProto.FLOAT)
    yield _node("Mul", [scale, _scales(table)], scales)
    yield _node("Mul", [values, scales], node.output[0])


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs, [output], name=f"{OWN}{operator}_{output}", **attributes)


def _rows(table: str) -> str:
    return f"{OWN}{table}_int8"


def _scales(table: str) -> str:
    return f"{OWN}{table}_scales"
