"""The process in which DVC runs stages of one workspace, one after the other: `python -m cluster.agent`.

It keeps DVC imported, so that a stage costs no start of it. Jobs come and results go as lines of JSON on the pipes to
the process that started it. When that one is gone, or closes them, the agent ends and takes the running stage with it.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

TAIL = 4000  # characters of a log that go with an error
END_SECONDS = 20.0  # after which what does not end is left to the guard
COMPUTES, COMPUTED = "computes\n", "computed\n"  # between which a stage's time counts: not while a remote is waited for
# Asks the process group $1 to end, as ctrl-C does, kills it after 5 seconds, and removes the folder $2,
# with the last of a run its parent too. A process that has ended counts as gone even if nobody has asked how (proc(5)):
# a container's first process may do so after seconds or never.
GUARD = """
group=$1
lives() {
    kill -s 0 -- "-$group" 2>/dev/null || return 1
    [ -e /proc/self/stat ] || return 0
    for stat in /proc/[0-9]*/stat; do
        { read -r line < "$stat"; } 2>/dev/null || continue
        set -- ${line##*) }  # state, parent, group
        [ "$3" = "$group" ] && [ "$1" != Z ] && return 0
    done
    return 1
}
read -r _
kill -s INT -- "-$group" 2>/dev/null
for _ in $(seq 50); do lives || break; sleep 0.1; done
kill -s KILL -- "-$group" 2>/dev/null
[ -z "$2" ] || { rm -rf -- "$2"; rmdir -- "${2%/*}" 2>/dev/null; }
"""


@dataclass(frozen=True)
class Job:
    """A stage, and what DVC needs to run it in a workspace."""

    stage: str
    workspace: str
    log: str  # file for what it prints
    files: dict[str, str] = field(default_factory=dict)  # text of dvc.yaml and dvc.lock, where not the workspace's own
    inputs: tuple[str, ...] = ()  # outputs of other stages
    expected: dict[str, str] = field(default_factory=dict)  # digests of what it reads, which must be the same here
    config: dict[str, Any] = field(default_factory=dict)  # of DVC, over the workspace's own
    environment: dict[str, str | None] = field(default_factory=dict)  # of the stage; None: not set
    remote: bool = False  # whether inputs come from and results go to the default remote
    record: bool = False  # whether DVC writes into dvc.lock what was made: its run cache does not bring it


@dataclass(frozen=True)
class Result:
    """How it ended, as `cluster.scheduler.End` says, with what it printed last where it failed."""

    end: str
    message: str = ""


class Agent:
    """An agent process, from the side that gives it work."""

    def __init__(self, workspace: Path, owned: bool) -> None:
        """Start it in a workspace; `owned`: the workspace is removed when the agent ends."""
        self.workspace = workspace
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cluster.agent", *(["--owned"] if owned else [])],
            cwd=workspace,
            env={**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )

    def run(self, job: dict[str, Any], seconds: float | None = None) -> Result:
        """Run a stage, the fields of a `Job`, which may compute for so many seconds at most."""
        process = self._process
        assert process.stdin
        assert process.stdout
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self.end()

        timer = threading.Timer(seconds or 0, expire)
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            while (answer := process.stdout.readline()) in (COMPUTES, COMPUTED):
                if answer == COMPUTED:
                    timer.cancel()
                elif seconds:
                    timer.start()
        except (BrokenPipeError, ValueError):  # it has ended, or is ended now
            answer = ""
        finally:
            timer.cancel()
        if answer:
            return Result(**json.loads(answer))
        self.end()  # and with it what is left of the stage
        if seconds and expired.is_set():
            return Result("failed", f"it ran past its limit of {seconds / 60:g} minutes")
        return Result("lost", "the process that ran it was killed")

    def end(self) -> None:
        """Let it end, with the stage that it runs."""
        process = self._process
        with suppress(BrokenPipeError):
            assert process.stdin
            process.stdin.close()
        give_up = time.monotonic() + END_SECONDS
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        while _lives(process.pid) and time.monotonic() < give_up:  # until the guard has ended what it started
            time.sleep(0.05)

    @property
    def alive(self) -> bool:
        """Whether it takes further jobs."""
        return self._process.poll() is None


def _lives(group: int) -> bool:
    """Whether a process of the group goes on: one that nobody has waited for does not, as for the guard."""
    import psutil  # here: the agent itself never asks

    for process in psutil.pids():
        with suppress(psutil.Error, OSError):
            if os.getpgid(process) == group and psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def main() -> None:
    """Answer jobs until the pipe is closed."""
    owned = "--owned" in sys.argv
    _guard(os.getcwd() if owned else "")
    if owned:
        _never_sync()
    jobs: queue.Queue[str] = queue.Queue()
    answers = os.fdopen(os.dup(1), "w")
    threading.Thread(target=_listen, args=(os.dup(0), jobs), daemon=True).start()
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # so that its lines stand between the stage's

    def tell(line: str) -> None:
        answers.write(line)
        answers.flush()

    import dvc.repo.reproduce  # noqa: F401 - now: an agent may be started before there is a stage for it

    while True:
        job = Job(**json.loads(jobs.get()))
        tell(json.dumps(asdict(perform(job, tell))) + "\n")


def _never_sync() -> None:
    """Have DVC's databases not wait for the disk twenty times a stage: the workspace ends with this process."""
    from diskcache import core

    core.DEFAULT_SETTINGS["sqlite_synchronous"] = 0  # SQLite's OFF


def _guard(workspace: str) -> None:
    """Have a shell wait for the end of this process, however it comes, and then end and remove what is left of it."""
    watched, _held_open = os.pipe()  # the other end closes with this process
    command = ["sh", "-c", GUARD, "guard", str(os.getpgrp()), workspace]
    subprocess.Popen(command, stdin=watched, cwd="/", start_new_session=True)
    os.close(watched)


def _listen(pipe: int, jobs: "queue.Queue[str]") -> None:
    with os.fdopen(pipe) as lines:
        for line in lines:
            jobs.put(line)
    os._exit(0)  # the guard does the rest


def perform(job: Job, tell: Callable[[str], None]) -> Result:
    """Run a stage as `dvc repro --single-item` would, once its inputs are there, and send its results."""
    log = Path(job.log)
    with _printing_to(log):
        try:
            return _perform(job, tell)
        except Exception as error:
            reasons = list(_reasons(error))
            print("\n".join(str(reason) for reason in reasons), flush=True)
            return Result(_blame(reasons), log.read_text(encoding="utf-8", errors="replace")[-TAIL:].strip())


def _perform(job: Job, tell: Callable[[str], None]) -> Result:
    from dvc.repo import Repo

    from cluster import runs
    from cluster.parameters import parse_once

    parse_once()
    for name, value in job.environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    for name, text in job.files.items():
        Path(name).write_text(text, encoding="utf-8")
    with Repo(job.workspace, config=job.config, _wait_for_lock=True) as repo:
        inputs = list(job.inputs)
        if inputs and job.remote:
            runs.patiently(repo, lambda: repo.pull(targets=inputs, force=True))
        elif inputs:
            _check_out(repo, inputs)
        if differing := _differing(repo, job):
            return Result("unfit", f"{', '.join(differing)}: neither in git nor in DVC, so that workers lack it")
        tell(COMPUTES)
        if job.record:
            repo.reproduce([job.stage], single_item=True)
        else:
            with repo.lock, repo.scm_context(quiet=True):
                (stage,) = repo.stage.collect(job.stage)
                stage.reproduce()
        tell(COMPUTED)
        if job.remote:
            runs.patiently(repo, lambda: runs.push(repo, stage))
    return Result("done")


def _check_out(repo: Any, inputs: Sequence[str]) -> None:
    """Bring outputs of other stages, as `dvc checkout` does after it has looked for them everywhere."""
    from dvc.dvcfile import PROJECT_FILE, load_file

    elsewhere = set(inputs)
    for stage in load_file(repo, PROJECT_FILE).stages.values():
        for out in stage.outs:
            if (path := os.path.relpath(out.fs_path, repo.root_dir)) in inputs:
                elsewhere.discard(path)
                with repo.lock:
                    out.checkout(force=True)
    if elsewhere:  # in .dvc files
        repo.checkout(targets=sorted(elsewhere), force=True)


def _differing(repo: Any, job: Job) -> list[str]:
    """Name what the stage reads and is not the same here."""
    if not job.expected:
        return []
    (stage,) = repo.stage.collect(job.stage)
    found = {dep.def_path: dep for dep in stage.deps}
    different = []
    for path, digest in job.expected.items():
        dep = found[path]
        with repo.lock:
            if dep.exists:
                dep.save()
        if not dep.exists or dep.hash_info.value != digest:
            different.append(path)
    return different


def _reasons(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__


def _blame(reasons: list[BaseException]) -> str:
    """Tell a stage that fails anywhere from a worker on which it could not be run."""
    from dvc.stage.exceptions import StageCmdFailedError

    if not isinstance(reasons[-1], StageCmdFailedError):
        return "lost"
    killed = any(f"exited with {code}" in str(reasons[-1]) for code in (-signal.SIGKILL, 128 + signal.SIGKILL))
    return "lost" if killed else "failed"


@contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    """Send what this process, DVC and the stage print into a file, from its beginning."""
    log.parent.mkdir(parents=True, exist_ok=True)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        try:
            yield
        finally:
            sys.stdout.flush()
            for stream in (1, 2):
                os.dup2(nowhere, stream)
    os.close(nowhere)


if __name__ == "__main__":
    main()
