"""Stage `onnx-eval`, one cell of it: a task model of the student, or of the pruned one, for ONNX Runtime.

python -m stages.onnx_eval --model pruned --task SST-2
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from stages.core import warm

CHECKPOINTS = {"distilbert": Path("models/distilbert"), "pruned": Path("models/pruned")}
MODELS = Path("task_models")
RESULTS = Path("data/eval/onnx")


def main(argv: Sequence[str] | None = None) -> None:
    """Fine-tune a checkpoint on a task, export it in fp32 and INT8, verify both and score them in ONNX Runtime.

    Raises UserError for wrong arguments, parameters, data or checkpoints.
    """
    from stages.core.arguments import Parser, require
    from stages.core.params import load_params

    params = load_params()
    parser = Parser("stages.onnx_eval", "--model NAME --task NAME")
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", required=True)
    given = parser.parse_args(argv)
    require(given.model, "model", CHECKPOINTS, "what is exported")
    require(given.task, "task", params.onnx_export.tasks, "params.yaml's `onnx_export.tasks`")

    from stages.cards.card import shown_parameters
    from stages.core.artifacts import atomic_path, write_json
    from stages.deployment.card import task_card
    from stages.deployment.tasks import export_task

    task, checkpoint, folder = given.task, CHECKPOINTS[given.model], MODELS / given.task / given.model
    with atomic_path(folder) as models:
        models.mkdir()
        fp32, int8 = export_task(task, checkpoint, models, params)
        shutil.copyfile(checkpoint / "tokenizer.json", models / "tokenizer.json")
        shown = shown_parameters(params, "onnx_export", "finetune", "seed")
        shown["onnx_export"]["tasks"] = {task: shown["onnx_export"]["tasks"][task]}
        task_card(folder, shown, task, checkpoint, fp32, int8).write(models)
    write_json(RESULTS / task / f"{given.model}.json", {"fp32": fp32, "int8": int8})


if __name__ == "__main__":
    warm.run("stages.onnx_eval")
