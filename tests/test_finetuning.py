"""Fine-tuning cells, end to end on tiny random checkpoints, and what they are made of."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from damage import write_damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from tiny_checkpoints import WORDS, save_bert, save_distilbert, tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from stages import glue_eval, imdb_eval, squad_eval
from stages.compression.quantization import quantize
from stages.core.errors import UserError
from stages.core.params import Recipe
from stages.finetuning import trainer
from stages.finetuning.cells import read_rows
from stages.finetuning.classification import fit
from stages.finetuning.features import encode
from stages.finetuning.tasks import TASKS
from stages.modeling.loading import load_masked_lm

ROOT = Path(__file__).resolve().parent.parent
ROWS = 32


def sentence(draw, words=6):
    return " ".join(draw.choices(WORDS, k=draw.randint(1, words)))


def write_data(folder, splits):
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
    (folder / "dataset.json").write_text(json.dumps({"source": "files", "note": "made up"}))


def rows_of(task, draw, rows=ROWS):
    label = (lambda: draw.uniform(0, 5)) if task.regression else (lambda: draw.randrange(task.labels))
    return [{**{column: sentence(draw) for column in task.text}, "label": label()} for _ in range(rows)]


def squad_rows(draw):
    rows = []
    for index in range(ROWS):
        words = draw.choices(WORDS, k=40)
        start = draw.randrange(38)
        texts = [" ".join(words[start : start + 2]), words[start]]
        begin = len(" ".join(words[:start])) + (start > 0)
        answers = {"text": texts, "answer_start": [begin] * 2}
        rows.append({"id": f"q{index}", "question": sentence(draw), "context": " ".join(words), "answers": answers})
    return rows


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with tiny models, made-up data and a one-epoch recipe."""
    root, draw = tmp_path_factory.mktemp("project"), random.Random(0)
    save_bert(root / "models/bert")
    save_distilbert(root / "models/distilbert")
    for name in ("CoLA", "MNLI", "STS-B"):
        task = TASKS[name]
        write_data(root / "data/glue" / name, {split: rows_of(task, draw) for split in ("train", *task.dev_splits)})
    second = rows_of(TASKS["MNLI"], draw, ROWS + 1)
    pq.write_table(pa.Table.from_pylist(second), root / "data/glue/MNLI/dev_mismatched.parquet")
    write_data(root / "data/imdb", {split: rows_of(TASKS["IMDb"], draw) for split in ("train", "dev")})
    write_data(root / "data/squad", {split: squad_rows(draw) for split in ("train", "dev")})
    params = YAML(typ="safe", pure=True).load(ROOT / "profiles/tiny.yaml")
    params["hardware"] = {"threads": 1, "precision": "fp32"}
    params["finetune"] |= {"epochs": 1.0, "batch_size": 8, "eval_batch_size": 5, "max_length": 24}
    params["glue"]["tasks"] = {"CoLA": {"learning_rate": 1e-3}, "MNLI": {}, "STS-B": {}, "RTE": {}}
    params["squad"]["tasks"] = {"SQuAD": {"doc_stride": 8}}
    params["onnx_export"]["tasks"] = {}
    YAML(typ="safe", pure=True).dump(params, root / "params.yaml")
    return root


@pytest.fixture
def inside(project, monkeypatch):
    monkeypatch.chdir(project)
    return project


def run(stage, suite, model, task, seed=42):
    stage.main(["--model", model, "--task", task, "--seed", str(seed)])
    folder = Path("data/eval", suite, model, task, str(seed))
    assert sorted(path.name for path in folder.iterdir()) == ["predictions.parquet", "result.json"]
    seconds = json.loads(Path("data/eval/seconds", suite, model, task, f"{seed}.json").read_text())
    assert set(seconds) == {"train_seconds", "eval_seconds", "train_tokens_per_second"}
    return json.loads((folder / "result.json").read_text()), pq.read_table(folder / "predictions.parquet")


