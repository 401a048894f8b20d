"""Runs `distill` in several folders, killed (SIGKILL) at a given point in each and then run again to its end.

Usage: python interrupted_runs.py POINT=FOLDER... where POINT is one of `POINTS`. A process of its own forks the runs,
so that libraries are imported once. Prints one line a run: its point and how the first attempt ended.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import stages.distill
from stages.distillation import checkpoints, distilling, schedule
from stages.distillation.trainer import BlockTrainer

os.environ["TOKENIZERS_PARALLELISM"] = "false"
schedule.TRAINING_POINTS = 6  # so that a point averages over several updates


def die_at_call(owner: Any, name: str, number: int) -> None:
    """Replace a function by one whose `number`-th call kills the process."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = iter(range(1, 10**9))

    def counted(*arguments: Any, **named: Any) -> Any:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)

    setattr(owner, name, counted)


POINTS: dict[str, Callable[[], None]] = {
    "never": lambda: None,
    "before_any_checkpoint": lambda: die_at_call(BlockTrainer, "compute_loss", 5),
    "between_checkpoints": lambda: die_at_call(BlockTrainer, "compute_loss", 27),
    "within_a_checkpoint": lambda: die_at_call(torch, "save", 7),
    "before_a_checkpoint_is_marked": lambda: die_at_call(checkpoints, "write_json", 2),
    "before_the_outputs": lambda: die_at_call(distilling, "save_student", 1),
}


def run(folder: Path, prepare: Callable[[], None]) -> int:
    """Run the stage in a folder in a child process; returns its exit status, -9 if it was killed."""
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        prepare()
        stages.distill.main()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        point, _, folder = argument.partition("=")
        first = run(Path(folder), POINTS[point])
        assert run(Path(folder), POINTS["never"]) == 0
        print(point, first)
