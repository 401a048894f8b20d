"""Stage `glue-eval`, one cell of it: fine-tune a model on one GLUE task with one seed and score it on the dev set.

python -m stages.glue_eval --model bert --task CoLA --seed 42
"""

from collections.abc import Sequence
from pathlib import Path

from stages.core import warm


def main(argv: Sequence[str] | None = None) -> None:
    """Fine-tune a model on one GLUE task with one seed and score it on the dev set.

    Raises UserError for wrong arguments, parameters, data or checkpoints.
    """
    from stages.finetuning.arguments import parse  # here, so that asking for a warm fork is quick

    cell = parse("glue", argv)
    from stages.core import processes  # heavy, as the next: after the arguments are known to be right
    from stages.finetuning.classification import evaluate

    if not processes.spread("stages.glue_eval", "glue-eval", cell.params, cell.recipe.batch_size):
        evaluate(cell, Path("data/glue", cell.task))


if __name__ == "__main__":
    warm.run("stages.glue_eval")
