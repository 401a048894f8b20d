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
from onnx import TensorProto, numpy_helper
from tiny_onnx import POSITIONS, ROOT, VOCABULARY, WIDTH, student
from transformers import DistilBertForMaskedLM

from stages.deployment.export import MLM_OUTPUTS, export
from stages.deployment.files import write_pair
from stages.deployment.graphs import save
from stages.deployment.quantization import quantize, quantized_rows
from stages.deployment.session import open_session
from stages.deployment.smoothing import Calibration, smooth
from stages.deployment.verification import padded, run, run_torch
from stages.errors import UserError

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
        assert 0 < np.linalg.norm(values - expected) < 0.05 * np.linalg.norm(expected)


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
    constant = {tensor.name for tensor in int8.initializer}
    assert not [node.name for node in int8.node if node.op_type in ("MatMul", "Gemm") and constant & set(node.input)]


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


@settings(deadline=None)
@given(
    arrays(
        np.float32, array_shapes(min_dims=2, max_dims=2), elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=False)
    )
)
def test_rows_are_rounded_to_half_a_step(table):
    values, scales = quantized_rows(table)
    assert np.abs(values.astype(int)).max() <= 127
    assert np.all(np.abs(values * scales[:, None] - table) <= 0.501 * scales[:, None])
    assert not values[~table.any(axis=1)].any()


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