@pytest.mark.parametrize("model", ["bert", "distilbert"])
def test_binary_cell(inside, model, capfd):
    result, predictions = run(glue_eval, "glue", model, "CoLA")
    assert capfd.readouterr().err == ""  # no load report, no warning; the progress bar is for terminals
    assert set(result["scores"]) == set(result["majority"]) == {"matthews", "accuracy"}
    assert result["majority"]["matthews"] == 0.0
    assert (result["train_rows"], result["dev_rows"]) == (ROWS, ROWS)
    assert result["data"] == {"source": "files", "note": "made up"}
    assert result["recipe"]["learning_rate"] == 1e-3  # the task's own
    assert result["recipe"]["batch_size"] == 8
    assert result["model_parameters"] > 10_000
    assert predictions.column_names == ["index", "label", "prediction", "logits"]
    assert predictions["label"].to_pylist() == pq.read_table("data/glue/CoLA/dev.parquet")["label"].to_pylist()
    logits = np.array(predictions["logits"].to_pylist())
    assert logits.shape == (ROWS, 2)
    hits = predictions["prediction"].to_numpy() == predictions["label"].to_numpy()
    assert result["scores"]["accuracy"] == hits.mean()
    assert (logits.argmax(axis=1) == predictions["prediction"].to_numpy()).all()


def test_regression_cell(inside):
    result, predictions = run(glue_eval, "glue", "distilbert", "STS-B")
    assert set(result["scores"]) == {"pearson", "spearman"}
    assert result["majority"] == {"pearson": 0.0, "spearman": 0.0}
    expected = np.corrcoef(predictions["prediction"].to_numpy(), predictions["label"].to_numpy())[0, 1]
    assert result["scores"]["pearson"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("model", ["bert", "distilbert"])
def test_a_regression_starts_from_the_mean_label(inside, model):
    rows = [{"sentence1": "a", "sentence2": "b", "label": label} for label in (2.0, 4.0, 4.5)]
    untrained = recipe(learning_rate=1e-9)
    fitted, tokenizer, _ = fit(Path("models", model), TASKS["STS-B"], rows, untrained, 42, False, "")
    (answers,) = trainer.predict(fitted, tokenizer, encode(rows[:1], TASKS["STS-B"], tokenizer, fitted, 24), 1, False)
    assert answers == pytest.approx(3.5, abs=0.2)


def test_three_way_cell_with_a_mismatched_split(inside):
    result, predictions = run(glue_eval, "glue", "bert", "MNLI")
    assert set(result["scores"]) == set(result["majority"]) == {"accuracy", "accuracy_mismatched"}
    assert (result["dev_rows"], result["dev_rows_mismatched"]) == (ROWS, ROWS + 1)
    assert predictions["split"].to_pylist() == ["dev"] * ROWS + ["dev_mismatched"] * (ROWS + 1)
    labels = pq.read_table("data/glue/MNLI/dev_mismatched.parquet")["label"].to_pylist()
    assert result["majority"]["accuracy_mismatched"] == max(map(labels.count, labels)) / (ROWS + 1)
    assert len(predictions["logits"][0]) == 3


def test_imdb_cell(inside):
    result, _ = run(imdb_eval, "imdb", "distilbert", "IMDb")
    assert set(result["scores"]) == {"accuracy"}


@pytest.mark.parametrize("model", ["bert", "distilbert"])
def test_squad_cell(inside, model):
    result, predictions = run(squad_eval, "squad", model, "SQuAD")
    assert set(result["scores"]) == {"exact_match", "f1"}
    assert result["majority"] == {}
    assert result["recipe"]["doc_stride"] == 8
    rows = pq.read_table("data/squad/dev.parquet").to_pylist()
    assert predictions["id"].to_pylist() == [row["id"] for row in rows]
    for text, row in zip(predictions["prediction_text"].to_pylist(), rows, strict=True):
        assert text in row["context"]
    assert result["scores"]["f1"] == pytest.approx(np.mean(predictions["f1"].to_numpy()))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(inside):
    folder = Path("data/eval/glue/bert/CoLA")
    before = []
    for _ in range(2):
        run(glue_eval, "glue", "bert", "CoLA", seed=1)
        before.append({path.name: path.read_bytes() for path in (folder / "1").iterdir()})
        torch.rand(1)  # whatever else drew numbers must not matter
    run(glue_eval, "glue", "bert", "CoLA", seed=2)
    assert before[0] == before[1]
    assert before[0]["predictions.parquet"] != (folder / "2/predictions.parquet").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "roberta", "--task", "CoLA", "--seed", "1"], "--model roberta: .*bert, distilbert"),
        (["--model", "bert", "--task", "QQP", "--seed", "1"], r"--task QQP: .*`glue.tasks`.*CoLA, MNLI, RTE, STS-B"),
        (["--model", "bert", "--task", "CoLA", "--seed", "-1"], "--seed -1: allowed are 0 to"),
        (["--model", "bert", "--task", "CoLA", "--seed", "x"], "--seed: invalid int value"),
        (["--model", "bert", "--task", "CoLA"], "required: --seed"),
        (["--model", "bert", "--task", "CoLA", "--seed", "1", "--fast"], "unrecognized arguments: --fast"),
        (["--model", "bert", "--task", "RTE", "--seed", "1"], r"data/glue/RTE/train.parquet: not found"),
    ],
)
def test_wrong_arguments_are_one_line_that_says_what_is_allowed(inside, arguments, message):
    with pytest.raises(UserError, match=message) as raised:
        glue_eval.main(arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "message"), [("train.parquet", "damaged"), ("dataset.json", "not valid JSON")])
