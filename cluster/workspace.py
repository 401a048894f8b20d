"""A worker's workspace: the head's files, at its commit with uncommitted changes, and an agent in it.

Ray sends this module to the workers as it is, so that it needs no other one of the project; the archive has those.
"""

import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SPREADING_SECONDS = 1.0  # for which a process keeps a task without a job, so that the next one goes to another process


@dataclass(frozen=True)
class Head:
    """What workers know of the head, the same for all stages of a run."""

    session: str  # name of the run
    folder: str  # for this run's workspaces, in the head's workspace; it holds a file named by the session
    root: str  # its workspace
    cache: str  # its DVC cache
    remote: str | None  # name of the default remote, if there is one
    remote_url: str | None  # where that is a folder: an absolute path
    omp_threads: str | None  # OMP_NUM_THREADS there

    @property
    def is_visible(self) -> bool:
        """Whether the head's folders are to be seen from here, as on the same machine."""
        return (Path(self.folder) / self.session).is_file()


def pack(root: Path) -> bytes:
    """Return an archive of the files of a git checkout that git knows of or would take, as they are now.

    Raises CalledProcessError where there is no git checkout.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        for name in sorted(set(listed.stdout.decode().split("\0")) - {""}):
            if (root / name).is_symlink() or (root / name).exists():  # it may have been removed
                archive.add(root / name, name, recursive=False)
    return stream.getvalue()


class Register:
    """Where a cluster's workers say which stages they have begun, which Ray does not tell; one actor a run."""

    def __init__(self) -> None:
        """Begin with none."""
        self._begun: list[str] = []

    def begin(self, stage: str) -> None:
        """Note a stage that has begun."""
        self._begun.append(stage)

    def take(self) -> list[str]:
        """Return those noted since the last call."""
        begun, self._begun = self._begun, []
        return begun


def run(
    job: dict[str, Any] | None, head: Head, archive: bytes, seconds: float | None, register: Any
) -> tuple[dict[str, str], bytes]:
    """Run a job of `cluster.agent` in a workspace of this process; return its result and what it printed.

    None only starts the agent, so that it is ready for the first job, which tells it if that fails.
    """
    if job is None:  # not a function of its own: Ray sends each with its own copy of `_started`
        with suppress(OSError):
            _agent_at_work(head, archive)
        time.sleep(SPREADING_SECONDS)
        return {"end": "done", "message": ""}, b""
    if register is not None:  # on one machine the head knows
        register.begin.remote(job["stage"])
    visible = head.is_visible
    if not visible and head.remote is None:
        where = socket.gethostname()
        message = f"{where} sees neither this machine's folders nor a remote; `make remote URL=...` names one"
        return {"end": "failed", "message": message}, b""
    agent = _agent_at_work(head, archive)
    folder = agent.workspace
    config: dict[str, Any] = {
        "core": {"no_scm": True, "analytics": False, "site_cache_dir": str(folder / ".dvc/tmp/site")},
        "cache": {"dir": head.cache if visible else str(_own() / "cache")},
    }
    if head.remote and head.remote_url:
        config["remote"] = {head.remote: {"url": head.remote_url}}
    log = Path(job["log"] if visible else folder / ".dvc/tmp/stage.log")
    # Ray says by variables which GPUs a task has, and sets one by which libraries choose their number of threads.
    environment = job["environment"] | {
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "OMP_NUM_THREADS": head.omp_threads,
    }
    filled = {
        **job,
        "workspace": str(folder),
        "log": str(log),
        "config": config,
        "environment": environment,
        "remote": not visible,
    }
    result = agent.run(filled, seconds)
    printed = b"" if visible or not log.is_file() else log.read_bytes()
    if result.end != "done":
        agent.end()  # and with it the workspace: what is left of the stage may fill the disk
    return asdict(result), printed


def _agent_at_work(head: Head, archive: bytes) -> Any:
    """Return this process's agent, which is started in a workspace of its own if there is none or it has ended."""
    if not _started or not _started[-1].alive:
        visible, own = head.is_visible, _own()
        folder = (Path(head.folder) if visible else own / head.session) / f"{os.getpid()}-{len(_started)}"
        _unpack(archive, folder, Path(head.root, ".cache") if visible else own / "resume")
        _started.append(_agent(folder))
    return _started[-1]


def _own() -> Path:
    """Return the folder of workspaces and DVC's cache on a machine that does not see the head's."""
    return Path(tempfile.gettempdir()) / f"distilbert-dvc-{os.getuid()}"


def _unpack(archive: bytes, folder: Path, cache: Path) -> None:
    """Make the workspace, with a folder that outlives it for what an interrupted training resumes from."""
    partial = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            packed.extraction_filter = getattr(tarfile, "tar_filter", None)  # Python 3.11.4 and later have filters
            packed.extractall(partial)  # the head's own; its links may point anywhere
        cache.mkdir(parents=True, exist_ok=True)
        (partial / ".cache").symlink_to(cache, target_is_directory=True)
        shutil.rmtree(folder, ignore_errors=True)  # in which no agent could be started
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


_started: list[Any] = []  # this process's agents, of which the last one outlives a stage


def _agent(folder: Path) -> Any:
    sys.path.insert(0, str(folder))
    try:
        from cluster.agent import Agent
    finally:
        sys.path.remove(str(folder))
    return Agent(folder, owned=True)
