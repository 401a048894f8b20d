"""The command line of a cell of the evaluation grids."""

from collections.abc import Sequence

from stages.core.arguments import Parser, require
from stages.core.errors import UserError
from stages.core.params import load_params
from stages.finetuning.cells import Cell, Suite


def parse(suite: Suite, argv: Sequence[str] | None = None) -> Cell:
    """Read command line and parameters; UserError names what is allowed for a model, task or seed that is not."""
    params = load_params()
    parser = Parser(f"stages.{suite}_eval", "--model NAME --task NAME --seed N")
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--seed", required=True, type=int)
    given = parser.parse_args(argv)
    require(given.model, "model", params.models, "params.yaml's `models`")
    require(given.task, "task", getattr(params, suite).tasks, f"params.yaml's `{suite}.tasks`")
    if not 0 <= given.seed < 2**31:
        raise UserError(f"--seed {given.seed}: allowed are 0 to {2**31 - 1}")
    return Cell(suite, given.model, given.task, given.seed, params)
