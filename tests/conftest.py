"""Fixtures that several test files share."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_hub import use_hub

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores; threads that wait for each other's are no gain
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
pytest.register_assert_rewrite("quick")
LONGEST = ("test_pipeline", "test_real_profiles", "test_experiments", "test_cluster", "test_two_hosts", "test_remotes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker goes on for minutes when the others have nothing left."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="session")
def project_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def mirror() -> Iterator[Callable[..., str]]:
    """Start a hub on loopback, with faults if asked (`mirror(fail_every=3)`), and return its address."""
    script = Path(os.environ.get("DISTILBERT_DVC_HUB_MIRROR", ROOT.parent / "shared" / "hub" / "serve.py"))
    if not script.is_file():
        pytest.skip(f"no hub mirror at {script}; set DISTILBERT_DVC_HUB_MIRROR to its serve.py")
    servers: dict[tuple[str, ...], tuple[subprocess.Popen[str], str]] = {}

    def start(**faults: int) -> str:
        options = tuple(f"--{name.replace('_', '-')}={value}" for name, value in sorted(faults.items()))
        if options not in servers:
            command = [sys.executable, str(script), "--port=0", *options]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            assert server.stdout is not None
            servers[options] = server, server.stdout.readline().strip()
        return servers[options][1]

    yield start
    for server, _ in servers.values():
        server.kill()
        server.wait()


@pytest.fixture
def hub(mirror: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use the mirror in this process, and return the folder of the client's cache."""
    use_hub(mirror(), tmp_path / "hub", monkeypatch)
    return tmp_path / "hub"
