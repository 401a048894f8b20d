"""Fresh processes for measurements, none of which outlives the one that asked for it."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import IO, Any

from stages.core.errors import UserError
from stages.measurement import worker

END_SECONDS = 20.0
ANSWER_SECONDS = 3600.0  # far more than any model takes for all that is asked of it
SIGNAL_BASE = 128  # a shell's status, and a warm fork's, of a process that a signal ended
MOST_AT_ONCE = 4  # processes that start together: each may import PyTorch for itself and hold a model

Request = tuple[dict[str, Any], str]  # a specification for the worker, and what errors call it


def measure(specification: dict[str, Any], label: str, module: str = worker.__name__) -> dict[str, Any]:
    """Measure in a fresh process; UserError with the worker's last words if it fails, is killed or hangs."""
    [found] = measured([(specification, label)], module)
    return found


def measured(requests: Iterable[Request], module: str = worker.__name__) -> Generator[dict[str, Any], None, None]:
    """Measure one after the other, each in a fresh process, and yield what they measured.

    A few processes start together, since imports keep a core busy each. They measure in turn, the first one when all of
    them wait for that. Raises UserError as `measure`.
    """
    remaining = iter(requests)
    while group := list(islice(remaining, min(MOST_AT_ONCE, _cores()))):
        with ExitStack() as stack:
            processes = [stack.enter_context(_started(module, *request)) for request in group]
            for process in processes:
                process.tell_specification()
            for process in processes:
                process.wait_until_ready()
            for process in processes:
                yield process.measure()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Process:
    """A process of the worker, which ends by itself when its standard input closes, even if this process is killed."""

    def __init__(
        self, process: "subprocess.Popen[str]", errors: IO[str], specification: dict[str, Any], label: str
    ) -> None:
        self._process, self._errors = process, errors
        self._specification, self._label = specification, label
        self._hung = threading.Event()

    def tell_specification(self) -> None:
        """Write it, which may wait for the process to start and read."""
        self._tell(json.dumps(self._specification))

    def wait_until_ready(self) -> None:
        """Wait until it has imported what it needs."""
        answer = self._answer()
        if answer != worker.READY:
            raise UserError(f"{self._label}: the measurement failed: its process printed {answer.strip()!r}")

    def measure(self) -> dict[str, Any]:
        """Let it measure, and end."""
        self._tell("")
        found: dict[str, Any] = json.loads(self._answer())
        self._end()
        return found

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with self._killed_if_it_hangs(), suppress(BrokenPipeError):  # it ended already, and says why on standard error
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _answer(self) -> str:
        """Return its next line; UserError if none comes."""
        assert self._process.stdout is not None
        with self._killed_if_it_hangs():
            answer = self._process.stdout.readline()
        if not answer.endswith("\n"):  # nothing, or a line that was cut short
            status = self._end()
            hung = self._hung.is_set()
            reason = f"no answer in {ANSWER_SECONDS:g} seconds" if hung else _last_words(self._errors, status)
            raise UserError(f"{self._label}: the measurement failed: {reason}")
        return answer

    def _end(self) -> int:
        """Close its input and give it time to end, with the fork that it may stand for; returns its status."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self._process.kill()
        return self._process.wait()

    @contextmanager
    def _killed_if_it_hangs(self) -> Iterator[None]:
        def end() -> None:
            self._hung.set()
            self._process.kill()

        timer = threading.Timer(ANSWER_SECONDS, end)
        try:
            timer.start()  # in here, so that ctrl-C meanwhile leaves no timer that this process would wait for
            yield
        finally:
            timer.cancel()


@contextmanager
def _started(module: str, specification: dict[str, Any], label: str) -> Iterator[_Process]:
    """Start a process of the worker, and kill it in the end if it has not ended."""
    command, pipe = [sys.executable, "-m", module, specification.get("kind", "")], subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True) as process,
    ):
        try:
            yield _Process(process, errors, specification, label)
        finally:
            process.kill()
            with suppress(BrokenPipeError):  # of what it has not read
                assert process.stdin is not None
                process.stdin.close()


def _last_words(errors: IO[str], status: int) -> str:
    """Return the last line of a failed process's standard error, or what ended it without one."""
    errors.seek(0)
    if lines := errors.read().strip().splitlines():
        return lines[-1].removeprefix("error: ")
    number = -status if status < 0 else status - SIGNAL_BASE
    if number > 0:
        return f"its process was killed (signal {number}); if memory was short, end other programs"
    return "no message"
