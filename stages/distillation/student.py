"""The DistilBERT student: layers of the teacher, its embeddings and its masked-language-modelling head."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM

from stages.core.errors import UserError

LARGEST_EPS = 1e-5  # above this, DistilBERT's fixed LayerNorm epsilon of 1e-12 changes more than rounding


def build_student(teacher: BertForMaskedLM, layers: Sequence[int], init: str, seed: int) -> DistilBertForMaskedLM:
    """Make a student with a layer per entry of `layers`, copied or, with `init` "random", random.

    Raises UserError for a layer that the teacher does not have or a LayerNorm epsilon that DistilBERT cannot express.
    """
    _check(teacher.config, layers)
    with torch.random.fork_rng(devices=[]):  # it is made on the CPU
        torch.manual_seed(seed)
        student = DistilBertForMaskedLM(student_config(teacher.config, len(layers)))
    if init == "teacher":
        copy_teacher(teacher, student, layers)
    return student


def _check(config: BertConfig, layers: Sequence[int]) -> None:
    missing = [layer for layer in layers if not 0 <= layer < config.num_hidden_layers]
    if missing:
        raise UserError(
            f"params.yaml: distill.teacher_layers: the teacher has layers 0 to {config.num_hidden_layers - 1}, "
            f"so there is no {', '.join(map(str, missing))}"
        )
    if config.layer_norm_eps > LARGEST_EPS:
        raise UserError(
            f"models/bert/config.json: layer_norm_eps {config.layer_norm_eps} is too far from DistilBERT's 1e-12; "
            "choose a teacher with a smaller one"
        )


def student_config(teacher: BertConfig, layers: int) -> DistilBertConfig:
    """Take the teacher's sizes, activation and dropout with fewer layers."""
    return DistilBertConfig(
        vocab_size=teacher.vocab_size,
        max_position_embeddings=teacher.max_position_embeddings,
        sinusoidal_pos_embds=False,
        n_layers=layers,
        n_heads=teacher.num_attention_heads,
        dim=teacher.hidden_size,
        hidden_dim=teacher.intermediate_size,
        dropout=teacher.hidden_dropout_prob,
        attention_dropout=teacher.attention_probs_dropout_prob,
        activation=teacher.hidden_act,
        initializer_range=teacher.initializer_range,
        pad_token_id=teacher.pad_token_id,
    )


@torch.no_grad()
def copy_teacher(teacher: BertForMaskedLM, student: DistilBertForMaskedLM, layers: Sequence[int]) -> None:
    """Copy embeddings, the chosen layers and the MLM head in place.

    DistilBERT has no token types: row 0 of the teacher's goes into every position embedding, so that the embedding
    layer's output is the teacher's for a single segment.
    """
    source, target = teacher.bert.embeddings, student.distilbert.embeddings
    target.word_embeddings.weight.copy_(source.word_embeddings.weight)
    target.position_embeddings.weight.copy_(source.position_embeddings.weight + source.token_type_embeddings.weight[0])
    target.LayerNorm.load_state_dict(source.LayerNorm.state_dict())
    for layer, block in zip(layers, student.distilbert.transformer.layer, strict=True):
        _copy_layer(teacher.bert.encoder.layer[layer], block)
    head = teacher.cls.predictions
    student.vocab_transform.load_state_dict(head.transform.dense.state_dict())
    student.vocab_layer_norm.load_state_dict(head.transform.LayerNorm.state_dict())
    student.vocab_projector.bias.copy_(head.decoder.bias)  # its weight is tied to the word embeddings


def _copy_layer(source: Any, target: Any) -> None:
    pairs = (
        (source.attention.self.query, target.attention.q_lin),
        (source.attention.self.key, target.attention.k_lin),
        (source.attention.self.value, target.attention.v_lin),
        (source.attention.output.dense, target.attention.out_lin),
        (source.attention.output.LayerNorm, target.sa_layer_norm),
        (source.intermediate.dense, target.ffn.lin1),
        (source.output.dense, target.ffn.lin2),
        (source.output.LayerNorm, target.output_layer_norm),
    )
    for module, copy in pairs:
        copy.load_state_dict(module.state_dict())
