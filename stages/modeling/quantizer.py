"""Lets `from_pretrained` load INT8 checkpoints: a quantization method that `transformers` finds in `config.json`."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from stages.modeling.int8 import Int8Linear

METHOD = "dynamic_int8"


@register_quantization_config(METHOD)
@dataclass
class DynamicInt8Config(QuantizationConfigMixin):
    """What `config.json` says of a quantized checkpoint."""

    granularity: Literal["tensor", "channel"] = "tensor"
    quant_method: Any = METHOD


@register_quantizer(METHOD)
class DynamicInt8Quantizer(HfQuantizer):
    """Puts `Int8Linear` in the place of every Linear layer before the weights are read, and packs them after."""

    quantization_config: DynamicInt8Config

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to quantize a float checkpoint on the fly, which the stage `quantize` is for."""
        if not self.pre_quantized:
            raise ValueError(f"{METHOD}: only checkpoints that the stage `quantize` wrote can be loaded")

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Keep what is not quantized in fp32, which the kernels take and give."""
        return torch.float32

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        for parent, name, linear in linear_layers(model):
            made = Int8Linear(linear.in_features, linear.out_features, self.quantization_config.granularity)
            setattr(parent, name, made)
        return model

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        for module in model.modules():
            if isinstance(module, Int8Linear):
                module.pack()
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()  # no tensor may hold the mapped file, whose integers are packed
        return model

    def is_serializable(self) -> bool:
        """Say that a loaded model can be saved again."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Say that integers cannot be trained."""
        return False


def linear_layers(model: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Return every Linear layer with the module that holds it and its name there."""
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear)
    ]
