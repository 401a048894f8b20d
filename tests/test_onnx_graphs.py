"""Exported graphs against PyTorch: float32 to rounding, INT8 within bounds, one vocabulary matrix, equal bytes."""

import sys
import warnings

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx import TensorProto, helper, numpy_helper
from tiny_onnx import INT8_ERROR_BOUND, POSITIONS, ROOT, VOCABULARY, WIDTH, student
from transformers import DistilBertForMaskedLM

from stages.core.errors import UserError
from stages.deployment.export import MLM_OUTPUTS, OPSET, export
from stages.deployment.files import write_pair
from stages.deployment.graphs import save
from stages.deployment.quantization import quantize, quantized_rows
from stages.deployment.session import open_graph, open_session
from stages.deployment.smoothing import Calibration, smooth
from stages.deployment.verification import padded, run, run_torch

CALIBRATION = Calibration(
    [np.random.default_rng(length).integers(0, VOCABULARY, length) for length in (12, 30, 48)], strength=0.6
)


@pytest.fixture(scope="module")
def model():
    return student()


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    return write_pair(model, MLM_OUTPUTS, "student", tmp_path_factory.mktemp("onnx"), CALIBRATION, threads=1)


@pytest.fixture(scope="module")
def sessions(files):
    return [open_session(file.path, threads=1) for file in files]


@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.integers(1, POSITIONS), min_size=1, max_size=6), seed=st.integers(0, 2**32 - 1))
def test_float32_of_padded_rows_is_pytorch_of_each_row_alone(model, sessions, lengths, seed):
    generator = np.random.default_rng(seed)
    rows = [generator.integers(0, VOCABULARY, length) for length in lengths]
    ids, mask = padded(rows, pad=0)
    found = run(sessions[0], ids, mask, MLM_OUTPUTS)
    assert found[0].shape == (*ids.shape, VOCABULARY)
    assert found[1].shape == (*ids.shape, WIDTH)
    with torch.inference_mode():
        for index, row in enumerate(rows):
            output = model(input_ids=torch.tensor(row)[None], output_hidden_states=True)
            for values, expected in zip(found, (output.logits, output.hidden_states[-1]), strict=True):
                np.testing.assert_allclose(values[index, : len(row)], expected[0], rtol=0, atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(rows=st.integers(1, 4), length=st.integers(1, POSITIONS), seed=st.integers(0, 2**32 - 1))
def test_the_int8_error_is_small(sessions, rows, length, seed):
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (rows, length))
    exact, rounded = (run(session, ids, np.ones_like(ids), MLM_OUTPUTS) for session in sessions)
    for values, expected in zip(rounded, exact, strict=True):
        assert 0 < np.linalg.norm(values - expected) < INT8_ERROR_BOUND * np.linalg.norm(expected)


@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.integers(1, POSITIONS), min_size=2, max_size=6), seed=st.integers(0, 2**32 - 1))
def test_the_int8_error_of_padded_rows_is_small(sessions, lengths, seed):
    generator = np.random.default_rng(seed)
    rows = [generator.integers(0, VOCABULARY, length) for length in lengths]
    ids, mask = padded(rows, pad=0)
    together = run(sessions[1], ids, mask, ["logits"])[0]
    alone = [run(sessions[0], row[None], np.ones_like(row[None]), ["logits"])[0][0] for row in rows]
    error = sum(np.square(found[: len(one)] - one).sum() for found, one in zip(together, alone, strict=True))
    assert 0 < np.sqrt(error / sum(np.square(one).sum() for one in alone)) < INT8_ERROR_BOUND


def test_the_vocabulary_is_stored_once(files):
    matrix = sorted((VOCABULARY, WIDTH))
    fp32, int8 = (onnx.load(file.path).graph.initializer for file in files)
    found = [[(t.data_type, sorted(t.dims)) for t in each if sorted(t.dims) == matrix] for each in (fp32, int8)]
    assert found == [[(TensorProto.FLOAT, matrix)], [(TensorProto.INT8, matrix)]]
    assert [file.facts["vocabulary_matrices"] for file in files] == [1, 1]
    assert [file.facts["int8_vocabulary_matrices"] for file in files] == [0, 1]


