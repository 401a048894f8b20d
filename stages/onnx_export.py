"""Stage `onnx-export`: the student and the pruned student for ONNX Runtime, in fp32 and INT8."""

import shutil
from pathlib import Path
from typing import Any

from stages.core import warm
from stages.core.params import load_params

CHECKPOINTS = {"baseline": Path("models/distilbert"), "pruned": Path("models/pruned")}
MODELS = Path("models/onnx")
METRICS = Path("metrics/onnx")


def main() -> None:
    """Export and verify both models, and write all of their files together or none; then their metrics."""
    params = load_params()

    from stages.cards.card import shown_parameters
    from stages.cards.checkpoints import onnx_card
    from stages.core.artifacts import atomic_path, write_rows
    from stages.core.runtime import configure
    from stages.deployment.masked_lm import export_masked_lm
    from stages.modeling.loading import load_masked_lm

    configure(params.hardware)
    students = {name: load_masked_lm(checkpoint) for name, checkpoint in CHECKPOINTS.items()}
    found: dict[str, Any] = {}
    with atomic_path(MODELS) as models:
        models.mkdir()
        for name, checkpoint in CHECKPOINTS.items():
            found |= export_masked_lm(students[name], checkpoint, f"distilbert_{name}", models, params)
            shutil.copyfile(checkpoint / "tokenizer.json", models / f"tokenizer_{name}.json")
        shown = shown_parameters(params, "onnx_export")
        shown["onnx_export"].pop("tasks")
        onnx_card(MODELS, shown, CHECKPOINTS["baseline"], found).write(models)
    write_rows(METRICS, found)


if __name__ == "__main__":
    warm.run("stages.onnx_export")
