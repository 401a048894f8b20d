"""params.yaml: what is wrong is told in one line, before any work."""

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from stages.core.errors import UserError
from stages.core.params import load_params, validate

ROOT = Path(__file__).resolve().parents[1]
OWN_FILES = {"train": ["t.jsonl"], "dev": ["d.jsonl"]}
SECOND_DEV = {**OWN_FILES, "dev_mismatched": ["m.jsonl"]}
MORE_TEXT = {
    "repository": "a/b",
    "revision": "0" * 40,
    "max_train_rows": None,
    "max_dev_rows": None,
    "config": None,
    "text_column": "text",
    "files": None,
}


@pytest.fixture
def values() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
    return loaded


def put(values: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(values)
    *path, last = key.split("/")
    target = changed
    for part in path:
        target = target[part]
    target[last] = value
    return changed


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("distill/temprature", 2.0, ["distill.temprature", "unknown key", "temperature"]),
        ("distill/temperature", "2", ["distill.temperature", "'2'", "number"]),
        ("distill/temperature", -1, ["distill.temperature", "-1", "greater than 0"]),
        ("distill/temperature", float("nan"), ["distill.temperature", "nan"]),
        ("distill/kl_tokens", "some", ["distill.kl_tokens", "'all' or 'masked'"]),
        ("distill/teacher_layers", [], ["distill.teacher_layers", "at least 1"]),
        ("batch_size", 3, ["effective_batch_size 8", "batch_size 3"]),
        ("batch_size", True, ["batch_size", "True"]),
        ("batch_size", 8.0, ["batch_size", "8.0"]),
        ("seeds", [1, 1], ["seeds", "twice"]),
        ("seeds", [-1], ["seeds.0", "-1"]),
        ("models", {"bert": "elsewhere/bert"}, ["models.bert", "models/bert"]),
        ("models", {"BERT base": "models/x"}, ["models.BERT base", "pattern"]),
        ("glue/tasks/CoLA", {"lr": 1e-5}, ["glue.tasks.CoLA.lr", "unknown key", "learning_rate"]),
        ("glue/tasks/CoLA", None, ["glue.tasks.CoLA"]),
        ("glue/tasks/SQuAD", {}, ["glue.tasks.SQuAD", "CoLA"]),
        (
            "download/corpus/and_also",
            [MORE_TEXT],
            ["download", "and_also", "source is embedded"],
        ),
        ("download/source", "internet", ["download.source", "'embedded' or 'hub'"]),
        ("download/glue/revision", "main", ["download.glue.revision", "pattern"]),
        ("teacher/head_steps", 10**6, ["teacher", "head_steps 1000000 exceeds pretrain_steps"]),
        ("finetune/max_length", 1024, ["finetune.max_length", "512"]),
        ("distill/teacher_layers", [3, 1], ["distill: ", "teacher_layers [3, 1] must ascend"]),
        ("distill/teacher_layers", [1, 1], ["teacher_layers [1, 1] must ascend, each layer once"]),
        ("speed_bench/lengths", [64, 16], ["speed_bench: ", "lengths [64, 16] must ascend"]),
        ("speed_bench/lengths", [16, 16], ["lengths [16, 16] must ascend, each once"]),
        ("resources", {"distill": {"processes": 2}}, ["effective_batch_size 8", "batch_size 8 times 2 processes"]),
        ("resources", {"prune": {"processes": 2}}, ["resources.prune.processes", "distill, glue-eval"]),
        ("models/quantized", "models/quantized", ["models.quantized", "cannot be fine-tuned"]),
        ("squad/tasks/SQuAD/doc_stride", 125, ["squad.tasks.SQuAD.doc_stride 125", "below max_length - 3 = 125"]),
        ("squad/tasks/SQuAD/max_length", 64, ["squad.tasks.SQuAD.doc_stride 64", "below max_length - 3 = 61"]),
        ("squad/tasks/SQuAD", {"max_length": 128}, ["squad.tasks.SQuAD.doc_stride 128"]),
        ("onnx_export/tasks/SQuAD/doc_stride", 200, ["onnx_export.tasks.SQuAD.doc_stride 200", "= 125"]),
        ("finetune/max_length", 32, ["squad.tasks.SQuAD.doc_stride 64", "= 29"]),
        ("download/glue/files", {"MNLI": OWN_FILES}, ["download.glue: files.MNLI: dev_mismatched is missing"]),
        ("download/glue/files", {"RTE": SECOND_DEV}, ["files.RTE: dev_mismatched belongs to MNLI alone"]),
        ("download/corpus/files", SECOND_DEV, ["download: corpus.files: dev_mismatched belongs to MNLI alone"]),
        ("download/squad/files", SECOND_DEV, ["download: squad.files: dev_mismatched belongs to MNLI alone"]),
    ],
)
def test_wrong_values_are_named(values: dict[str, Any], key: str, value: object, says: list[str]) -> None:
    with pytest.raises(UserError) as error:
        validate(put(values, key, value))
    message = str(error.value)
    assert message.startswith("params.yaml: ")
    assert "\n" not in message
    for part in says:
        assert part in message


