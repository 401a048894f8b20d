"""The command line of a cell of the evaluation grids."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from stages.core.errors import UserError
from stages.core.params import load_params
from stages.finetuning.cells import Cell, Suite


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}; usage: {self.prog} --model NAME --task NAME --seed N")


def parse(suite: Suite, argv: Sequence[str] | None = None) -> Cell:
    """Read command line and parameters; UserError names what is allowed for a model, task or seed that is not."""
    params = load_params()
    parser = _Parser(prog=f"stages.{suite}_eval", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--seed", required=True, type=int)
    given = parser.parse_args(argv)
    _require(given.model, "model", params.models, "models")
    _require(given.task, "task", getattr(params, suite).tasks, f"{suite}.tasks")
    if not 0 <= given.seed < 2**31:
        raise UserError(f"--seed {given.seed}: allowed are 0 to {2**31 - 1}")
    return Cell(suite, given.model, given.task, given.seed, params)


def _require(name: str, what: str, known: Any, key: str) -> None:
    if name not in known:
        raise UserError(f"--{what} {name}: not in params.yaml's `{key}`, which has {', '.join(known) or 'none'}")
