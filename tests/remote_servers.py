"""An OpenSSH server and an S3 server (moto's) on loopback, for a test."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

START_SECONDS = 60.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(address: str, port: int, server: subprocess.Popen[bytes], inside: Sequence[str]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        probe = [*inside, "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"]
        if subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return
        assert server.poll() is None, "the server ended"
        time.sleep(0.1)
    raise AssertionError("the server does not answer")


@contextmanager
def _served(
    command: list[str], port: int, log: Path, address: str = "127.0.0.1", inside: Sequence[str] = ()
) -> Iterator[None]:
    with log.open("wb") as stream, subprocess.Popen([*inside, *command], stdout=stream, stderr=stream) as server:
        try:
            _wait(address, port, server, inside)
            yield
        finally:
            server.terminate()


class OpenSsh:
    """A folder behind an SSH server that takes one key, perhaps at an address `inside` a network namespace."""

    def __init__(self, folder: Path, address: str = "127.0.0.1", inside: Sequence[str] = ()) -> None:
        self.address, self.inside = address, inside
        program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None or shutil.which("ssh-keygen") is None:
            pytest.skip("no OpenSSH server here (Debian: openssh-server)")
        folder.mkdir(parents=True)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd separates privileges there
        self.port, self.folder, self.store, self.key = _free_port(), folder, folder / "store", folder / "user"
        options = {
            "ListenAddress": f"{address}:{self.port}",
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "user.pub",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "Subsystem": "sftp internal-sftp",
        }
        (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
        self.command = [program, "-D", "-e", "-f", str(folder / "config")]

    @property
    def url(self) -> str:
        return f"ssh://{getpass.getuser()}@{self.address}:{self.port}{self.store}"

    @property
    def settings(self) -> dict[str, str]:
        """What belongs in .dvc/config.local."""
        return {"keyfile": str(self.key)}

    def spoil(self, name: str) -> None:
        """Change a file's content."""
        path = self.store / name
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"!")

    @contextmanager
    def running(self) -> Iterator[None]:
        with _served(self.command, self.port, self.folder / "log", self.address, self.inside):
            yield


class S3:
    """A bucket behind moto's S3 server."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.port, self.folder = _free_port(), folder
        self.url = "s3://models/here"
        self.settings = {
            "endpointurl": f"http://127.0.0.1:{self.port}",
            "access_key_id": "id",
            "secret_access_key": "secret",
            "region": "us-east-1",
        }

    def client(self) -> Any:
        import boto3

        settings = {key: value for key, value in self.settings.items() if key.endswith("key_id") or "secret" in key}
        access = {f"aws_{key}": value for key, value in settings.items()}
        return boto3.client("s3", endpoint_url=self.settings["endpointurl"], region_name="us-east-1", **access)

    def spoil(self, name: str) -> None:
        """Change an object's content."""
        where = {"Bucket": "models", "Key": f"here/{name}"}
        content = self.client().get_object(**where)["Body"].read()
        self.client().put_object(**where, Body=content[:-1] + b"!")

    @contextmanager
    def running(self) -> Iterator[None]:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with _served(command, self.port, self.folder / "log"):
            self.client().create_bucket(Bucket="models")
            yield
