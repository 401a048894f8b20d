"""Stage `onnx-export`: student, pruned student and task models of both for ONNX Runtime, in fp32 and INT8."""

import shutil
from pathlib import Path
from typing import Any

from stages.core import warm
from stages.core.params import load_params

CHECKPOINTS = {"baseline": Path("models/distilbert"), "pruned": Path("models/pruned")}
MODELS = Path("models/onnx")
METRICS = Path("metrics/onnx")


def main() -> None:
    """Export, verify and score every model, and write all files together or none."""
    params = load_params()

    from stages.cards.card import shown_parameters
    from stages.cards.checkpoints import onnx_card
    from stages.cards.terms import sources_of_data
    from stages.core.artifacts import atomic_path, write_json
    from stages.core.runtime import configure
    from stages.deployment.masked_lm import export_masked_lm
    from stages.deployment.tasks import data_folder, export_task
    from stages.finetuning.tasks import file_prefix
    from stages.modeling.loading import load_masked_lm

    configure(params.hardware)
    students = {name: load_masked_lm(checkpoint) for name, checkpoint in CHECKPOINTS.items()}
    trained_on = [source for task in params.onnx_export.tasks for source in sources_of_data(data_folder(task))]
    with atomic_path(METRICS) as metrics, atomic_path(MODELS) as models:
        models.mkdir()
        metrics.mkdir()
        found: dict[str, Any] = {}
        for name, checkpoint in CHECKPOINTS.items():
            found |= export_masked_lm(students[name], checkpoint, f"distilbert_{name}", models, params)
        for task, settings in params.onnx_export.tasks.items():
            for name, checkpoint in CHECKPOINTS.items():
                found |= export_task(task, settings, checkpoint, f"{file_prefix(task)}_{name}", models, params)
        for name, checkpoint in CHECKPOINTS.items():
            shutil.copyfile(checkpoint / "tokenizer.json", models / f"tokenizer_{name}.json")
        shown = shown_parameters(params, "onnx_export", "finetune", "seed")
        onnx_card(MODELS, shown, CHECKPOINTS["baseline"], trained_on, found).write(models)
        for name, figures in found.items():
            write_json(metrics / f"{name}.json", figures)


if __name__ == "__main__":
    warm.run("stages.onnx_export")
