"""The masked language model as ONNX files, verified on held-out text."""

from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from stages.core.params import Params
from stages.core.reading import load_tokenizer
from stages.deployment.export import MLM_OUTPUTS
from stages.deployment.files import write_pair
from stages.deployment.session import open_session
from stages.deployment.smoothing import Calibration
from stages.deployment.verification import compare, significant
from stages.distillation.corpus import load_blocks

CORPUS = Path("data/corpus")
SPLITS = ("train", "dev")


def export_masked_lm(
    model: PreTrainedModel, checkpoint: Path, name: str, models: Path, params: Params
) -> dict[str, dict[str, Any]]:
    """Write `<name>.onnx` and `<name>_int8.onnx` of a checkpoint's model, and return the metrics of both by name.

    Raises UserError if the text is missing, or if ONNX Runtime and PyTorch disagree.
    """
    tokenizer = load_tokenizer(checkpoint)
    settings, threads = params.onnx_export, params.hardware.threads
    train, dev = (load_blocks(CORPUS / f"{split}.parquet", tokenizer, params.distill.block_length) for split in SPLITS)
    calibration = Calibration([*np.array(train.ids[: settings.calibration_rows], np.int64)], settings.smoothing)
    ids = np.array(dev.ids[: settings.check_blocks], np.int64)
    fp32, int8 = write_pair(model, MLM_OUTPUTS, name, models, calibration, threads)
    exact, rounded = (open_session(file.path, threads) for file in (fp32, int8))
    rounding, quantization = compare(model, exact, rounded, [*ids], MLM_OUTPUTS[:1])
    rounding.require_rounding(name)
    return {
        fp32.path.stem: {**fp32.facts, "max_abs_difference": significant(rounding.largest)},
        int8.path.stem: {
            **int8.facts,
            "relative_error": significant(quantization.relative_error),
            "top1_agreement": significant(quantization.agreement),
        },
    }
