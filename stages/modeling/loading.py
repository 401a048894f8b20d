"""Loading a masked language model, compressed or not, and how large it is."""

from pathlib import Path
from typing import Any

from transformers import AutoModelForMaskedLM, PreTrainedModel

from stages.core.reading import readable, require_all_weights
from stages.modeling.int8 import Int8Linear


def load_masked_lm(folder: Path) -> PreTrainedModel:
    """Load a checkpoint folder such as models/combined, to evaluate; UserError if it is missing or damaged."""
    with readable(folder):
        loaded: Any = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    model, info = loaded
    require_all_weights(folder, info["missing_keys"])
    made: PreTrainedModel = model.train(False)
    return made


def parameter_count(model: PreTrainedModel) -> int:
    """Return how many weights and biases the model has, a matrix that is used twice counted once.

    An INT8 vocabulary projection is the float embedding a second time, so only its bias counts: the number is the
    same before and after quantization, whose scales are no parameters.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    projection = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    for module in model.modules():
        if isinstance(module, Int8Linear):
            matrix = 0 if module is projection else module.in_features * module.out_features
            total += matrix + module.out_features
    return total
