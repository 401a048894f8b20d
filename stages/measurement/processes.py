"""Fresh processes for measurements, none of which outlives the one that asked for it."""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from stages.core.errors import UserError
from stages.measurement import worker

END_SECONDS = 20.0
ANSWER_SECONDS = 3600.0  # far more than any model takes for all that is asked of it
SIGNAL_BASE = 128  # a shell's status, and a warm fork's, of a process that a signal ended


def measure(specification: dict[str, Any], label: str, module: str = worker.__name__) -> dict[str, Any]:
    """Run the worker once and return what it measured; UserError with its last words if it fails, is killed or hangs.

    The process gets the specification as the first line of its standard input and ends itself when the input closes,
    so that it is gone even if this process is killed.
    """
    command, pipe = [sys.executable, "-m", module, specification.get("kind", "")], subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True) as process,
    ):
        try:
            with _killed_after(ANSWER_SECONDS, process) as hung:
                answer = _ask(process, specification)
            _close(process)
        finally:
            process.kill()
        status = process.wait()
        if not answer.endswith("\n"):  # nothing, or a line that was cut short
            reason = f"no answer in {ANSWER_SECONDS:g} seconds" if hung.is_set() else _last_words(errors, status)
            raise UserError(f"{label}: the measurement failed: {reason}")
    found: dict[str, Any] = json.loads(answer)
    return found


@contextmanager
def _killed_after(seconds: float, process: "subprocess.Popen[str]") -> Iterator[threading.Event]:
    """Kill the process if the block takes longer, and set the event that the block gets."""
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _last_words(errors: IO[str], status: int) -> str:
    """Return the last line of a failed process's standard error, or what ended it without one."""
    errors.seek(0)
    if lines := errors.read().strip().splitlines():
        return lines[-1].removeprefix("error: ")
    number = -status if status < 0 else status - SIGNAL_BASE
    if number > 0:
        return f"its process was killed (signal {number}); if memory was short, end other programs"
    return "no message"


def _close(process: "subprocess.Popen[str]") -> None:
    """Close the process's input and give it time to end, with the fork that it may stand for."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)


def _ask(process: "subprocess.Popen[str]", specification: dict[str, Any]) -> str:
    """Write the specification, and return the line that comes back; empty if the process ended without one."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):  # it ended already, and says why on its standard error
        process.stdin.write(json.dumps(specification) + "\n")
        process.stdin.flush()  # and it stays open until the answer is there
    return process.stdout.readline()
