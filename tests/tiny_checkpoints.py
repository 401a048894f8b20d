"""Tiny random checkpoints for tests: seconds to train, the real architectures."""

import string

import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer, DistilBertConfig, DistilBertForMaskedLM

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "on",
    "mat",
    "who",
    "what",
    "where",
    "not",
    "good",
    "bad",
    "river",
    "town",
    "sold",
]


def tokenizer():
    """A WordPiece tokenizer of a few words and all letters and digits."""
    characters = string.ascii_lowercase + string.digits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *characters]
    pieces += ["##" + character for character in characters] + [word for word in WORDS if len(word) > 1]
    return BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)})


def save_bert(folder, positions=64):
    """A random two-layer BERT with an MLM head, 32 wide."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def save_distilbert(folder, positions=64):
    """A random one-layer DistilBERT with an MLM head, 32 wide."""
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(tokenizer()), dim=32, n_layers=1, n_heads=2, hidden_dim=64, max_position_embeddings=positions
    )
    DistilBertForMaskedLM(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
