"""Command lines of stages that run once for each of several things."""

import argparse
from collections.abc import Collection
from typing import NoReturn

from stages.core.errors import UserError


class Parser(argparse.ArgumentParser):
    """A command line of which every error is one line."""

    def __init__(self, prog: str, usage: str) -> None:
        """`usage` is what follows the name of the program."""
        super().__init__(prog=prog, usage=f"{prog} {usage}", allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise UserError instead of leaving the process."""
        raise UserError(f"{self.prog}: {message}; usage: {self.usage}")


def require(name: str, what: str, known: Collection[str], where: str) -> None:
    """Raise UserError that names what is allowed if the value of an option is not among what is known."""
    if name not in known:
        raise UserError(f"--{what} {name}: not in {where}, which has {', '.join(known) or 'none'}")
