"""What a machine that runs the models must do: run shell lines, take and give files; and this machine as one."""

import os
import secrets
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stages.core.artifacts import file_sha256
from stages.core.errors import UserError

PREFIX = "distilbert-bench-"
SHORT = 30.0  # seconds for a shell line that only looks at or removes files


class TimeLimitError(UserError):
    """A device did not answer within the time that it was given."""


@dataclass(frozen=True)
class Answer:
    """Exit status and output of a shell line."""

    status: int
    output: str
    errors: str

    @property
    def last_words(self) -> str:
        """The last line that it wrote, on standard error if there is one."""
        lines = (self.errors.strip() or self.output.strip()).splitlines()
        return lines[-1].strip() if lines else "no message"


class Device(Protocol):
    """A machine with a POSIX shell; every method raises UserError if the machine is out of reach."""

    label: str

    def shell(self, script: str, timeout: float) -> Answer:
        """Run a shell script; TimeLimitError if it takes longer than `timeout` seconds."""

    def push(self, source: Path, target: str) -> None:
        """Copy a file to the device."""

    def pull(self, source: str, target: Path) -> None:
        """Copy a file from the device."""


class ThisMachine:
    """The machine that the command runs on, for trying the runner without a phone."""

    label = "this machine"

    def shell(self, script: str, timeout: float) -> Answer:
        """Run the script in a process group of its own, all of which ends at the time limit."""
        with subprocess.Popen(
            ["sh", "-c", script], text=True, errors="replace", start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                output, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired as error:
                raise TimeLimitError(f"{self.label}: no answer within {timeout:g} s") from error
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        return Answer(process.returncode, output, errors)

    def push(self, source: Path, target: str) -> None:
        """Copy a file; UserError on a full disk."""
        try:
            shutil.copy(source, target)
        except OSError as error:
            raise UserError(f"{target}: not written: {error.strerror}") from error

    def pull(self, source: str, target: Path) -> None:
        """Copy a file."""
        self.push(Path(source), str(target))


@contextmanager
def work_folder(device: Device, base: str) -> Iterator[str]:
    """Make a folder under `base` that no other run uses, and remove it and what runs in it whatever happens.

    What earlier runs left behind because their connection broke is removed first: one run a device at a time.
    """
    folder = f"{base.rstrip('/')}/{PREFIX}{secrets.token_hex(6)}"
    _remove(device, f"{shlex.quote(base.rstrip('/'))}/{PREFIX}*")
    made = device.shell(f"mkdir {shlex.quote(folder)}", SHORT)
    if made.status:
        raise UserError(f"{device.label}: {folder}: not made ({made.last_words}); --folder names another place")
    try:
        yield folder
    except BaseException as error:
        try:
            with _undisturbed():
                _remove(device, shlex.quote(folder))
        except UserError as unreachable:
            what = str(error) if isinstance(error, UserError) else f"interrupted ({type(error).__name__})"
            raise UserError(f"{what}; {folder} stayed on the device, the next run there removes it") from unreachable
        raise
    with _undisturbed():
        _remove(device, shlex.quote(folder))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let a further ctrl-C wait until the device is clean."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _remove(device: Device, pattern: str) -> None:
    """Remove folders by a shell pattern, and end the runner that a folder's file `pid` names."""
    done = device.shell(
        f"for folder in {pattern}; do\n"
        '  pid=$(cat "$folder/pid" 2>/dev/null)\n'
        '  [ -n "$pid" ] && grep -q runner "/proc/$pid/cmdline" 2>/dev/null && kill -9 "$pid"\n'
        '  rm -rf "$folder"\n'
        "done",
        SHORT,
    )
    if done.status:
        raise UserError(f"{device.label}: {pattern}: not removed ({done.last_words})")


def push_verified(device: Device, source: Path, target: str) -> str:
    """Copy a file to the device, compare the SHA-256 there and return it; UserError if they differ."""
    device.push(source, target)
    return _verified(device, source, target)


def pull_verified(device: Device, source: str, target: Path) -> str:
    """Copy a file from the device, compare the SHA-256 and return it; UserError if they differ."""
    device.pull(source, target)
    return _verified(device, target, source)


def _verified(device: Device, here: Path, there: str) -> str:
    expected = file_sha256(here)
    answer = device.shell(f"sha256sum {shlex.quote(there)}", 20 * SHORT)
    found = answer.output.split()[0] if answer.output.split() else ""
    if answer.status:
        raise UserError(f"{device.label}: {there}: sha256 not computed ({answer.last_words})")
    if found != expected:
        raise UserError(
            f"{device.label}: {there}: altered in transit (sha256 {found[:12]}, should be {expected[:12]}); try again"
        )
    return expected
