"""Dynamic INT8 in PyTorch at DistilBERT's published size with random weights: this project's Linear beside torchao's.

    pip install -c constraints.txt torchao
    python benchmarks/int8_backends.py [--tokens 64] [--threads 1] [--rounds 25]

Prints each model's stored bytes, the relative error of its logits, and the time of one row beside fp32's, the models
taking turns, each in a process of its own. torchao is also compiled, which its documentation asks for; that takes a
minute.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from published_size import parser, random_model, token_row
from torch import nn
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
from transformers import DistilBertForMaskedLM
from turns import MIB, by_turns, machine

from stages.compression.quantization import quantize
from stages.modeling.int8 import Int8Linear

COMPILED = ", compiled"
MODELS = ("fp32", "ours", "torchao", f"torchao{COMPILED}")


def main() -> None:
    """Measure, and print a line for each model."""
    options = parser(__doc__).parse_args()
    print(machine(options.threads))
    calls = {name: partial(prepare, name, options.tokens) for name in MODELS}
    found = by_turns(calls, options.rounds, 2, options.threads)
    print(f"{'model':20}{'MiB':>8}{'error':>9}{'ms':>26}{'faster':>9}")
    for name, measured in found.items():
        size = stored(build(name.removesuffix(COMPILED))) / MIB
        faster = found["fp32"].median / measured.median
        print(f"{name:20}{size:>8.1f}{measured.value:>9.2%}{measured.milliseconds:>26}{faster:>8.2f}x")


def build(name: str) -> DistilBertForMaskedLM:
    """Make the float model, or its INT8 form."""
    model = random_model()
    if name == "fp32":
        return model
    model = untied(model)
    if name == "torchao":
        quantize_(model, Int8DynamicActivationInt8WeightConfig())
        return model
    quantize(model, "channel")
    for module in model.modules():
        if isinstance(module, Int8Linear):
            module.pack()
    return model


@torch.inference_mode()
def prepare(name: str, tokens: int) -> Callable[[], float]:
    """Prepare a call of the model that returns the relative error of its logits, which is computed once."""
    ids, made = token_row(tokens), build(name.removesuffix(COMPILED))
    model = torch.compile(made) if name.endswith(COMPILED) else made
    exact, logits = random_model()(ids).logits, model(ids).logits
    error = float((logits - exact).norm() / exact.norm())

    @torch.inference_mode()
    def call() -> float:
        model(ids)
        return error

    return call


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