def test_more_text_names_no_more_text(values: dict[str, Any]) -> None:
    values = put(values, "download/source", "hub")
    validate(put(values, "download/corpus/and_also", [MORE_TEXT, MORE_TEXT]))
    with pytest.raises(UserError, match=r"^params.yaml: download: corpus.and_also .* an and_also of its own"):
        validate(put(values, "download/corpus/and_also", [{**MORE_TEXT, "and_also": [MORE_TEXT]}]))


@pytest.mark.parametrize(
    ("config", "key", "value", "says"),
    [
        ({"num_hidden_layers": 5}, "seed", 1, "teacher.config has layers 0 to 4, so there is no 5"),
        ({}, "distill/teacher_layers", [3, 12], "teacher.config has layers 0 to 11, so there is no 12"),
        ({"max_position_embeddings": 100}, "seed", 1, "glue.tasks.CoLA: max_length 128 exceeds"),
        ({"max_position_embeddings": 100}, "finetune/max_length", 90, "speed_bench.lengths: 128 exceeds"),
        ({"max_position_embeddings": 130}, "imdb/tasks/IMDb/max_length", 256, "imdb.tasks.IMDb: max_length 256"),
        ({"max_position_embeddings": 130}, "onnx_export/tasks/SST-2/max_length", 256, "onnx_export.tasks.SST-2: max"),
        ({"max_position_embeddings": 130}, "teacher/block_length", 131, "teacher.block_length 131 exceeds"),
        ({"max_position_embeddings": 130}, "distill/block_length", 131, "distill.block_length 131 exceeds"),
        ({"max_position_embeddings": 130}, "speed_bench/throughput_length", 131, "speed_bench.throughput_length 131"),
    ],
)
def test_a_random_teacher_is_large_enough(
    values: dict[str, Any], config: dict[str, int], key: str, value: object, says: str
) -> None:
    changed = put(put(put(values, "teacher/init", "config"), "teacher/config", config), key, value)
    with pytest.raises(UserError, match=re.escape(says)):
        validate(changed)
    validate(put(changed, "teacher/init", "folder"))  # whose sizes the parameters do not know


def test_settings_that_fit_each_other(values: dict[str, Any]) -> None:
    for key, value in (
        ("squad/tasks/SQuAD/doc_stride", 124),
        ("onnx_export/tasks/SQuAD", {"max_length": 384}),
        ("resources", {"distill": {"processes": 1}, "glue-eval": {"processes": 3}}),
        ("download/glue/files", {"MNLI": SECOND_DEV, "RTE": OWN_FILES}),
        ("download/corpus/files", OWN_FILES),
        ("models/pruned", "models/pruned"),
        ("onnx_export/tasks", {"SST-2": {"max_length": 16}}),  # whose doc_stride is nobody's
    ):
        validate(put(values, key, value))
    for section in ("glue", "imdb", "squad"):
        values[section]["tasks"] = {}
    validate(put(values, "models/quantized", "models/quantized"))


@given(name=st.sampled_from(["seeds", "distill", "epochs", "models", "finetune", "glue"]))
def test_missing_keys_are_named(name: str) -> None:
    values = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
    del values[name]
    with pytest.raises(UserError, match=f"params.yaml: {name}: missing"):
        validate(values)


@pytest.mark.parametrize("text", ["1e-05", "1e-5", "0.00001", "1.0e-05", "5e-4", "1"])
def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    lines = (ROOT / "profiles/tiny.yaml").read_text()
    path.write_text(lines.replace("adam_epsilon: 1e-6", f"adam_epsilon: {text}"))
    assert load_params(path).distill.adam_epsilon == float(text)


@pytest.mark.parametrize(("content", "says"), [(None, "not found"), ("a: [", "not valid YAML"), ("", "the file")])
def test_unusable_files(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as error:
        load_params(path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_overrides_replace_only_what_they_name(values: dict[str, Any]) -> None:
    params = validate(put(values, "glue/tasks/RTE", {"learning_rate": 1e-3}))
    recipe = params.glue.tasks["RTE"].applied_to(params.finetune)
    assert recipe.learning_rate == 1e-3
    assert recipe.model_copy(update={"learning_rate": params.finetune.learning_rate}) == params.finetune


def test_null_is_a_value_of_dropout_and_of_nothing_else(values: dict[str, Any]) -> None:
    values["finetune"]["dropout"] = 0.1
    params = validate(put(values, "glue/tasks/RTE", {"dropout": None, "epochs": None}))
    assert params.glue.tasks["RTE"].applied_to(params.finetune) == params.finetune.model_copy(update={"dropout": None})
    assert params.glue.tasks["QNLI"].applied_to(params.finetune) == params.finetune


@pytest.mark.parametrize("stage", ["download", "teacher", "distill", "glue_eval", "imdb_eval", "squad_eval", "report"])
def test_every_stage_ends_in_one_line_before_any_work(tmp_path: Path, stage: str) -> None:
    text = (ROOT / "profiles/tiny.yaml").read_text().replace("temperature: 2.0", "temperature: cold")
    (tmp_path / "params.yaml").write_text(text)
    task = {"glue_eval": "CoLA", "imdb_eval": "IMDb", "squad_eval": "SQuAD"}.get(stage)
    arguments = ["--model", "bert", "--task", task, "--seed", "42"] if task else []
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "DISTILBERT_WARM": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: params.yaml: distill.temperature: 'cold' is wrong: Input should be a valid number"
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["params.yaml"]
