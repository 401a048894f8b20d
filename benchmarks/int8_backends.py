"""Dynamic INT8 in PyTorch at DistilBERT's published size with random weights: this project's Linear beside torchao's.

    pip install -c constraints.txt torchao
    python benchmarks/int8_backends.py [--tokens 64] [--threads 1] [--rounds 25]

Prints each model's stored bytes, the relative error of its logits, and the time of one row as a ratio to fp32, measured
by turns in the same process. torchao is also compiled, which its documentation asks for; that takes a minute.
"""

import copy

import torch
from published_size import by_turns, parser, random_model, token_row
from torch import nn
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
from transformers import DistilBertForMaskedLM

from stages.compression.int8 import Int8Linear
from stages.compression.quantization import quantize


def main() -> None:
    """Build the models, and print a line for each."""
    options = parser(__doc__).parse_args()
    whole = random_model(options.threads)
    ours, theirs = untied(whole), untied(whole)
    quantize(ours, "channel")
    for module in ours.modules():
        if isinstance(module, Int8Linear):
            module.pack()
    quantize_(theirs, Int8DynamicActivationInt8WeightConfig())
    models = {"fp32": whole, "ours": ours, "torchao": theirs, "torchao, compiled": torch.compile(copy.deepcopy(theirs))}
    ids = token_row(options.tokens)
    with torch.inference_mode():
        logits = {name: model(ids).logits for name, model in models.items()}
    seconds = by_turns({name: lambda model=model: model(ids) for name, model in models.items()}, options.rounds)
    exact = logits["fp32"]
    print(f"{'model':20}{'MiB':>8}{'error':>9}{'ms':>8}{'faster':>9}")
    for name, model in models.items():
        error = float((logits[name] - exact).norm() / exact.norm())
        faster = seconds["fp32"] / seconds[name]
        print(f"{name:20}{stored(model) / 2**20:>8.1f}{error:>9.2%}{1000 * seconds[name]:>8.1f}{faster:>8.2f}x")


def untied(model: DistilBertForMaskedLM) -> DistilBertForMaskedLM:
    """Copy a model and give its vocabulary projection a matrix of its own, which can be INT8 beside the embedding."""
    result = copy.deepcopy(model)
    result.vocab_projector.weight = nn.Parameter(result.vocab_projector.weight.detach().clone())
    return result


def stored(model: nn.Module) -> int:
    """Bytes of parameters and buffers, a shared tensor once."""
    tensors = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    return sum(bytes_of(tensor) for tensor in tensors.values())


def bytes_of(tensor: torch.Tensor) -> int:
    """Bytes of a tensor, or of those that a quantized one is made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(bytes_of(getattr(tensor, name)) for name in names)
    return tensor.numel() * tensor.element_size()


if __name__ == "__main__":
    main()