def test_every_weight_is_stored_once_and_no_matrix_of_the_int8_file_is_float(model, files):
    fp32, int8 = (onnx.load(file.path).graph for file in files)
    stored = sum(numpy_helper.to_array(t).size for t in fp32.initializer if t.data_type == TensorProto.FLOAT and t.dims)
    assert stored == model.num_parameters()
    assert not [t.name for t in int8.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) > 1]
    assert not float_products_with_constants(int8)


def float_products_with_constants(graph):
    """Names of the float products of which an operand derives from constants alone, by whatever nodes."""
    constant, found = {tensor.name for tensor in graph.initializer}, []
    for node in graph.node:
        if set(node.input) <= {*constant, ""}:
            constant |= set(node.output)
        elif node.op_type in ("MatMul", "Gemm") and constant & set(node.input[:2]):
            found.append(node.name)
    return found


@pytest.mark.parametrize("how", ["DequantizeLinear", "Cast", "Transpose"])
def test_a_float_projection_with_an_int8_matrix_would_be_found(files, how):
    """The graph that the assertions above are to refuse: a product in float32 with what was int8 in the file."""
    graph = onnx.load(files[1].path).graph
    product, matrix = next((n, t.output[0]) for n in graph.node for t in transposes(graph) if t.output[0] in n.input)
    inputs, attributes = {
        "DequantizeLinear": ([matrix, "step"], {}),
        "Cast": ([matrix], {"to": TensorProto.FLOAT}),
        "Transpose": ([matrix], {}),
    }[how]
    graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "step"))
    graph.node.append(helper.make_node(how, inputs, ["float"], **attributes))
    graph.node.append(helper.make_node("MatMul", ["states", "float"], ["logits_in_float"], name="float_projection"))
    assert float_products_with_constants(graph) == ["float_projection"]
    graph.node.remove(product)
    assert not int8_projections(graph)


def transposes(graph):
    stored = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.INT8}
    return [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in stored]


def int8_projections(graph):
    """Names of the int8 matrices that a Gather takes rows of and whose Transpose goes into a MatMulInteger."""
    gathered = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    multiplied = {node.input[1] for node in graph.node if node.op_type == "MatMulInteger"}
    return [node.input[0] for node in transposes(graph) if node.input[0] in gathered and node.output[0] in multiplied]


def test_embedding_and_projection_compute_with_the_same_int8_matrix(files):
    graph = onnx.load(files[1].path).graph
    (name,) = int8_projections(graph)
    (table,) = (tensor for tensor in graph.initializer if tensor.name == name)
    assert (table.data_type, [*table.dims]) == (TensorProto.INT8, [VOCABULARY, WIDTH])


def test_facts_are_the_files(files):
    for file in files:
        assert file.facts["bytes"] == file.path.stat().st_size
        assert file.facts["size_mb"] == round(file.path.stat().st_size / 1048576, 2)
    assert not [path for file in files for path in file.path.parent.iterdir() if path.suffix != ".onnx"]


def test_exporting_again_is_quiet_and_gives_equal_bytes_without_paths(model, files, tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = export(model, MLM_OUTPUTS)
        save(graph, tmp_path / "again.onnx")
        save(quantize(smooth(graph, CALIBRATION, threads=1)), tmp_path / "again_int8.onnx")
    assert capfd.readouterr() == ("", "")
    for path, file in zip(("again.onnx", "again_int8.onnx"), files, strict=True):
        content = file.path.read_bytes()
        assert (tmp_path / path).read_bytes() == content
        for word in (str(ROOT), sys.prefix, 'File "', "site-packages"):
            assert word.encode() not in content


def test_a_graph_traced_for_other_weights_gets_its_own(model, monkeypatch):
    monkeypatch.setattr("stages.deployment.export._traced", {})
    alone = export(model, MLM_OUTPUTS).SerializeToString(deterministic=True)
    monkeypatch.setattr("stages.deployment.export._traced", {})
    other = export(DistilBertForMaskedLM(model.config), MLM_OUTPUTS)  # its biases are zero, which merging would merge
    monkeypatch.setattr("torch.onnx.export", lambda *_, **__: pytest.fail("was traced again"))
    after = export(model, MLM_OUTPUTS).SerializeToString(deterministic=True)
    assert after == alone != other.SerializeToString(deterministic=True)


def test_quantizing_leaves_the_float32_graph_alone(files):
    graph = onnx.load(files[0].path)
    before = graph.SerializeToString(deterministic=True)
    quantize(graph)
    assert graph.SerializeToString(deterministic=True) == before


matrices = arrays(
    np.float32, array_shapes(min_dims=2, max_dims=2), elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=False)
)


