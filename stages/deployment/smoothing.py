"""Products made easier to quantize: large activation channels lend some of their range to the weights.

Dynamic INT8 gives all channels of an activation one scale, so that a few large channels cost the others their
precision. X W = (X / s)(diag(s) W) holds for any positive s, and weights, which have a scale an output channel, can
bear the range: SmoothQuant (Xiao et al. 2023, https://arxiv.org/abs/2211.10438), equation 4.

Shapes: L tokens, K channels, M outputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from stages.deployment.graphs import initializers, is_head, products
from stages.deployment.session import open_graph

SMALLEST = 1e-2  # of a channel's range, as a share of the largest: one that calibration left silent may yet speak

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """Token ids (L,) of training text, and the strength (0, 1]: 0.5 shares the range evenly, 1 leaves all to weights.

    0 stands for no smoothing, which `smooth` is not called for.
    """

    rows: Sequence[NDArray[np.int64]]
    strength: float


def smooth(model: ModelProto, calibration: Calibration, threads: int) -> ModelProto:
    """Return a float32 graph with the same outputs whose products lose less to INT8; the original stays as it is.

    Each activation that feeds products with constant weights is divided by its scales (K,) once, and the weights
    (K, M) take them up.
    """
    result = ModelProto()
    result.CopyFrom(model)
    known = initializers(result)
    groups = {
        name: nodes for name, nodes in products(result).items() if any(not is_head(known, node) for node in nodes)
    }
    divided: dict[str, str] = {}  # an activation -> what its products take in its place
    for name, largest in channel_ranges(model, calibration.rows, list(groups), threads).items():
        weights = [numpy_helper.to_array(known[node.input[1]]) for node in groups[name]]
        heaviest = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
        scales = smoothing_scales(largest, heaviest, calibration.strength)
        divided[name] = f"{name}_smoothed"
        result.graph.initializer.append(numpy_helper.from_array(1 / scales, f"{name}_smoothing"))
        for node, weight in zip(groups[name], weights, strict=True):
            known[node.input[1]].CopyFrom(numpy_helper.from_array(weight * scales[:, None], node.input[1]))
            node.input[0] = divided[name]
    nodes = [new for node in result.graph.node for new in _with_division(node, divided)]
    result.graph.ClearField("node")
    result.graph.node.extend(nodes)
    return result


def smoothing_scales(activation: Vector, weights: Vector, strength: float) -> Vector:
    """Scales (K,) by the channels' largest magnitudes (K,) in activation and weights: max|X| ** a / max|W| ** (1 - a).

    Magnitudes below 1 % of the largest count as that.
    """
    largest, heaviest = (
        np.maximum(values, SMALLEST * values.max()) if values.max() > 0 else np.ones_like(values)
        for values in (activation, weights)
    )
    return np.asarray(largest**strength / heaviest ** (1 - strength), np.float32)


def channel_ranges(
    model: ModelProto, rows: Sequence[NDArray[np.int64]], names: list[str], threads: int
) -> dict[str, Vector]:
    """Run rows of token ids (L,) and return the largest magnitude (K,) of each channel of the named activations."""
    watched = ModelProto()
    watched.CopyFrom(model)
    outputs = {output.name for output in watched.graph.output}
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in outputs
    )
    session = open_graph(watched, threads)
    found: dict[str, Vector] = {}
    for row in rows:
        values = session.run(names, {"input_ids": row[None], "attention_mask": np.ones_like(row[None])})
        for name, value in zip(names, values, strict=True):
            largest = np.abs(value.reshape(-1, value.shape[-1])).max(axis=0)
            found[name] = np.maximum(found[name], largest) if name in found else largest
    return found


def _with_division(node: NodeProto, divided: dict[str, str]) -> Iterator[NodeProto]:
    """Yield a node, and behind it the division of what it computes."""
    yield node
    for output in node.output:
        if output in divided:
            name = divided[output]
            yield helper.make_node("Mul", [output, f"{output}_smoothing"], [name], name=name)
