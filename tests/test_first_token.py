"""A classifier whose last layer is computed for the first token alone answers and learns as the whole one does."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from stages.finetuning.first_token import first_token_only
from stages.modeling.shrunken import ShrunkenDistilBertConfig, ShrunkenDistilBertForSequenceClassification

WIDTH, VOCABULARY = 32, 40
BERT = {"hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
DISTILBERT = {"dim": WIDTH, "n_layers": 3, "n_heads": 4, "hidden_dim": 64}


def made(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "num_labels": 3}
    model: PreTrainedModel = {
        "bert": lambda: BertForSequenceClassification(BertConfig(**BERT, **sizes)),
        "distilbert": lambda: DistilBertForSequenceClassification(DistilBertConfig(**DISTILBERT, **sizes)),
        "shrunken": lambda: ShrunkenDistilBertForSequenceClassification(
            ShrunkenDistilBertConfig(**DISTILBERT, **sizes, head_size=8, kept_heads=2)
        ),
        "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**BERT, **sizes)),
    }[name]()
    return model.eval()


def rows() -> dict[str, torch.Tensor]:
    """Three rows of different lengths."""
    torch.manual_seed(1)
    mask = torch.tensor([[1] * length + [0] * (9 - length) for length in (9, 4, 6)])
    return {"input_ids": torch.randint(2, VOCABULARY, mask.shape), "attention_mask": mask}


@pytest.mark.parametrize("name", ["bert", "distilbert", "shrunken", "roberta"])
def test_logits_and_gradients_are_those_of_the_whole_model(name: str) -> None:
    model, batch = made(name), rows()
    model(**batch, labels=torch.tensor([0, 2, 1])).loss.backward()
    logits = model(**batch).logits
    gradients = {key: weight.grad for key, weight in model.named_parameters()}
    model.zero_grad()
    with first_token_only(model):
        model(**batch, labels=torch.tensor([0, 2, 1])).loss.backward()
        torch.testing.assert_close(model(**batch).logits, logits)
    for key, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[key], msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", ["bert", "distilbert", "shrunken"])
def test_the_last_layer_sees_one_token_inside_and_all_of_them_afterwards(name: str) -> None:
    model, batch, seen = made(name), rows(), []
    widest = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module.out_features == 64]
    widest[-1].register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    with first_token_only(model):
        model(**batch)
    model(**batch)
    assert seen == [1, 9]
