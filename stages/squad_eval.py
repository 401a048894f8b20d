"""Stage `squad-eval`, one cell of it: fine-tune a model on SQuAD 1.1 with one seed and score its answers.

python -m stages.squad_eval --model bert --task SQuAD --seed 42
"""

from collections.abc import Sequence
from pathlib import Path

from stages.core import warm


def main(argv: Sequence[str] | None = None) -> None:
    """Fine-tune a model on SQuAD 1.1 with one seed and score its answers.

    Raises UserError for wrong arguments, parameters, data or checkpoints.
    """
    from stages.finetuning.arguments import parse  # here, so that asking for a warm fork is quick

    cell = parse("squad", argv)
    from stages.core import processes  # heavy, as the next: after the arguments are known to be right
    from stages.finetuning.answering import evaluate

    if not processes.spread("stages.squad_eval", "squad-eval", cell.params, cell.recipe.batch_size):
        evaluate(cell, Path("data/squad"))


if __name__ == "__main__":
    warm.run("stages.squad_eval")
