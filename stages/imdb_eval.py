"""Stage `imdb-eval`, one cell of it: fine-tune a model on IMDb with one seed and score it.

python -m stages.imdb_eval --model bert --task IMDb --seed 42
"""

from collections.abc import Sequence
from pathlib import Path

from stages.core import warm


def main(argv: Sequence[str] | None = None) -> None:
    """Fine-tune a model on IMDb with one seed and score it.

    Raises UserError for wrong arguments, parameters, data or checkpoints.
    """
    from stages.finetuning.arguments import parse  # here, so that asking for a warm fork is quick

    cell = parse("imdb", argv)
    from stages.core import processes  # heavy, as the next: after the arguments are known to be right
    from stages.finetuning.classification import evaluate

    if not processes.spread("stages.imdb_eval", "imdb-eval", cell.params, cell.recipe.batch_size):
        evaluate(cell, Path("data/imdb"))


if __name__ == "__main__":
    warm.run("stages.imdb_eval")
