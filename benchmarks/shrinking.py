"""What structured pruning and vocabulary trimming save at DistilBERT's published size, with random weights.

    python benchmarks/shrinking.py [--amount 0.5] [--tokens 64] [--threads 1] [--rounds 25]

Prints the sizes of the files and, as ratios to the whole model measured by turns in the same process, the speed of the
encoder and of the masked language model. Random weights have no quality; `prune` on a trained model tells about that.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from published_size import by_turns, parser, random_model, token_row
from transformers import DistilBertForMaskedLM, PreTrainedModel

from stages.compression.structured import Importance, kept_heads, kept_width, shrink
from stages.compression.vocabulary import trim_model


def main() -> None:
    """Build the models, and print a line for each."""
    arguments = parser(__doc__)
    arguments.add_argument("--amount", type=float, default=0.5, help="share of heads, FFN columns and tokens to remove")
    options = arguments.parse_args()
    whole = random_model(options.threads)
    models = {
        "whole": whole,
        "structured": structured(whole, options.amount),
        "vocabulary": trimmed(whole, options.amount),
    }
    sizes = {name: file_size(model) for name, model in models.items()}
    ids = token_row(options.tokens)
    encoder = by_turns({name: encoder_call(model, ids) for name, model in models.items()}, options.rounds)
    full = by_turns({name: model_call(model, ids) for name, model in models.items()}, options.rounds)
    print(
        f"{'model':12}{'parameters':>12}{'MiB':>9}{'of whole':>10}"
        f"{'encoder ms':>12}{'faster':>8}{'MLM ms':>9}{'faster':>8}"
    )
    for name, model in models.items():
        print(
            f"{name:12}{model.num_parameters():>12,}{sizes[name] / 2**20:>9.2f}{sizes[name] / sizes['whole']:>10.3f}"
            f"{1000 * encoder[name]:>12.1f}{encoder['whole'] / encoder[name]:>7.2f}x"
            f"{1000 * full[name]:>9.1f}{full['whole'] / full[name]:>7.2f}x"
        )


def structured(model: DistilBertForMaskedLM, amount: float) -> PreTrainedModel:
    """Remove heads and FFN columns, whichever: speed does not depend on the choice."""
    config = model.config
    scores = Importance(
        [torch.rand(config.n_heads)] * config.n_layers, [torch.rand(config.hidden_dim)] * config.n_layers
    )
    return shrink(model, scores, kept_heads(config.n_heads, amount), kept_width(config.hidden_dim, amount)).eval()


def trimmed(model: DistilBertForMaskedLM, amount: float) -> PreTrainedModel:
    """Keep the first tokens of the vocabulary."""
    kept = np.arange(round((1 - amount) * model.config.vocab_size))
    return trim_model(model, kept, DistilBertForMaskedLM).eval()


def file_size(model: PreTrainedModel) -> int:
    """Bytes of the saved weights."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return Path(folder, "model.safetensors").stat().st_size


def encoder_call(model: PreTrainedModel, ids: torch.Tensor) -> Callable[[], object]:
    """Return a call of the encoder without the vocabulary projection."""
    return lambda: model.distilbert(ids)


def model_call(model: PreTrainedModel, ids: torch.Tensor) -> Callable[[], object]:
    """Return a call of the whole masked language model."""
    return lambda: model(ids)


if __name__ == "__main__":
    main()