def test_damaged_data_is_one_line_before_any_training(inside, monkeypatch, name, message):
    monkeypatch.setattr("stages.finetuning.classification.fine_tune", None)
    path = Path("data/glue/CoLA", name)
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    with pytest.raises(UserError, match=f"{name}: {message}") as raised:
        glue_eval.main(["--model", "bert", "--task", "CoLA", "--seed", "3"])
    path.write_bytes(whole)
    assert "\n" not in str(raised.value)


def test_rows_with_a_flipped_byte_are_one_line(tmp_path):
    write_damaged(tmp_path / "dev.parquet", {"sentence": [f"text {number}" for number in range(999)]})
    with pytest.raises(UserError, match=r"dev\.parquet: damaged, .*; delete it and run `dvc repro download`"):
        read_rows(tmp_path, "dev")


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def drop_encoder_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "no readable checkpoint"),
        (lambda folder: (folder / "model.safetensors").unlink(), "not found"),
        (lambda folder: (folder / "config.json").write_text("{"), "no readable checkpoint"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "no readable tokenizer"),
        (shutil.rmtree, "config.json: not found"),
        (drop_encoder_weight, r"lacks encoder weights \(bert.encoder.layer.1.output.dense.weight and 0 more\)"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(tmp_path, damage, message):
    save_bert(tmp_path / "bert")
    damage(tmp_path / "bert")
    with pytest.raises(UserError, match=message) as raised:
        trainer.load(tmp_path / "bert", AutoModelForSequenceClassification, 1)
    assert str(tmp_path / "bert") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_int8_checkpoint_cannot_be_a_row(tmp_path):
    save_distilbert(tmp_path / "whole")
    model = load_masked_lm(tmp_path / "whole")
    quantize(model, "channel")
    model.save_pretrained(tmp_path / "quantized")
    AutoTokenizer.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "quantized")
    with pytest.raises(UserError, match="INT8 weights cannot be fine-tuned; take this row out of `models`"):
        trainer.load(tmp_path / "quantized", AutoModelForSequenceClassification, 1)


def recipe(**changes):
    values = {
        "epochs": 1.0,
        "batch_size": 8,
        "eval_batch_size": 8,
        "learning_rate": 1e-3,
        "warmup_ratio": 0.1,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "max_length": 32,
        "dropout": None,
        "freeze_word_embeddings": False,
        "threads": None,
    }
    return Recipe(**values | changes)


@pytest.fixture
def bert(tmp_path):
    save_bert(tmp_path / "bert")
    return trainer.load(tmp_path / "bert", AutoModelForSequenceClassification, 1, num_labels=2)


def test_a_loss_that_is_not_a_number_is_one_line(bert):
    model, words = bert
    features = encode(rows_of(TASKS["CoLA"], random.Random(0)), TASKS["CoLA"], words, model, 32)
    with pytest.raises(UserError, match=r"CoLA bert seed 1: the loss is not a number; lower finetune.learning_rate"):
        trainer.fine_tune(model, words, features, recipe(learning_rate=1e30), 1, False, "CoLA bert seed 1")


def test_bf16_and_fp32_trainings_may_share_a_process(bert):
    model, words = bert
    features = encode(rows_of(TASKS["CoLA"], random.Random(0)), TASKS["CoLA"], words, model, 32)
    for bf16 in (True, False):
        trainer.fine_tune(model, words, features, recipe(), 1, bf16, "CoLA")
        half, full = (np.stack(trainer.predict(model, words, features, 8, precision)) for precision in (True, False))
        assert not np.array_equal(half, full)
        np.testing.assert_allclose(half, full, atol=0.1)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_word_embeddings_stay_and_all_else_learns(bert, frozen):
    model, words = bert
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    features = encode(rows_of(TASKS["CoLA"], random.Random(0)), TASKS["CoLA"], words, model, 32)
    trainer.fine_tune(model, words, features, recipe(freeze_word_embeddings=frozen), 1, False, "CoLA")
    unchanged = {name for name, weight in model.state_dict().items() if torch.equal(weight, before[name])}
    assert unchanged == ({"bert.embeddings.word_embeddings.weight"} if frozen else set())


