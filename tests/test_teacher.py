import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from damage import write_damaged
from safetensors.torch import load_file, save_file
from tiny_distillation import ROOT, WORDS, config, make_project, teacher, tokenizer, write_text
from transformers import AutoTokenizer, BertForMaskedLM, BertModel, DistilBertConfig, DistilBertForMaskedLM

import stages.teacher
from stages.core.errors import UserError
from stages.distillation.teachers import train_tokenizer


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def metrics(folder: Path) -> dict[str, float]:
    values: dict[str, float] = json.loads((folder / "metrics/teacher.json").read_text())
    return values


def save_headless(folder: Path) -> BertModel:
    """Write a BERT encoder with a pooler but no MLM head, with the tests' vocabulary."""
    torch.manual_seed(4)
    encoder = BertModel(config())
    encoder.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return encoder


def test_a_configuration_becomes_a_bert_with_a_vocabulary_of_the_corpus(project: Path) -> None:
    make_project(project, teacher__pretrain_steps=0, teacher__head_steps=0)
    stages.teacher.main()
    model = BertForMaskedLM.from_pretrained("models/bert")
    made = AutoTokenizer.from_pretrained("models/bert")
    assert (model.config.hidden_size, model.config.num_hidden_layers, model.config.vocab_size) == (32, 3, 200)
    assert len(made) == 200
    assert made.tokenize("Word3 word149")[0] == "word3"
    assert made.unk_token_id not in made(" ".join(WORDS))["input_ids"]
    assert metrics(project)["updates"] == 0
    assert metrics(project)["parameters"] == model.num_parameters()
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight


def test_pretraining_lowers_the_held_out_loss_and_is_the_same_twice(project: Path) -> None:
    make_project(project, teacher__pretrain_steps=30, teacher__head_steps=0, teacher__learning_rate=3e-3)
    stages.teacher.main()
    first = load_file(project / "models/bert/model.safetensors")
    assert metrics(project)["mlm_loss"] < metrics(project)["initial_mlm_loss"]
    steps = [line.split("\t")[0] for line in (project / "plots/teacher/plots/metrics/held_out/mlm_loss.tsv").open()]
    assert steps == ["step", "0", "15", "30"]
    stages.teacher.main()
    again = load_file(project / "models/bert/model.safetensors")
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())


def test_a_new_head_trains_alone_first(project: Path) -> None:
    encoder = save_headless(project / "encoder").state_dict()
    make_project(project, teacher__init="encoder", teacher__pretrain_steps=4, teacher__head_steps=4)
    stages.teacher.main()
    saved = load_file(project / "models/bert/model.safetensors")
    assert all(torch.equal(saved[f"bert.{name}"], weight) for name, weight in encoder.items())
    head = saved["cls.predictions.transform.dense.weight"]
    assert 0 < (head - torch.eye(32)).abs().max() < 0.1


def test_both_phases_make_one_curve(project: Path) -> None:
    save_headless(project / "encoder")
    make_project(project, teacher__init="encoder")
    stages.teacher.main()
    steps = [line.split("\t")[0] for line in (project / "plots/teacher/plots/metrics/held_out/mlm_loss.tsv").open()]
    assert steps == ["step", "0", "2", "3", "5", "6"]
    assert [path for path in (project / ".cache/checkpoints").rglob("*") if path.is_file()] == []


