"""params.yaml: what is wrong is told in one line, before any work."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from stages.errors import UserError
from stages.params import load_params, validate

ROOT = Path(__file__).resolve().parents[1]


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
        ("batch_size", 3, ["effective_batch_size 16", "batch_size 3"]),
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
            [
                {
                    "repository": "a/b",
                    "revision": "0" * 40,
                    "max_train_rows": None,
                    "max_dev_rows": None,
                    "config": None,
                    "text_column": "text",
                    "files": None,
                }
            ],
            ["download", "and_also", "source is embedded"],
        ),
        ("download/source", "internet", ["download.source", "'embedded' or 'hub'"]),
        ("download/glue/revision", "main", ["download.glue.revision", "pattern"]),
        ("teacher/head_steps", 10**6, ["teacher", "head_steps 1000000 exceeds pretrain_steps"]),
        ("finetune/max_length", 1024, ["finetune.max_length", "512"]),
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
    assert params.glue.tasks["WNLI"].applied_to(params.finetune) == params.finetune


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