@pytest.mark.parametrize(("dropout", "expected"), [(None, {0.1}), (0.0, {0.0}), (0.3, {0.3})])
def test_dropout_is_the_recipe_s_or_the_checkpoint_s(bert, dropout, expected):
    model, words = bert
    features = encode(rows_of(TASKS["CoLA"], random.Random(0)), TASKS["CoLA"], words, model, 32)
    trainer.fine_tune(model, words, features, recipe(dropout=dropout), 1, False, "CoLA")
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == expected


def test_training_learns_an_easy_task(bert):
    model, words = bert
    rows = [{"sentence": text, "label": label} for text, label in (("good cat", 1), ("bad dog", 0))] * 32
    features = encode(rows, TASKS["CoLA"], words, model, 32)
    training = trainer.fine_tune(model, words, features, recipe(epochs=4.0, learning_rate=1e-2), 1, False, "CoLA")
    assert training.tokens == 4 * 64 * 4
    logits = np.stack(trainer.predict(model, words, features, 8, False))
    assert (logits.argmax(axis=1) == [row["label"] for row in rows]).all()


def test_predictions_come_in_row_order_whatever_the_batches(bert):
    model, words = bert
    features = encode(rows_of(TASKS["CoLA"], random.Random(3)), TASKS["CoLA"], words, model, 32)
    alone = np.stack([trainer.predict(model, words, [row], 1, False)[0] for row in features])
    np.testing.assert_allclose(np.stack(trainer.predict(model, words, features, 7, False)), alone, atol=1e-5)


def test_only_models_with_token_types_get_them(tmp_path, bert):
    save_distilbert(tmp_path / "distilbert")
    student, words = trainer.load(tmp_path / "distilbert", AutoModelForSequenceClassification, 1)
    row = {"sentence1": "the cat", "sentence2": "a dog", "label": 1}
    (features,) = encode([row], TASKS["RTE"], words, student, 32)
    assert set(features) == {"input_ids", "labels"}
    (features,) = encode([row], TASKS["RTE"], bert[1], bert[0], 32)
    assert features["token_type_ids"] == [0] * 4 + [1] * 3


def test_more_tokens_than_positions_are_an_error(bert):
    with pytest.raises(UserError, match="max_length 100 exceeds the model's 64 positions"):
        encode([], TASKS["CoLA"], bert[1], bert[0], 100)


def longest_first(left, right, room):
    """The plain definition: while a pair is too long, take a token from the longer text."""
    while left + right > room:
        left, right = (left - 1, right) if left > right else (left, right - 1)
    return left, right


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(8, 40))
def test_pairs_are_cut_longest_first(left, right, max_length):
    class Model:
        class config:  # noqa: N801
            max_position_embeddings = 512

        def forward(self, input_ids, token_type_ids):
            raise NotImplementedError

    row = {"sentence1": "cat " * left, "sentence2": "dog " * right, "label": 0}
    (features,) = encode([row], TASKS["RTE"], tokenizer(), Model(), max_length)
    kept = [features["input_ids"].count(tokenizer().convert_tokens_to_ids(word)) for word in ("cat", "dog")]
    expected = longest_first(left, right, max_length - 3)
    assert sum(kept) == sum(expected)
    assert kept == pytest.approx(expected, abs=1)  # an odd token may go to either text


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.integers(1, 9), st.integers(0, 9))
def test_length_grouped_batches_hold_every_row_once_and_depend_on_the_seed_alone(lengths, batch_size, seed):
    sampler = trainer.LengthGrouped(lengths, batch_size, seed)
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(len(lengths)))
    torch.rand(3)
    assert list(trainer.LengthGrouped(lengths, batch_size, seed)) == first


def test_length_grouped_batches_need_little_padding():
    lengths = random.Random(0).choices(range(5, 60), k=800)
    order = list(trainer.LengthGrouped(lengths, 32, 0))
    batches = [[lengths[index] for index in order[i : i + 32]] for i in range(0, 800, 32)]
    assert sum(len(batch) * max(batch) for batch in batches) < 1.15 * sum(lengths)
    assert [max(batch) for batch in batches] != sorted((max(batch) for batch in batches), reverse=True)
