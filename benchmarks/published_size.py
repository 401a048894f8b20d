"""What the benchmarks at DistilBERT's published size share: options, the model, and its input."""

import argparse

import torch
from transformers import DistilBertConfig, DistilBertForMaskedLM

SMOOTHING = 0.6  # of INT8 files, the default profile's: the graph has a product more for each smoothed activation


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that each of them has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--tokens", type=int, default=64, help="tokens of the one row")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--rounds", type=int, default=25)
    return made


def random_model() -> DistilBertForMaskedLM:
    """Build the published architecture with random weights, equal at every call."""
    torch.manual_seed(0)
    return DistilBertForMaskedLM(DistilBertConfig()).eval()


def token_row(tokens: int) -> torch.Tensor:
    """Make one row of token ids (1, tokens)."""
    return torch.arange(1000, 1000 + tokens)[None]
