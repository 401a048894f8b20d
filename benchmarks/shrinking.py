"""What structured pruning and vocabulary trimming save at DistilBERT's published size, with random weights.

    python benchmarks/shrinking.py [--amount 0.5] [--tokens 64] [--threads 1] [--rounds 25]

Prints the sizes of the files and the speed of the encoder and of the masked language model in PyTorch, then that of the
whole and the structured model in ONNX Runtime, fp32 and INT8. What a table compares takes turns, each model in a
process of its own. Random weights have no quality; `prune` on a trained model tells about that.
"""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from published_size import SMOOTHING, parser, random_model, token_row
from transformers import DistilBertForMaskedLM, PreTrainedModel
from transformers.utils import logging
from turns import MIB, Measured, by_turns, machine

from stages.compression.structured import Importance, kept_heads, kept_width, shrink
from stages.compression.vocabulary import trim_model
from stages.deployment.export import MLM_OUTPUTS
from stages.deployment.files import write_pair
from stages.deployment.session import open_session
from stages.deployment.smoothing import Calibration

WARMUP = 2
MODELS = ("whole", "structured", "vocabulary")
EXPORTED = ("whole", "structured")


def main() -> None:
    """Measure, and print a table of each runtime."""
    arguments = parser(__doc__)
    arguments.add_argument("--amount", type=float, default=0.5, help="share of heads, FFN columns and tokens to remove")
    options = arguments.parse_args()
    print(machine(options.threads))
    logging.disable_progress_bar()  # of every file that is saved only to know its size

    def timed(part: str) -> dict[str, Measured]:
        calls = {name: partial(torch_call, name, part, options.amount, options.tokens) for name in MODELS}
        return by_turns(calls, options.rounds, WARMUP, options.threads)

    print_torch(options.amount, timed("encoder"), timed("MLM"))
    with tempfile.TemporaryDirectory() as folder:
        files = exported(Path(folder), options.amount, options.tokens, options.threads)
        calls = {name: partial(onnx_call, file, options.tokens, options.threads) for name, file in files.items()}
        print_onnx(files, by_turns(calls, options.rounds, WARMUP, options.threads))


def print_torch(amount: float, encoder: Mapping[str, Measured], full: Mapping[str, Measured]) -> None:
    """Print a line for each model in PyTorch."""
    print(
        f"\n{'PyTorch':12}{'parameters':>12}{'MiB':>9}{'of whole':>10}"
        f"{'encoder ms':>26}{'faster':>8}{'MLM ms':>26}{'faster':>8}"
    )
    sizes = {}
    for name in MODELS:
        model = build(name, amount)
        sizes[name] = file_size(model)
        print(
            f"{name:12}{model.num_parameters():>12,}{sizes[name] / MIB:>9.2f}{sizes[name] / sizes['whole']:>10.3f}"
            f"{encoder[name].milliseconds:>26}{encoder['whole'].median / encoder[name].median:>7.2f}x"
            f"{full[name].milliseconds:>26}{full['whole'].median / full[name].median:>7.2f}x"
        )


def print_onnx(files: Mapping[str, Path], found: Mapping[str, Measured]) -> None:
    """Print a line for each file, beside the whole model's in the same precision."""
    print(f"\n{'ONNX':18}{'MiB':>9}{'of whole':>10}{'MLM ms':>26}{'faster':>8}")
    for name, file in files.items():
        whole = name.replace("structured", "whole")
        size, of = file.stat().st_size, files[whole].stat().st_size
        print(
            f"{name:18}{size / MIB:>9.2f}{size / of:>10.3f}{found[name].milliseconds:>26}"
            f"{found[whole].median / found[name].median:>7.2f}x"
        )


def build(name: str, amount: float) -> PreTrainedModel:
    """Make the whole model or what is left of it; equal at every call."""
    model = random_model()
    if name == "whole":
        return model
    return structured(model, amount) if name == "structured" else trimmed(model, amount)


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


def exported(folder: Path, amount: float, tokens: int, threads: int) -> dict[str, Path]:
    """Write fp32 and INT8 files of the models; returns their paths by name."""
    calibration = Calibration([token_row(tokens)[0].numpy()], SMOOTHING)
    found = {}
    for name in EXPORTED:
        fp32, int8 = write_pair(build(name, amount), MLM_OUTPUTS, name, folder, calibration, threads)
        found |= {f"{name} fp32": fp32.path, f"{name} INT8": int8.path}
    return found


def torch_call(name: str, part: str, amount: float, tokens: int) -> Callable[[], float]:
    """Prepare a call of the encoder or of the whole masked language model."""
    model, ids = build(name, amount), token_row(tokens)

    @torch.inference_mode()
    def call() -> float:
        return float(model.distilbert(ids)[0].sum() if part == "encoder" else model(ids).logits[0, 0, 0])

    return call


def onnx_call(file: Path, tokens: int, threads: int) -> Callable[[], float]:
    """Prepare a call of an exported masked language model."""
    session, ids = open_session(file, threads), token_row(tokens).numpy()
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return lambda: float(session.run(["logits"], feed)[0][0, 0, 0])


if __name__ == "__main__":
    main()
