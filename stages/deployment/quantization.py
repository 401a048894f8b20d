"""INT8 graphs: dynamic quantization of every product, and one int8 matrix for embedding and vocabulary projection.

ONNX Runtime's own `quantize_dynamic` leaves a matrix that an embedding shares in float32, and gives weights 8 bits,
whose sums can overflow, or 7. x86 CPUs without VNNI (and ONNX Runtime's kernels for them) multiply unsigned inputs
with signed weights and add products 2k and 2k + 1 in 16 bits, which saturate: 255 (127 + 127) > 2 ** 15 - 1. Here each
scale is the smallest at which no such pair exceeds 255 * 128, so that sums are exact on every CPU, for a third of a bit
of a random matrix rather than a whole one.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from stages.deployment.graphs import embedding_tables, initializers, is_head, strip

INT8_MAX = 127
PAIR_MAX = 128  # 255 * 128 <= 2 ** 15 - 1
SMALLEST_SCALE = np.finfo(np.float32).tiny  # smaller ones have fewer bits
OWN = "int8_"  # begins the names that are made here
LAST_AXIS = f"{OWN}last_axis"


def quantize(model: ModelProto) -> ModelProto:
    """Return the INT8 form of an exported float32 graph, with the same inputs and outputs; the original stays as it is.

    Every product with constant weights becomes DynamicQuantizeLinear and MatMulInteger with a scale an output channel,
    but for heads of less than 32 outputs, which cost nothing and decide. Every embedding becomes a Gather of int8 rows,
    and a projection onto the vocabulary multiplies with the transpose of the embedding's own int8 matrix, which ONNX
    Runtime transposes once, when it loads the file.
    """
    result = ModelProto()
    result.CopyFrom(model)
    known, tables = initializers(result), embedding_tables(result)
    weights = {
        node.input[1]
        for node in result.graph.node
        if node.op_type == "MatMul" and node.input[1] in known and not is_head(known, node)
    }
    transposed = {
        node.output[0]: node.input[0]
        for node in result.graph.node
        if node.op_type == "Transpose" and node.input[0] in tables
    }
    for name in sorted(tables):
        _store(result, known[name], *quantized_rows(numpy_helper.to_array(known[name]), name in transposed.values()))
    for name in sorted(weights):
        columns, scales = quantized_rows(numpy_helper.to_array(known[name]).T)
        _store(result, known[name], np.ascontiguousarray(columns.T), scales)
    result.graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), LAST_AXIS))
    nodes = [*_rewritten(result.graph.node, tables, weights, transposed)]
    result.graph.ClearField("node")
    result.graph.node.extend(nodes)
    strip(result)
    onnx.checker.check_model(result, full_check=True)
    return result


def quantized_rows(table: NDArray[np.float32], pairs: bool = True) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize a matrix (M, K) row by row: int8 values and scales (M,); rows of zeros stay zero.

    With `pairs`, values 2k and 2k + 1 of a row add to at most 128 if they have one sign.
    """
    magnitudes = np.abs(table).max(axis=1) / INT8_MAX
    if pairs:
        even, odd = table[:, 0 : table.shape[1] // 2 * 2 : 2], table[:, 1::2]
        sums = np.abs(even + odd, where=np.sign(even) == np.sign(odd), out=np.zeros_like(even)).max(axis=1, initial=0.0)
        # Each of a pair is rounded up by at most a half.
        magnitudes = np.maximum(magnitudes, sums / (PAIR_MAX - 0.5))
    scales = np.where(magnitudes > 0, np.maximum(magnitudes, SMALLEST_SCALE), 1.0).astype(np.float32)
    return np.rint(table / scales[:, None]).astype(np.int8), scales


def _store(model: ModelProto, matrix: TensorProto, values: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
    """Put int8 values and scales in place of a float32 matrix."""
    name = matrix.name
    model.graph.initializer.remove(matrix)
    model.graph.initializer.append(numpy_helper.from_array(values, _values(name)))
    model.graph.initializer.append(numpy_helper.from_array(scales, _scales(name)))


def _rewritten(
    nodes: Iterable[NodeProto], tables: set[str], weights: set[str], transposed: dict[str, str]
) -> Iterator[NodeProto]:
    """Yield the nodes of the INT8 graph; `transposed` maps a matrix to the table that it is the transpose of."""
    quantized: set[str] = set()  # activations, once for all products that take them
    for node in nodes:
        if node.op_type == "Gather" and node.input[0] in tables:
            yield from _embedding(node)
        elif node.op_type == "MatMul" and (node.input[1] in weights or node.input[1] in transposed):
            states, matrix = node.input
            if states not in quantized:
                quantized.add(states)
                yield helper.make_node(
                    "DynamicQuantizeLinear", [states], _quantized(states), name=f"{OWN}{states}_QuantizeLinear"
                )
            if matrix in transposed:
                yield from _product(node, matrix, _scales(transposed[matrix]))
            else:
                yield from _product(node, _values(matrix), _scales(matrix))
        else:
            if node.op_type == "Transpose" and node.input[0] in tables:
                node.input[0] = _values(node.input[0])
            yield node


def _embedding(node: NodeProto) -> Iterator[NodeProto]:
    """Look int8 rows and their scales up, and multiply: rows (B, L, H) float32."""
    table, ids = node.input
    rows, values, scales, columns = (f"{OWN}{node.output[0]}_{part}" for part in ("int8", "float", "scale", "scales"))
    yield _node("Gather", [_values(table), ids], rows, axis=0)
    yield _node("Cast", [rows], values, to=TensorProto.FLOAT)
    yield _node("Gather", [_scales(table), ids], scales, axis=0)
    yield _node("Unsqueeze", [scales, LAST_AXIS], columns)
    yield _node("Mul", [values, columns], node.output[0])


def _product(node: NodeProto, values: str, column_scales: str) -> Iterator[NodeProto]:
    """Multiply quantized states (B, L, K) with int8 values (K, M), and scale to float32 (B, L, M).

    This is the pattern that ONNX Runtime fuses into one kernel with packed weights.
    """
    output = node.output[0]
    sums, floats, scales = (f"{OWN}{output}_{part}" for part in ("int32", "float", "scales"))
    quantized, scale, zero_point = _quantized(node.input[0])
    yield _node("MatMulInteger", [quantized, values, zero_point], sums)
    yield _node("Cast", [sums], floats, to=TensorProto.FLOAT)
    yield _node("Mul", [scale, column_scales], scales)
    yield _node("Mul", [floats, scales], output)


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs, [output], name=f"{OWN}{operator}_{output}", **attributes)


def _quantized(states: str) -> list[str]:
    return [f"{OWN}{states}_{part}" for part in ("quantized", "scale", "zero_point")]


def _values(matrix: str) -> str:
    return f"{OWN}{matrix}_values"


def _scales(matrix: str) -> str:
    return f"{OWN}{matrix}_scales"