@settings(deadline=None)
@given(matrices, st.booleans())
def test_rows_are_rounded_to_half_a_step(table, pairs):
    values, scales = quantized_rows(table, pairs)
    assert np.abs(values.astype(int)).max() <= 127
    assert np.all(np.abs(values * scales[:, None] - table) <= 0.501 * scales[:, None])
    assert not values[~table.any(axis=1)].any()


@settings(deadline=None)
@given(matrices)
def test_no_pair_of_values_overflows_16_bits_with_the_largest_input(table):
    values = quantized_rows(table)[0].astype(int)
    pairs = values[:, : values.shape[1] // 2 * 2].reshape(len(values), -1, 2)
    sums = 255 * np.maximum(pairs, 0).sum(axis=2), 255 * np.minimum(pairs, 0).sum(axis=2)
    assert all(np.all((each >= -(2**15)) & (each < 2**15)) for each in sums)


def test_a_scale_is_no_larger_than_the_pairs_need():
    table = np.array([[4, -4, 1, 2], [4, 4, 0, 1], [3, 1, 4, -4], [0, 0, 0, 0]], np.float32)
    np.testing.assert_allclose(quantized_rows(table)[1], [4 / 127, 8 / 127.5, 4 / 127, 1])
    np.testing.assert_allclose(quantized_rows(table, pairs=False)[1], [4 / 127, 4 / 127, 4 / 127, 1])


@pytest.mark.parametrize("inner", [8, 33, 384])
@pytest.mark.parametrize("rows", [1, 5])
def test_onnx_runtime_adds_products_exactly_on_every_cpu(inner, rows):
    """All inputs and all weights at their largest, of one sign: what saturates where a file allows it."""
    generator = np.random.default_rng(inner)
    weights = np.abs(generator.standard_normal((inner, 32))).astype(np.float32) + 1
    weights[:, ::2] *= -1
    states = helper.make_tensor_value_info("states", TensorProto.FLOAT, [rows, inner])
    outputs = helper.make_tensor_value_info("outputs", TensorProto.FLOAT, [rows, 32])
    node = helper.make_node("MatMul", ["states", "weights"], ["outputs"])
    graph = helper.make_graph([node], "product", [states], [outputs], [numpy_helper.from_array(weights, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    found = open_graph(quantize(model), threads=1).run(None, {"states": np.ones((rows, inner), np.float32)})[0]
    values, scales = quantized_rows(weights.T)
    np.testing.assert_allclose(found, np.broadcast_to(values.sum(axis=1) * scales, (rows, 32)), rtol=1e-5)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_told_in_one_line(files, tmp_path, kept):
    content = files[1].path.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match=r"cut\.onnx.*`dvc repro onnx-export`") as caught:
        open_session(path, threads=1)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_stage(tmp_path):
    with pytest.raises(UserError, match=r"none\.onnx: not found; `dvc repro onnx-export` makes it"):
        open_session(tmp_path / "none.onnx", threads=1)


def test_the_arena_changes_nothing_but_memory(files, sessions):
    ids = np.arange(12, dtype=np.int64).reshape(2, 6)
    frugal = open_session(files[1].path, threads=1, arena=False)
    first, second = (run(session, ids, np.ones_like(ids), ["logits"])[0] for session in (sessions[1], frugal))
    np.testing.assert_array_equal(first, second)


def test_pytorch_is_asked_for_a_row_without_padding(model):
    row = np.array([3, 1, 4])
    assert run_torch(model, row, ["logits"])[0].shape == (1, 3, VOCABULARY)
