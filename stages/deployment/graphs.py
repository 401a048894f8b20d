"""ONNX graphs in memory: their initializers, what is stripped for equal bytes, and how they are written."""

from collections import Counter
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

HEAD_OUTPUTS = 32


def initializers(model: ModelProto) -> dict[str, TensorProto]:
    """Constant tensors of a graph by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def embedding_tables(model: ModelProto) -> set[str]:
    """Names of the float matrices (rows, H) that a Gather takes rows of: vocabulary and positions."""
    known = initializers(model)
    return {
        node.input[0]
        for node in model.graph.node
        if node.op_type == "Gather"
        and node.input[0] in known
        and len(known[node.input[0]].dims) == 2
        and known[node.input[0]].data_type == TensorProto.FLOAT
    }


def vocabulary_matrices(model: ModelProto, rows: int, data_type: int | None = None) -> int:
    """Count the stored matrices with a side of `rows`, the vocabulary's size; of one ONNX data type if given."""
    return sum(
        len(tensor.dims) == 2 and rows in tensor.dims and data_type in (None, tensor.data_type)
        for tensor in model.graph.initializer
    )


def strip(model: ModelProto) -> None:
    """Remove what describes the export and not the model: stack traces with paths, inferred shapes, doc strings."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    graph.ClearField("value_info")


def tie(model: ModelProto) -> None:
    """Replace constants that are the transpose of an embedding table, as small ones are folded to, by a Transpose."""
    known = initializers(model)
    for name in sorted(embedding_tables(model)):
        table = numpy_helper.to_array(known[name])
        for copy in [tensor for tensor in known.values() if list(tensor.dims) == [*reversed(table.shape)]]:
            if copy.name != name and np.array_equal(numpy_helper.to_array(copy), table.T):
                model.graph.initializer.remove(copy)
                model.graph.node.insert(0, transpose(name, copy.name))


def split_gemms(model: ModelProto) -> None:
    """Replace each Gemm with weights of its own by MatMul and Add, so that all products are stored alike."""
    known, uses = initializers(model), _uses(model)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Gemm" or node.input[1] not in known or uses[node.input[1]] > 1:
            nodes.append(node)
            continue
        settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert all(settings.get(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        assert not settings.get("transA")
        if settings.get("transB"):
            weight = known[node.input[1]]
            values = np.ascontiguousarray(numpy_helper.to_array(weight).T)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        operands, bias = node.input[:2], node.input[2:]  # a bias of zeros is left out by the exporter
        product = f"{node.output[0]}_product" if bias else node.output[0]
        nodes.append(helper.make_node("MatMul", operands, [product], name=node.name))
        if bias:
            nodes.append(helper.make_node("Add", [product, *bias], node.output, name=f"{node.name}_bias"))
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)


def products(model: ModelProto) -> dict[str, list[NodeProto]]:
    """Products of an activation with a stored matrix that nothing else takes, by the name of the activation."""
    known, uses = initializers(model), _uses(model)
    found: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in known and uses[node.input[1]] == 1:
            found.setdefault(node.input[0], []).append(node)
    return found


def is_head(known: dict[str, TensorProto], product: NodeProto) -> bool:
    """Whether a product with a stored matrix has so few outputs that it costs nothing: the last of a task's head."""
    return bool(known[product.input[1]].dims[1] < HEAD_OUTPUTS)


def _uses(model: ModelProto) -> Counter[str]:
    """Count how often each tensor is an input of a node."""
    return Counter(name for node in model.graph.node for name in node.input)


def transpose(source: str, output: str) -> NodeProto:
    """Make a node that transposes a matrix."""
    return helper.make_node("Transpose", [source], [output], name=f"transpose_{output}", perm=[1, 0])


def save(model: ModelProto, path: Path) -> None:
    """Write a graph with its weights as one file; equal graphs give equal bytes."""
    path.write_bytes(model.SerializeToString(deterministic=True))
