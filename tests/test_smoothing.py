"""Smoothing before INT8: the graph computes the same, INT8 loses less, and small heads stay float."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, numpy_helper
from tiny_onnx import VOCABULARY, student
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from stages.deployment.export import MLM_OUTPUTS, export
from stages.deployment.graphs import initializers, products
from stages.deployment.quantization import quantize
from stages.deployment.session import open_graph
from stages.deployment.smoothing import Calibration, channel_ranges, smooth, smoothing_scales
from stages.deployment.verification import run

DRAW = np.random.default_rng(3)
CALIBRATION, UNSEEN = (
    [DRAW.integers(0, VOCABULARY, length) for length in lengths] for lengths in ((12, 30, 48, 20), (5, 17, 40, 48, 1))
)
MAGNITUDES = st.floats(2**-3, 2**3, width=32)


@pytest.fixture(scope="module")
def graph():
    """A model with what trained encoders have: a few channels far larger than the others."""
    model = student()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("layer_norm.weight") or name.endswith("LayerNorm.weight"):
                parameter[:3] *= 40
    return export(model, MLM_OUTPUTS)


def logits(graph):
    session = open_graph(graph, threads=1)
    return [run(session, row[None], np.ones_like(row[None]), MLM_OUTPUTS)[0] for row in UNSEEN]


def error(graph, exact):
    pairs = zip(logits(graph), exact, strict=True)
    return np.sqrt(sum(np.square(a - b).sum() for a, b in pairs) / sum(np.square(b).sum() for b in exact))


def test_a_smoothed_graph_computes_the_same(graph):
    before = graph.SerializeToString(deterministic=True)
    smoothed = smooth(graph, Calibration(CALIBRATION, 0.6), threads=1)
    onnx.checker.check_model(smoothed, full_check=True)
    assert error(smoothed, logits(graph)) < 1e-5
    assert graph.SerializeToString(deterministic=True) == before


def test_a_smoothed_graph_loses_less_to_int8(graph):
    exact, smoothed = logits(graph), smooth(graph, Calibration(CALIBRATION, 0.6), threads=1)
    assert error(quantize(smoothed), exact) < 0.75 * error(quantize(graph), exact)


def test_pruned_weights_stay_zero(graph):
    pruned = onnx.ModelProto.FromString(graph.SerializeToString())
    for tensor in pruned.graph.initializer:
        if len(tensor.dims) == 2:
            values = numpy_helper.to_array(tensor).copy()
            values[::2] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    smoothed = initializers(smooth(pruned, Calibration(CALIBRATION, 0.6), threads=1))
    for name, tensor in initializers(pruned).items():
        np.testing.assert_array_equal(numpy_helper.to_array(smoothed[name]) == 0, numpy_helper.to_array(tensor) == 0)


@settings(deadline=None)
@given(data=st.data(), channels=st.integers(1, 9), strength=st.floats(0, 1))
def test_scales_are_positive_and_balance_the_ranges(data, channels, strength):
    activation, weights = (data.draw(arrays(np.float32, channels, elements=MAGNITUDES)) for _ in range(2))
    scales = smoothing_scales(activation, weights, strength)
    assert np.all(np.isfinite(scales))
    assert np.all(scales > 0)
    even = smoothing_scales(activation, weights, 0.5)  # shares evenly: both sides get the same range
    np.testing.assert_allclose(activation / even, weights * even, rtol=1e-5)


def test_scales_by_hand():
    activation, weights = np.array([16, 4, 0], np.float32), np.array([1, 4, 2], np.float32)
    np.testing.assert_allclose(smoothing_scales(activation, weights, 0.5)[:2], [4, 1])
    np.testing.assert_allclose(smoothing_scales(activation, weights, 1.0), [16, 4, 0.16])
    np.testing.assert_allclose(smoothing_scales(np.zeros(2, np.float32), np.zeros(2, np.float32), 0.5), [1, 1])


def test_ranges_are_the_largest_over_all_rows(graph):
    names = list(products(graph))
    together = channel_ranges(graph, CALIBRATION, names, threads=1)
    alone = [channel_ranges(graph, [row], names, threads=1) for row in CALIBRATION]
    for name in names:
        np.testing.assert_array_equal(together[name], np.max([ranges[name] for ranges in alone], axis=0))


def test_small_heads_stay_float():
    torch.manual_seed(0)
    sizes = {"dim": 64, "n_layers": 1, "n_heads": 2, "hidden_dim": 80, "max_position_embeddings": 48}
    config = DistilBertConfig(vocab_size=VOCABULARY, num_labels=3, **sizes)
    head = export(DistilBertForSequenceClassification(config).train(False), ("logits",))
    int8 = quantize(smooth(head, Calibration(CALIBRATION, 0.5), threads=1))
    floats = [list(t.dims) for t in int8.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 2]
    assert floats == [[64, 3]]
