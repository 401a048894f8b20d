"""The stages `onnx-export` and `onnx-eval` from checkpoints to files and metrics, and their comparisons' arithmetic."""

import json
import os
import shutil
from contextlib import contextmanager
from math import sqrt

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from tiny_onnx import INT8_ERROR_BOUND, ROWS, make_project, student
from transformers import DistilBertForQuestionAnswering, DistilBertForSequenceClassification

from stages import onnx_eval, onnx_export
from stages.core.artifacts import digest
from stages.core.errors import UserError
from stages.deployment.files import write_pair
from stages.deployment.intervals import paired_interval
from stages.deployment.session import open_session
from stages.deployment.smoothing import Calibration
from stages.deployment.verification import Difference, batches, compare

ONNX = ("baseline", "baseline_int8", "pruned", "pruned_int8")
CELLS = [(model, task) for model in ("distilbert", "pruned") for task in ("SST-2", "SQuAD")]
FILES = {  # of every model, by what it is called here
    **{f"distilbert_{name}": f"models/onnx/distilbert_{name}.onnx" for name in ONNX},
    **{f"{task}/{model}": f"task_models/{task}/{model}/model.onnx" for model, task in CELLS},
    **{f"{task}/{model}_int8": f"task_models/{task}/{model}/model_int8.onnx" for model, task in CELLS},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project in which the stages have run."""
    root = tmp_path_factory.mktemp("project")
    make_project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        onnx_export.main()
        for model, task in CELLS:
            onnx_eval.main(["--model", model, "--task", task])
    return root


@pytest.fixture
def metrics(project):
    found = {path.stem: json.loads(path.read_text()) for path in (project / "metrics/onnx").iterdir()}
    for model, task in CELLS:
        cell = json.loads((project / f"data/eval/onnx/{task}/{model}.json").read_text())
        found |= {f"{task}/{model}": cell["fp32"], f"{task}/{model}_int8": cell["int8"]}
    return found


@pytest.mark.parametrize(
    ("folder", "output", "shape"),
    [
        ("models/onnx", "logits", (1, 10, 124)),
        ("task_models/SST-2/pruned", "logits", (1, 2)),
        ("task_models/SQuAD/distilbert", "end_logits", (1, 34)),
    ],
)
def test_the_card_s_example_runs(project, monkeypatch, folder, output, shape):
    monkeypatch.chdir(project)
    card = (project / folder / "README.md").read_text()
    found = {}
    exec(card.partition("```python\n")[2].partition("```")[0], found)
    assert found[output].shape == shape


def test_a_task_model_s_card_says_what_it_was_trained_on_and_what_it_scores(project, metrics):
    card = (project / "task_models/SQuAD/pruned/README.md").read_text()
    assert "# SQuAD, pruned\n" in card
    assert "The model of `models/pruned` fine-tuned on SQuAD, for ONNX Runtime, in fp32 and INT8." in card
    assert f"| INT8: f1 | {metrics['SQuAD/pruned_int8']['scores']['f1']:.4f} |" in card
    assert "squad from files of one's own" in card
    assert "SST-2" not in card


def test_every_model_has_its_file_and_its_metrics(project, metrics):
    beside = {"README.md", "tokenizer_baseline.json", "tokenizer_pruned.json"}
    files = {path.name for path in (project / "models/onnx").iterdir()}
    assert files == {f"distilbert_{name}.onnx" for name in ONNX} | beside
    for model, task in CELLS:
        files = {path.name for path in (project / "task_models" / task / model).iterdir()}
        assert files == {"model.onnx", "model_int8.onnx", "tokenizer.json", "README.md"}
    assert set(metrics) == set(FILES)
    for name, found in metrics.items():
        assert found["bytes"] == (project / FILES[name]).stat().st_size
        assert found["vocabulary_matrices"] == 1
        assert found["int8_vocabulary_matrices"] == name.endswith("_int8")


def test_masked_language_models_agree_with_pytorch(metrics):
    for name in ("distilbert_baseline", "distilbert_pruned"):
        assert 0 <= metrics[name]["max_abs_difference"] < 1e-4
        assert 0 < metrics[f"{name}_int8"]["relative_error"] < INT8_ERROR_BOUND
        assert 0.5 < metrics[f"{name}_int8"]["top1_agreement"] <= 1


@pytest.mark.parametrize(("task", "score", "unit"), [("SST-2", "accuracy", 1), ("SQuAD", "f1", 100)])
@pytest.mark.parametrize("model", ["distilbert", "pruned"])
def test_int8_task_models_are_compared_with_float32(metrics, task, score, unit, model):
    fp32, int8 = metrics[f"{task}/{model}"], metrics[f"{task}/{model}_int8"]
    assert fp32["rows"] == int8["rows"] == ROWS
    assert (fp32["source"], fp32["note"]) == ("files", "made up")
    assert int8["difference"] == pytest.approx(int8["scores"][score] - fp32["scores"][score])
    assert -unit <= int8["difference_low"] < int8["difference_high"] <= unit
    assert 0 <= int8["agreement"] <= 1
    assert 0 < fp32["max_abs_difference"] < 1e-4
    assert 0 < int8["relative_error"] < INT8_ERROR_BOUND
    assert "agreement" not in fp32


def test_pruned_weights_are_still_zero_after_fine_tuning(project):
    def zeros(name):
        graph = onnx.load(project / f"task_models/{name}/model.onnx").graph
        products = {node.input[1] for node in graph.node if node.op_type == "MatMul"}
        weights = [numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in products]
        return [float((weight == 0).mean()) for weight in weights if min(weight.shape) > 2]

    assert sorted(zeros("SST-2/pruned")) == [0.0] + [0.5] * 6  # the head's first product is new
    assert zeros("SQuAD/pruned") == [0.5] * 6
    assert zeros("SST-2/distilbert") == [0.0] * 7
    assert zeros("SQuAD/distilbert") == [0.0] * 6


@contextmanager
def away(path):
    """Take a file away for a while."""
    path.rename(path.with_suffix(".away"))
    try:
        yield
    finally:
        path.with_suffix(".away").rename(path)


def test_a_failure_leaves_the_last_files(project, monkeypatch):
    monkeypatch.chdir(project)
    before = digest(project / "models/onnx", project / "metrics/onnx")
    with (
        away(project / "data/corpus/dev.parquet"),
        pytest.raises(UserError, match=r"data/corpus/dev\.parquet: not found"),
    ):
        onnx_export.main()
    assert digest(project / "models/onnx", project / "metrics/onnx") == before
    assert {path.name for path in (project / "models").iterdir()} == {"distilbert", "pruned", "onnx"}


def test_a_cell_that_fails_leaves_its_last_files(project, monkeypatch):
    monkeypatch.chdir(project)
    before = digest(project / "task_models", project / "data/eval")
    with (
        away(project / "data/squad/dev.parquet"),
        pytest.raises(UserError, match=r"data/squad/dev\.parquet: not found"),
    ):
        onnx_eval.main(["--model", "pruned", "--task", "SQuAD"])
    assert digest(project / "task_models", project / "data/eval") == before


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--model", "bert", "--task", "SST-2"], "--model bert: not in .*, which has distilbert, pruned"),
        (["--model", "pruned", "--task", "MNLI"], "--task MNLI: not in .*`onnx_export.tasks`, which has SQuAD, SST-2"),
        (["--model", "pruned"], "--task; usage: stages.onnx_eval --model NAME --task NAME"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(project, monkeypatch, given, told):
    monkeypatch.chdir(project)
    with pytest.raises(UserError, match=told):
        onnx_eval.main(given)


def test_a_missing_checkpoint_names_its_stage_before_anything_is_done(project, tmp_path, monkeypatch):
    shutil.copytree(project / "models/distilbert", tmp_path / "models/distilbert")
    shutil.copy(project / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"models/pruned.*`dvc repro prune`"):
        onnx_export.main()
    assert not (tmp_path / "models/onnx").exists()


@pytest.mark.parametrize("name", ["distilbert", "pruned"])
def test_a_damaged_checkpoint_is_told_before_anything_is_done(project, tmp_path, monkeypatch, name):
    shutil.copytree(project / "models", tmp_path / "models", ignore=shutil.ignore_patterns("onnx"))
    shutil.copy(project / "params.yaml", tmp_path)
    weights = tmp_path / "models" / name / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"models/{name}: no readable checkpoint .*`dvc repro") as caught:
        onnx_export.main()
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["distilbert", "pruned"]


def test_the_comparison_sees_a_mask_that_lets_padding_through():
    model = student()

    class Session:
        """An ONNX session that takes padding for text."""

        def run(self, outputs, feed):
            with torch.inference_mode():
                return [model(input_ids=torch.from_numpy(feed["input_ids"])).logits.numpy()]

    blocks = np.random.default_rng(0).integers(1, 200, (3, 16))
    rounding, _ = compare(model, Session(), Session(), [*blocks], ["logits"])
    with pytest.raises(UserError, match="ONNX Runtime and PyTorch differ by"):
        rounding.require_rounding("student")


@pytest.mark.parametrize(
    ("kind", "outputs"),
    [
        (DistilBertForSequenceClassification, ("logits",)),
        (DistilBertForQuestionAnswering, ("start_logits", "end_logits")),
    ],
)
def test_task_models_are_compared_with_padding(kind, outputs, tmp_path):
    """A file whose mask lets padding through is found; one that is right passes, in INT8 too."""
    torch.manual_seed(2)
    model = kind(student().config).train(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    rows = [np.random.default_rng(length).integers(1, 200, length) for length in (16, 5, 9, 3, 11)]
    files = write_pair(model, outputs, "task", tmp_path, Calibration(rows, 0.6), threads=1)
    sessions = [open_session(file.path, threads=1) for file in files]
    rounding, quantization = compare(model, *sessions, rows, outputs)
    rounding.require_rounding("task")
    assert 0 < quantization.relative_error < INT8_ERROR_BOUND

    class Leaking:
        def __init__(self, session):
            self.session = session

        def run(self, names, feed):
            return self.session.run(names, {**feed, "attention_mask": np.ones_like(feed["attention_mask"])})

    leak, int8_leak = compare(model, Leaking(sessions[0]), sessions[1], rows, outputs)
    with pytest.raises(UserError, match="ONNX Runtime and PyTorch differ by"):
        leak.require_rounding("task")
    assert int8_leak.relative_error > quantization.relative_error


@pytest.mark.parametrize("count", [1, 4, 5])
def test_every_block_is_compared_whole_and_some_padded(count):
    blocks = np.arange(count * 8).reshape(count, 8)
    found = list(batches(blocks))
    np.testing.assert_array_equal(np.concatenate(found[::2]), blocks)
    assert all([len(row) for row in cut] == [8, 6, 4, 2] for cut in found[1::2])


def test_rows_of_unlike_lengths_are_cut_to_at_least_a_token():
    whole, cut = batches([np.arange(length) for length in (3, 3, 2, 1)])
    assert [len(row) for row in whole] == [3, 3, 2, 1]
    assert [len(row) for row in cut] == [3, 2, 1, 1]


def test_differences_are_those_of_the_formulas():
    reference = np.array([[3.0, 4.0], [0.0, 12.0]], np.float32)
    logits = np.array([[3.0, 2.0], [0.0, 12.0]], np.float32)
    found = Difference()
    found.add(logits[:1], reference[:1])
    found.add(logits[1:], reference[1:])
    assert found.largest == 2.0
    assert found.relative_error == pytest.approx(2 / 13)
    assert found.agreement == 0.5


@pytest.mark.parametrize(("error", "reference", "right"), [(5e-5, 0.1, True), (2e-4, 0.1, False), (2e-4, 10, True)])
def test_rounding_is_judged_on_the_scale_of_the_logits(error, reference, right):
    found = Difference()
    found.add(np.array([[reference + error, 0.0]]), np.array([[reference, 0.0]]))
    if right:
        found.require_rounding("model")
    else:
        with pytest.raises(UserError, match=r"model: .* differ by 2\.00e-04"):
            found.require_rounding("model")


def test_not_a_number_is_no_rounding():
    found = Difference()
    found.add(np.array([[np.nan, 0.0]]), np.array([[1.0, 0.0]]))
    with pytest.raises(UserError):
        found.require_rounding("model")


def test_paired_interval_is_bonett_and_prices():
    first = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0], float)  # alone right on three rows
    second = np.array([0, 0, 0, 1, 1, 1, 0, 0, 0, 0], float)  # alone right on one
    loss, gain = (3 + 1) / 12, (1 + 1) / 12
    half = 1.959964 * sqrt((loss + gain - (gain - loss) ** 2) / 12)
    assert paired_interval(first, second) == pytest.approx((gain - loss - half, gain - loss + half), abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=50))
def test_paired_interval_is_proper_and_antisymmetric(rows):
    first, second = np.array(rows).T
    low, high = paired_interval(first, second)
    assert -1 <= low < high <= 1
    assert paired_interval(second, first) == pytest.approx((-high, -low))
    assert low <= np.sum(second - first) / (len(rows) + 2) <= high
