"""A Linear layer with INT8 weights, whose inputs are quantized when they come (dynamic quantization).

Weights are symmetric: w ≈ scale * q with integers q in [-127, 127] and a scale per matrix or per output channel.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

LARGEST = 127


class Int8Linear(nn.Module):
    """Holds `weight` int8 (out, in), `scale` fp16 (1,) or (out,), `bias` fp16 (out,) until `pack` makes it callable.

    Scales and biases are stored in half precision, so that a scale per channel does not make the file larger than
    float ones with a single scale would; weights are rounded by the stored scale, so it adds no error of its own.
    """

    def __init__(self, in_features: int, out_features: int, granularity: Literal["tensor", "channel"]) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        scales = 1 if granularity == "tensor" else out_features
        self.weight: Any
        self.scale: Any
        self.bias: Any
        self.register_buffer("weight", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(scales, dtype=torch.float16))
        self.register_buffer("bias", torch.zeros(out_features, dtype=torch.float16))
        self.packed: Any = None

    @classmethod
    def of(cls, linear: nn.Linear, granularity: Literal["tensor", "channel"]) -> "Int8Linear":
        """Quantize a float layer that has a bias; its `weight` and `bias` are left as they are."""
        made = cls(linear.in_features, linear.out_features, granularity)
        weight = linear.weight.detach().float()
        made.scale = stored_scale(weight.abs().max()[None] if granularity == "tensor" else weight.abs().amax(1))
        integers = (weight / made.scale.float()[:, None]).round_().clamp_(-LARGEST, LARGEST)
        made.weight, made.bias = integers.to(torch.int8), linear.bias.detach().to(torch.float16)
        return made

    def pack(self) -> None:
        """Bring the weight into the layout of this machine's kernels, and drop it as it was stored."""
        with _without_notice():
            self.packed = torch.ops.quantized.linear_prepack(self._quantized(), self.bias.float())
        self.weight = self.scale = self.bias = None

    def stored(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return weight, scale and bias as they are in a file, packed or not."""
        if self.packed is None:
            return self.weight, self.scale, self.bias
        with _without_notice():
            weight, bias = torch.ops.quantized.linear_unpack(self.packed)
        per_tensor = weight.qscheme() == torch.per_tensor_affine
        scale = torch.tensor([weight.q_scale()]) if per_tensor else weight.q_per_channel_scales()
        return weight.int_repr(), scale.to(torch.float16), bias.to(torch.float16)

    def dequantized(self) -> Tensor:
        """Return the float weight (out, in) that the integers stand for."""
        weight, scale, _ = self.stored()
        return weight.float() * scale.float()[:, None]

    def forward(self, inputs: Tensor) -> Tensor:
        """Map fp32 (..., in) to (..., out), with the inputs' range taken from the whole tensor."""
        outputs: Tensor = torch.ops.quantized.linear_dynamic(inputs, self.packed, _reduce_range())
        return outputs

    def _quantized(self) -> Tensor:
        if len(self.scale) == 1:
            return torch._make_per_tensor_quantized_tensor(self.weight, float(self.scale), 0)
        zero_points = torch.zeros(self.out_features, dtype=torch.int64)
        return torch._make_per_channel_quantized_tensor(self.weight, self.scale.double(), zero_points, 0)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for name, value in zip(("weight", "scale", "bias"), self.stored(), strict=True):
            destination[prefix + name] = value


def stored_scale(largest: Tensor) -> Tensor:
    """Return the half-precision scale that maps each largest magnitude to at most 127, rounded up so nothing is cut."""
    exact = largest / LARGEST
    scale = exact.to(torch.float16)
    up = torch.nextafter(scale, torch.tensor(torch.inf, dtype=torch.float16))
    scale = torch.where(scale.float() < exact, up, scale)
    return torch.where(scale > 0.0, scale, torch.ones_like(scale))  # a matrix or channel of zeros


def _reduce_range() -> bool:
    """Whether inputs get 7 bits rather than 8: x86 without VNNI adds pairs of products in 16 bits, which saturate.

    The lost bit raised the error of the outputs from 1.0 to 1.7 % (768 x 768, normal weights and inputs) and saved
    no time, so it is given up only there.
    """
    capabilities = torch.cpu.get_capabilities()
    vnni = capabilities.get("avx512_vnni", False) or capabilities.get("avx_vnni", False)
    return capabilities.get("architecture") == "x86_64" and not vnni


@contextmanager
def _without_notice() -> Iterator[None]:
    """Keep quiet that a later PyTorch will drop quantized tensors, the only weights that the packed operators take.

    Without them `pack` and `stored` fail, and with them loading and running INT8 checkpoints, until both call another
    kernel; no file has to be made again.

    The packed operators of `torch.backends.quantized.engine` run here as torch chooses it: on x86 that is FBGEMM.
    oneDNN's took half the time per layer on AVX512-VNNI but hold every weight twice, packed and unpacked.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*quantized tensor creation functions.*")
        yield
