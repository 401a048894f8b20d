"""What INT8 costs at DistilBERT's published size with random weights, on this CPU and in exact integer arithmetic.

    python benchmarks/int8_arithmetic.py [--rows 16] [--tokens 64]

x86 CPUs without VNNI add pairs of products in 16 bits, which saturate where a file allows it; others add them exactly.
The exact figure is computed here on any CPU: each integer product of the same file is replaced by one of the same
numbers in float64. Prints the relative error of the logits, and how often the likeliest token is that of fp32.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from onnxruntime import InferenceSession
from published_size import SMOOTHING, random_model
from turns import machine

from stages.deployment.export import MLM_OUTPUTS
from stages.deployment.files import write_pair
from stages.deployment.session import open_session
from stages.deployment.smoothing import Calibration
from stages.deployment.verification import Difference, run

CALIBRATION_ROWS = 16


def main() -> None:
    """Export, and compare INT8 logits of both arithmetics with those of fp32."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = random_model()
    generator = np.random.default_rng(0)
    rows, known = (
        generator.integers(0, model.config.vocab_size, (count, options.tokens))
        for count in (options.rows, CALIBRATION_ROWS)
    )
    print(machine(options.threads))
    with tempfile.TemporaryDirectory() as folder:
        calibration = Calibration([*known], SMOOTHING)
        fp32, int8 = write_pair(model, MLM_OUTPUTS, "model", Path(folder), calibration, options.threads)
        exact = Path(folder, "exact.onnx")
        onnx.save(with_exact_products(onnx.load(int8.path)), exact)
        reference = open_session(fp32.path, options.threads)
        for name, file in (("this CPU", int8.path), ("exact integers", exact)):
            found = difference(reference, open_session(file, options.threads), rows)
            print(f"{name:16}{100 * found.relative_error:7.2f} % of the logits' norm, {found.agreement:.4f} agree")


def with_exact_products(graph: ModelProto) -> ModelProto:
    """Replace each integer product by one of the same numbers in float64, whose sums of integers are exact."""
    nodes = []
    for node in graph.graph.node:
        if node.op_type != "MatMulInteger":
            nodes.append(node)
            continue
        output = node.output[0]
        states, weights, zero_point = wide = [f"{output}_wide_{place}" for place in range(3)]
        for source, target in zip(node.input, wide, strict=True):
            nodes.append(helper.make_node("Cast", [source], [target], to=TensorProto.DOUBLE))
        nodes.append(helper.make_node("Sub", [states, zero_point], [f"{output}_states"]))
        nodes.append(helper.make_node("MatMul", [f"{output}_states", weights], [f"{output}_sums"]))
        nodes.append(helper.make_node("Cast", [f"{output}_sums"], [output], to=TensorProto.INT32))
    graph.graph.ClearField("node")
    graph.graph.node.extend(nodes)
    return graph


def difference(reference: InferenceSession, quantized: InferenceSession, rows: NDArray[np.int64]) -> Difference:
    """Compare the logits of single rows."""
    found = Difference()
    for row in rows:
        ids, mask = row[None], np.ones_like(row[None])
        (logits,), (exact,) = (run(session, ids, mask, MLM_OUTPUTS[:1]) for session in (quantized, reference))
        found.add(logits, exact)
    return found


if __name__ == "__main__":
    main()
