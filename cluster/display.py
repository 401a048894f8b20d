"""The live table of a run, and the lines that stand for it where nobody watches a terminal."""

import os
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.scheduler import FINISHED, Board, Progress, State

LAST_BYTES = 1000  # of a log, in which its last line is looked for
COLOURS = {
    State.RUNNING: "cyan",
    State.FAILED: "red",
    State.SKIPPED: "yellow",
    State.DONE: "green",
    State.CACHED: "green",
    State.UNCHANGED: "dim",
    State.WAITING: "dim",
    State.HANDED_ON: "dim",
}


class Display:
    """Shows a board: a table that renews itself on a terminal, otherwise a line a change."""

    def __init__(self, console: Console, logs: Path) -> None:
        """Prepare to draw on a console; the table names the folder `logs`."""
        self._console, self._logs = console, logs
        self._started = time.monotonic()
        self._told: dict[str, tuple[State, int]] = {}
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> "Display":
        """Begin to draw."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the table away; the lines stay."""
        if self._live:
            self._live.stop()

    def show(self, board: Board) -> None:
        """Draw the board as it is now."""
        for stage, progress in board.stages.items():
            now = (progress.state, progress.attempts)
            if progress.state is not State.HANDED_ON and now != self._told.get(stage, (State.WAITING, 0)):
                self._told[stage] = now
                self._tell(stage, progress)
        if self._live:
            self._live.update(self._table(board), refresh=True)

    def _tell(self, stage: str, progress: Progress) -> None:
        state, text = progress.state, progress.state.value
        if state is State.RUNNING and progress.attempts > 1:
            text = f"again, since {(progress.message.splitlines() or ['it was lost'])[-1]}"
        elif state is State.RUNNING and self._live:
            return  # the table says so
        elif progress.seconds is not None:
            text = f"{text} in {_clock(progress.seconds)}"
        line = Text(f"{_clock(time.monotonic() - self._started):>8}  {stage}: ")
        self._console.print(line.append(text, style=COLOURS[state]), soft_wrap=True)

    def _table(self, board: Board) -> Table:
        counts = Counter(progress.state for progress in board.stages.values())
        finished = sum(counts[state] for state in FINISHED)
        table = Table(
            box=None, pad_edge=False, expand=True, title_justify="left", title_style="bold", caption_justify="left"
        )
        table.title = f"{finished} of {len(board.stages)} stages, {_clock(time.monotonic() - self._started)}"
        table.add_column("running", no_wrap=True)
        table.add_column("for", justify="right")
        table.add_column("printed last", no_wrap=True, style="dim", ratio=1)
        now = time.monotonic()
        for stage in board.named(State.RUNNING):
            started = board.stages[stage].started
            name = Text(stage, style=COLOURS[State.RUNNING])
            table.add_row(name, _clock(now - (now if started is None else started)), last_line(self._logs, stage))
        counts[State.WAITING] += counts[State.HANDED_ON]
        rest = [
            f"{counts[state]} {state.value}" for state in (State.WAITING, State.FAILED, State.SKIPPED) if counts[state]
        ]
        table.caption = f"{', '.join(rest) or 'nothing waits'}; what they print: {self._logs}/<stage>.log"
        return table


def last_line(logs: Path, stage: str) -> Text:
    """Return what the stage printed last, as far as this machine has it: nothing yet of one that runs on another."""
    try:
        with (logs / f"{stage}.log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_BYTES))
            lines = log.read().decode("utf-8", errors="replace").replace("\r", "\n").split("\n")
    except FileNotFoundError:
        return Text()
    return Text(next((line.strip() for line in reversed(lines) if line.strip()), ""))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
