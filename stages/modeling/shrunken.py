"""DistilBERT with fewer attention heads of the same size; in `DistilBertConfig` the head size is always dim / n_heads.

Importing this module registers the classes with `AutoConfig`, `AutoModel…` and `AutoTokenizer`.
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
    DistilBertModel,
)
from transformers.models.distilbert.modeling_distilbert import DistilBertSelfAttention


@strict
class ShrunkenDistilBertConfig(DistilBertConfig):  # type: ignore[no-untyped-call]
    """DistilBERT's settings, `n_heads` being the unpruned model's, with the size and number of the heads kept."""

    model_type = "distilbert_shrunken"

    head_size: int = 64
    kept_heads: int = 12


class ShrunkenSelfAttention(DistilBertSelfAttention):
    """Attention whose heads together may be narrower than the hidden states."""

    def __init__(self, config: ShrunkenDistilBertConfig) -> None:
        nn.Module.__init__(self)  # DistilBERT's own would make square matrices
        width = config.kept_heads * config.head_size
        self.config = config
        self.n_heads, self.dim = config.kept_heads, config.dim
        self.attention_head_size = config.head_size
        self.scaling = config.head_size**-0.5
        self.q_lin = nn.Linear(config.dim, width)
        self.k_lin = nn.Linear(config.dim, width)
        self.v_lin = nn.Linear(config.dim, width)
        self.out_lin = nn.Linear(width, config.dim)
        self.dropout = nn.Dropout(config.attention_dropout)
        self.is_causal = False


class ShrunkenDistilBertModel(DistilBertModel):  # type: ignore[no-untyped-call]
    """The encoder."""

    config_class = ShrunkenDistilBertConfig

    def __init__(self, config: ShrunkenDistilBertConfig) -> None:
        super().__init__(config)
        for block in self.transformer.layer:
            block.attention = ShrunkenSelfAttention(config)
        self.post_init()  # type: ignore[no-untyped-call]


class _WithShrunkenEncoder:
    """Mixin that puts the shrunken encoder under a DistilBERT head."""

    config_class: Any = ShrunkenDistilBertConfig

    def __init__(self, config: ShrunkenDistilBertConfig) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        self.distilbert: Any = ShrunkenDistilBertModel(config)
        self.post_init()  # type: ignore[attr-defined]


class ShrunkenDistilBertForMaskedLM(_WithShrunkenEncoder, DistilBertForMaskedLM):  # type: ignore[no-untyped-call]
    """The encoder with the masked-language-modelling head."""


class ShrunkenDistilBertForSequenceClassification(
    _WithShrunkenEncoder,
    DistilBertForSequenceClassification,  # type: ignore[no-untyped-call]
):
    """The encoder with a classification or regression head."""


class ShrunkenDistilBertForQuestionAnswering(
    _WithShrunkenEncoder,
    DistilBertForQuestionAnswering,  # type: ignore[no-untyped-call]
):
    """The encoder with a span head."""


AutoConfig.register("distilbert_shrunken", ShrunkenDistilBertConfig)
AutoTokenizer.register(ShrunkenDistilBertConfig, fast_tokenizer_class=BertTokenizer)  # type: ignore[no-untyped-call]
for auto, model in (
    (AutoModel, ShrunkenDistilBertModel),
    (AutoModelForMaskedLM, ShrunkenDistilBertForMaskedLM),
    (AutoModelForSequenceClassification, ShrunkenDistilBertForSequenceClassification),
    (AutoModelForQuestionAnswering, ShrunkenDistilBertForQuestionAnswering),
):
    auto.register(ShrunkenDistilBertConfig, model)
