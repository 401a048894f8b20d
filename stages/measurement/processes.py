"""Fresh processes for measurements, none of which outlives the one that asked for it."""

import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import Any

from stages.errors import UserError
from stages.measurement import worker

END_SECONDS = 20.0


def measure(specification: dict[str, Any], label: str, module: str = worker.__name__) -> dict[str, Any]:
    """Run the worker once and return what it measured; UserError with its last words if it fails.

    The process gets the specification as the first line of its standard input and ends itself when the input closes,
    so that it is gone even if this process is killed.
    """
    command, pipe = [sys.executable, "-m", module, specification.get("kind", "")], subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True) as process,
    ):
        try:
            answer = _ask(process, specification)
            _close(process)
        finally:
            process.kill()
        if not answer:
            errors.seek(0)
            words = errors.read().strip().splitlines() or ["no message"]
            raise UserError(f"{label}: the measurement failed: {words[-1].removeprefix('error: ')}")
    found: dict[str, Any] = json.loads(answer)
    return found


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
