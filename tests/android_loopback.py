"""A real adbd on loopback, in namespaces of its own: a device that tests can fill, unplug and take apart.

What it needs is what `.ci/install-android-tools` installs; where that is missing, the tests are skipped.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEBIAN = ROOT / ".cache" / "android" / "trixie"
ADBD = DEBIAN / "usr/lib/android-sdk/platform-tools/adbd"
LIBRARIES = DEBIAN / "usr/lib/x86_64-linux-gnu"
QEMU = DEBIAN / "usr/bin/qemu-aarch64-static"
HEADERS = DEBIAN / "usr/include/onnxruntime"
SERIAL = "127.0.0.1:15555"
NAMESPACES = (
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)
ENTER = ("nsenter", "-U", "-m", "-n", "-p", "--preserve-credentials", "-t")
CHDIR = ("sh", "-c", 'cd "$0" && exec "$@"')
INSTALL = ".ci/install-android-tools installs it"


def require(*commands: str) -> None:
    for command in commands:
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not on PATH; {INSTALL}")


class Loopback:
    """The namespaces, their adb server and adbd, and the folder that is the device's storage."""

    def __init__(self, folder: Path, holder: int) -> None:
        self.folder, self.storage, self.holder = folder, folder / "storage", holder
        self.tools = folder / "device-tools"  # first on the device's PATH
        self.path = os.environ["PATH"]  # of what runs beside it

    def enter(self, *command: str, **environment: str) -> "subprocess.Popen[str]":
        own = {"ANDROID_ADB_SERVER_PORT": "15037", "HOME": str(self.folder), "PATH": self.path, "COLUMNS": "80"}
        inherited = {key: value for key, value in os.environ.items() if key != "ANDROID_SERIAL"}
        return subprocess.Popen(
            [*ENTER, str(self.holder), *CHDIR, str(ROOT), *command],
            env={**inherited, **own, **environment}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        with self.enter(*command, **environment) as process:
            try:
                output, errors = process.communicate(timeout=300)
            finally:
                process.kill()
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def bench(self, bundle: Path, models: Path, results: Path, *options: str) -> list[str]:
        return [
            sys.executable, "-m", "stages.android_bench", f"--bundle={bundle}", f"--models={models}",
            f"--results={results}", f"--folder={self.storage}", "--quick", *options,
        ]  # fmt: skip

    def tool(self, name: str, script: str) -> None:
        """Put a command on the device's PATH before the system's."""
        path = self.tools / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def plug_in(self) -> None:
        """Start adbd and wait until adb sees it."""
        loader = LIBRARIES / "ld-linux-x86-64.so.2"
        found = f"{LIBRARIES}:{LIBRARIES / 'android'}"
        start = f"setsid {loader} --library-path {found} {ADBD} >{self.folder}/adbd.log 2>&1"
        line = f"{start} & echo $! >{self.folder}/adbd.pid"
        self.run("sh", "-c", line, ADBD_PORT=SERIAL.split(":")[1], PATH=f"{self.tools}:{self.path}")
        self.run("adb", "disconnect")  # else adb waits before it tries a lost device again
        for _ in range(100):
            self.run("adb", "connect", SERIAL)
            if f"{SERIAL}\tdevice" in self.run("adb", "devices").stdout:
                return
            time.sleep(0.1)
        raise AssertionError((self.folder / "adbd.log").read_text())

    def unplug(self) -> None:
        """End adbd at once, and have adb forget it."""
        self.run("sh", "-c", f"kill -9 $(cat {self.folder}/adbd.pid)")

    def left(self) -> list[str]:
        """What lies in the device's storage."""
        return self.run("ls", "-A", str(self.storage)).stdout.split()

    def running(self) -> str:
        """Command lines of the runners in the namespace."""
        return self.run("sh", "-c", "grep -la '[r]eport.json' /proc/[0-9]*/cmdline 2>/dev/null").stdout


@contextmanager
def loopback(folder: Path) -> Iterator[Loopback]:
    """Start everything; it ends with the block, or with this process."""
    require("adb", "unshare", "nsenter", "ip")
    if not ADBD.is_file():
        pytest.skip(f"no adbd in {DEBIAN}; {INSTALL}")
    if subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unprivileged namespaces are not allowed here")
    (folder / "storage").mkdir()
    (folder / "device-tools").mkdir()
    script = (
        f"ip link set lo up && mount -t tmpfs -o size=400m tmpfs {folder}/storage && echo ready && exec sleep infinity"
    )
    command = [*NAMESPACES, "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "ready"
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            device = Loopback(folder, int(children[0]))
            device.tool("getprop", 'case "$1" in ro.product.cpu.abilist) echo arm64-v8a,x86_64 ;; esac')
            device.plug_in()
            yield device
        finally:
            with suppress(ProcessLookupError):
                process.kill()