def test_an_interrupted_second_phase_resumes_to_the_same_weights(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_headless(project / "encoder")
    make_project(project, teacher__init="encoder")
    stages.teacher.main()
    expected = load_file(project / "models/bert/model.safetensors")
    curve = (project / "plots/teacher/metrics.json").read_bytes()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("stages.distillation.teachers.save_teacher", stop)
        with pytest.raises(KeyboardInterrupt):
            stages.teacher.main()
    last = max((project / ".cache/checkpoints").rglob("complete.json"), key=lambda path: path.stat().st_mtime)
    last.unlink()  # as if the second phase had been cut short in its last checkpoint
    stages.teacher.main()
    resumed = load_file(project / "models/bert/model.safetensors")
    assert all(torch.equal(weight, resumed[name]) for name, weight in expected.items())
    assert (project / "plots/teacher/metrics.json").read_bytes() == curve


def test_a_bert_with_its_head_is_taken_as_it_is_with_its_pooler(project: Path) -> None:
    make_project(project, teacher__init="given", teacher__pretrain_steps=0, teacher__head_steps=0)
    original = teacher()
    original.save_pretrained("given")
    tokenizer().save_pretrained("given")
    weights = load_file("given/model.safetensors") | {
        "bert.pooler.dense.weight": torch.ones(32, 32),
        "bert.pooler.dense.bias": torch.ones(32),
    }
    save_file(weights, "given/model.safetensors", metadata={"format": "pt"})
    stages.teacher.main()
    ids = torch.randint(5, 150, (2, 12))
    with torch.no_grad():
        assert torch.equal(BertForMaskedLM.from_pretrained("models/bert")(ids).logits, original(ids).logits)
    assert BertModel.from_pretrained("models/bert").pooler.dense.weight.eq(1).all()


def test_vocabulary_training_is_the_same_in_every_process(tmp_path: Path) -> None:
    write_text(tmp_path / "text.parquet", 60)
    here = train_tokenizer(tmp_path / "text.parquet", 120, 32).get_vocab()
    script = (
        "import sys, json; from pathlib import Path; from stages.distillation.teachers import train_tokenizer;"
        "print(json.dumps(train_tokenizer(Path(sys.argv[1]), 120, 32).get_vocab()))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "text.parquet")]
    there = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert json.loads(there) == here
    assert len(here) == 120


def test_a_vocabulary_of_damaged_text_is_one_line(tmp_path: Path) -> None:
    write_damaged(tmp_path / "text.parquet", {"text": [f"text {number}" for number in range(999)]})
    with pytest.raises(UserError, match=r"text\.parquet: damaged, .*; delete it and run `dvc repro download`"):
        train_tokenizer(tmp_path / "text.parquet", 120, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"teacher__config": {"hiden_size": 32}},
            r"teacher.config.hiden_size: unknown key; allowed here: .*hidden_size",
        ),
        ({"teacher__config": {"vocab_size": 32}}, r"teacher.config.vocab_size: unknown key"),
        ({"teacher__config": {"hidden_size": 30, "num_attention_heads": 4}}, "no multiple of num_attention_heads 4"),
        ({"teacher__config": {"hidden_size": "wide"}}, "teacher.config"),
        (
            {"teacher__config": {"num_attention_heads": 0}},
            r"teacher.config.num_attention_heads: 0, expected at least 1",
        ),
        ({"teacher__config": {"intermediate_size": -1}}, r"teacher.config.intermediate_size: -1, expected at least 1"),
        ({"teacher__config": {"hidden_act": "gellu"}}, r"teacher.config.hidden_act: gellu, expected one of .*gelu"),
        ({"teacher__config": {"hidden_dropout_prob": 2.0}}, r"params.yaml: teacher.config: .*[Dd]ropout"),
        (
            {"teacher__init": "encoder", "teacher__block_length": 64},
            "teacher.block_length 64 exceeds the model's 32 positions",
        ),
        ({"teacher__init": "student"}, "student holds a distilbert model; a BERT encoder is needed"),
        ({"teacher__init": "bare"}, "bare: no tokenizer"),
        (
            {"teacher__init": "encoder", "teacher__pretrain_steps": 0, "teacher__head_steps": 0},
            "encoder brings no MLM head",
        ),
    ],
)
def test_what_cannot_be_a_teacher_is_named(project: Path, changes: dict[str, object], message: str) -> None:
    make_project(project, **changes)
    sizes = {"vocab_size": 155, "dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 48}
    DistilBertForMaskedLM(DistilBertConfig(**sizes)).save_pretrained("student")
    tokenizer().save_pretrained("student")
    teacher().save_pretrained("bare")
    save_headless(project / "encoder")
    with pytest.raises(UserError, match=message):
        stages.teacher.main()


@pytest.mark.parametrize(("phase", "key"), [("head", "head_learning_rate"), ("all", "learning_rate")])
def test_a_loss_that_is_not_a_number_names_the_key_to_lower(project: Path, phase: str, key: str) -> None:
    make_project(project, teacher__max_grad_norm=1e30, **{f"teacher__{key}": 1e30})
    expected = rf"teacher.{phase}: the loss is not a number by update \d+; lower teacher.{key} .* teacher.max_grad_norm"
    with pytest.raises(UserError, match=expected):
        stages.teacher.main()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", b"half", "given: no readable checkpoint"),
        ("config.json", b"{", "given: no readable checkpoint"),
        ("config.json", b'{"model_type": "unheard"}', "given: no readable checkpoint"),
        ("tokenizer.json", b"{", "given: no readable tokenizer"),
        ("model.safetensors.index.json", b"[]", "model.safetensors.index.json: no index of weights"),
    ],
)
def test_a_damaged_teacher_is_one_line(project: Path, file: str, content: bytes, message: str) -> None:
    make_project(project, teacher__init="given")
    teacher().save_pretrained("given")
    tokenizer().save_pretrained("given")
    if "index" in file:
        Path("given/model.safetensors").unlink()
    Path("given", file).write_bytes(content)
    with pytest.raises(UserError, match=message):
        stages.teacher.main()
    assert list(project.rglob("*.tmp")) == []
