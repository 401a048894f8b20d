"""PyTorch models as self-contained ONNX graphs: equal weights give equal graphs, and a tied matrix is stored once.

Shapes: B sequences of L tokens, both dynamic; H hidden size; V vocabulary size.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn
from transformers import PreTrainedModel

from stages.deployment.graphs import split_gemms, strip, tie

INPUTS = ("input_ids", "attention_mask")
LAST_HIDDEN_STATE = "last_hidden_state"
MLM_OUTPUTS = ("logits", LAST_HIDDEN_STATE)
OPSET = 20  # the first with Gelu
EXAMPLE = (2, 8)  # sequences and tokens of the example that is traced


class _Exported(nn.Module):
    """A model that takes `input_ids` and `attention_mask` (B, L) and returns the named outputs in their order.

    The mask is handed over as what eager attention adds to its scores (B, 1, 1, L), so that the graph holds none of the
    index arithmetic that `transformers` needs for other kinds of mask.
    """

    def __init__(self, model: PreTrainedModel, outputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.outputs = outputs

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        padding = 1.0 - attention_mask[:, None, None, :].to(torch.float32)
        result = self.model(
            input_ids=input_ids,
            attention_mask=padding * torch.finfo(torch.float32).min,
            output_hidden_states=LAST_HIDDEN_STATE in self.outputs,
        )
        return tuple(result.hidden_states[-1] if name == LAST_HIDDEN_STATE else result[name] for name in self.outputs)


def export(model: PreTrainedModel, outputs: Sequence[str]) -> ModelProto:
    """Export a float32 encoder with inputs `input_ids` and `attention_mask` (B, L), both int64.

    `outputs` names fields of the model's output, or `last_hidden_state` (B, L, H). Leaves the model on the CPU, in
    evaluation mode and with eager attention, whose plain matrix products ONNX Runtime quantizes and fuses.
    """
    model.set_attn_implementation("eager")
    exported = _Exported(model.cpu(), outputs).train(False)
    weights = exported.state_dict()
    structure = (
        type(model),
        model.config.to_json_string(),
        tuple(outputs),
        tuple((name, value.shape) for name, value in weights.items()),
    )
    if structure not in _traced:  # tracing takes most of the time and sees nothing of the weights
        _traced.clear()
        _traced[structure] = _trace(exported, outputs)
    program = torch.onnx.ONNXProgram(_traced[structure].model.clone(), None)
    there = program.model.graph.initializers
    program.apply_weights({name: value for name, value in weights.items() if name in there})  # of tied ones, one
    program.optimize()
    graph: ModelProto = program.model_proto
    strip(graph)
    tie(graph)
    split_gemms(graph)
    onnx.checker.check_model(graph, full_check=True)
    return graph


_traced: dict[tuple[object, ...], torch.onnx.ONNXProgram] = {}  # of the structure seen last


def _trace(exported: nn.Module, outputs: Sequence[str]) -> torch.onnx.ONNXProgram:
    ids = torch.zeros(EXAMPLE, dtype=torch.int64)
    axes = {0: "batch", 1: "length"}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            exported,
            (ids, torch.ones_like(ids)),
            dynamo=True,
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=outputs,
            dynamic_shapes=(axes, axes),
            verbose=False,
            optimize=False,
        )
    assert program is not None
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes on its own internals and on torchvision, which nothing here uses."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")
            warnings.filterwarnings("ignore", message="# The axis name", category=UserWarning)
            yield
    finally:
        logger.setLevel(level)
