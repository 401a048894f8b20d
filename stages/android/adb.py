"""The `adb` command as a device: which one it is, what it can be asked, and what its failures mean."""

import os
import secrets
import shutil
import subprocess
from pathlib import Path

from stages.android.device import SHORT, Answer, TimeLimitError
from stages.core.errors import UserError

TRANSFER = 900.0  # seconds for a file
REASONS = {
    "unauthorized": "unlock the device and accept this computer's key on its screen",
    "offline": "unplug it and plug it in again, or `adb reconnect`",
    "no permissions": "udev rules keep this user from the device; see `adb devices -l`",
}


def find_adb() -> str:
    """Path of the adb command; UserError if there is none."""
    found = shutil.which("adb")
    if found is None:
        raise UserError("adb: not found on PATH; install Android's platform-tools (Debian: `apt-get install adb`)")
    return found


def choose(serial: str | None) -> "AdbDevice":
    """Return the attached device with this serial number, or the only one.

    Without `serial`, ANDROID_SERIAL counts, as for adb itself. Raises UserError if there is no device, more than one to
    choose from, or the chosen one does not answer.
    """
    adb = find_adb()
    states = _attached(adb)
    wanted = serial or os.environ.get("ANDROID_SERIAL") or None  # an empty one counts for none
    if not states:
        raise UserError(
            "no device: plug in a phone with USB debugging on, or start an emulator; `adb devices` lists them"
        )
    if wanted is None and len(states) > 1:
        raise UserError(f"{len(states)} devices: {', '.join(sorted(states))}; choose with SERIAL=<one of them>")
    chosen = wanted or next(iter(states))
    if chosen not in states:
        raise UserError(f"{chosen}: no such device; attached: {', '.join(sorted(states))}")
    if states[chosen] != "device":
        raise UserError(f"{chosen}: {states[chosen]}: {REASONS.get(states[chosen], 'not ready to run anything')}")
    return AdbDevice(adb, chosen)


def _attached(adb: str) -> dict[str, str]:
    """State of every attached device by its serial number, as `adb devices` prints them."""
    done = _run([adb, "devices"], SHORT, "adb devices")
    if done.status:
        raise UserError(f"adb devices: failed: {done.last_words}")
    rows = [line.split("\t") for line in done.output.splitlines() if "\t" in line]
    return {row[0]: row[1].split(";")[0].split("(")[0].strip() for row in rows}


class AdbDevice:
    """An attached device that answers."""

    def __init__(self, adb: str, serial: str) -> None:
        self.label = serial
        self._command = [adb, "-s", serial]

    def shell(self, script: str, timeout: float) -> Answer:
        """Run a script in the device's shell.

        Its exit status comes back in a line of its own at the end: old devices do not pass it on, and where the line is
        missing the connection broke.
        """
        marker = f"status-{secrets.token_hex(8)}"
        done = _run([*self._command, "shell", f"(\n{script}\n)\necho {marker} $?"], timeout, f"{self.label}: shell")
        output, found, status = done.output.replace("\r\n", "\n").rpartition(marker)
        if not found:
            raise UserError(
                f"{self.label}: the connection broke ({done.last_words}); check the cable and `adb devices`"
            )
        return Answer(int(status), output, done.errors)

    def push(self, source: Path, target: str) -> None:
        """Copy a file to the device."""
        self._copy("push", str(source), target)

    def pull(self, source: str, target: Path) -> None:
        """Copy a file from the device."""
        self._copy("pull", source, str(target))

    def _copy(self, direction: str, source: str, target: str) -> None:
        done = _run([*self._command, direction, source, target], TRANSFER, f"{self.label}: {direction} {source}")
        if done.status:
            raise UserError(f"{self.label}: {direction} of {Path(source).name} failed: {_error(done)}")


def _error(done: Answer) -> str:
    """Return the line in which adb names an error; statistics of the transfer may follow it."""
    lines = [line.partition("error: ")[2] for line in f"{done.output}\n{done.errors}".splitlines() if "error: " in line]
    return lines[-1].strip() if lines else done.last_words


def _run(command: list[str], timeout: float, what: str) -> Answer:
    """Run adb apart from the terminal, whose ctrl-C would otherwise end it before the device is tidied up."""
    try:
        done = subprocess.run(
            command, timeout=timeout, capture_output=True, text=True, errors="replace", check=False,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise TimeLimitError(f"{what}: no answer within {timeout:g} s") from error
    return Answer(done.returncode, done.stdout, done.stderr)
