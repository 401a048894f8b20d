import pytest
import torch
from tiny_distillation import config, teacher
from transformers import BertForMaskedLM, DistilBertForMaskedLM

from stages.core.errors import UserError
from stages.distillation.student import build_student, copy_teacher

IDS = torch.randint(5, 150, (3, 16), generator=torch.Generator().manual_seed(1))
RENAMED = {
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}


@pytest.fixture(scope="module")
def bert() -> BertForMaskedLM:
    return teacher()


@pytest.mark.parametrize("layers", [[0, 2], [2], [1, 0, 1]])
def test_layers_equal_the_chosen_teacher_layers(bert: BertForMaskedLM, layers: list[int]) -> None:
    student = build_student(bert, layers, "teacher", seed=1)
    assert len(student.distilbert.transformer.layer) == len(layers)
    for layer, block in zip(layers, student.distilbert.transformer.layer, strict=True):
        weights = bert.bert.encoder.layer[layer].state_dict()
        copied = block.state_dict()
        assert len(copied) == len(weights)
        for name, renamed in RENAMED.items():
            for kind in ("weight", "bias"):
                assert torch.equal(copied[f"{name}.{kind}"], weights[f"{renamed}.{kind}"])


def test_embedding_output_is_exact(bert: BertForMaskedLM) -> None:
    exact, student = teacher().double(), build_student(bert, [0], "random", seed=1).double().eval()
    copy_teacher(exact, student, [0])
    copied, original = student.distilbert.embeddings(IDS), exact.bert.embeddings(IDS)
    torch.testing.assert_close(copied, original, rtol=0.0, atol=1e-12)  # (a + b) + c is a + (b + c) but for rounding


def test_with_all_layers_the_logits_are_the_teachers(bert: BertForMaskedLM) -> None:
    student = build_student(bert, range(3), "teacher", seed=1).eval()
    with torch.no_grad():
        torch.testing.assert_close(student(IDS).logits, bert(IDS).logits, rtol=1e-4, atol=1e-5)


def test_vocabulary_matrix_is_tied(bert: BertForMaskedLM) -> None:
    student = build_student(bert, [0], "teacher", seed=1)
    assert student.vocab_projector.weight is student.distilbert.embeddings.word_embeddings.weight


def test_settings_come_from_the_teacher() -> None:
    changes = {"hidden_act": "relu", "hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2, "pad_token_id": 4}
    made = build_student(BertForMaskedLM(config(**changes)), [1], "teacher", seed=1).config
    assert (made.activation, made.dropout, made.attention_dropout, made.pad_token_id) == ("relu", 0.3, 0.2, 4)
    assert (made.n_heads, made.dim, made.hidden_dim, made.max_position_embeddings) == (4, 32, 48, 32)
    assert not made.sinusoidal_pos_embds


def test_random_student_depends_on_the_seed_alone(bert: BertForMaskedLM) -> None:
    first, again, other = (build_student(bert, [0], "random", seed) for seed in (1, 1, 2))
    weight = "distilbert.transformer.layer.0.ffn.lin1.weight"
    assert torch.equal(first.state_dict()[weight], again.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], bert.bert.encoder.layer[0].intermediate.dense.weight)


def test_a_student_can_be_saved_and_loaded(bert: BertForMaskedLM, tmp_path: object) -> None:
    student = build_student(bert, [0, 2], "teacher", seed=1).eval()
    student.save_pretrained(tmp_path)
    loaded = DistilBertForMaskedLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, student(IDS).logits)


@pytest.mark.parametrize("layers", [[0, 3], [-1]])
def test_a_layer_that_is_not_there_is_named(bert: BertForMaskedLM, layers: list[int]) -> None:
    with pytest.raises(
        UserError, match=r"distill.teacher_layers: the teacher has layers 0 to 2, so there is no (3|-1)"
    ):
        build_student(bert, layers, "teacher", seed=1)


def test_a_layer_norm_that_distilbert_cannot_express_is_refused() -> None:
    with pytest.raises(UserError, match="layer_norm_eps"):
        build_student(BertForMaskedLM(config(layer_norm_eps=1e-3)), [0], "teacher", seed=1)
