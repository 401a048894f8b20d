"""`python -m cluster --jobs 8`: what `dvc repro` does, several stages at once; `make repro JOBS=8` calls it."""

import argparse
import fcntl
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from uuid import uuid4

from dvc.exceptions import DvcException
from dvc.repo import Repo
from rich.console import Console

from cluster.agent import Job
from cluster.display import Display
from cluster.parameters import parse_once
from cluster.pipeline import DvcPipeline
from cluster.scheduler import Board, State, kind, schedule
from cluster.workers import RayWorkers
from cluster.workspace import Head
from stages.core import entry, waiting
from stages.core.artifacts import write_json
from stages.core.errors import UserError
from stages.core.params import Params, StageResources, load_params

FOLDER = Path(".dvc/tmp/cluster")
LOGS = FOLDER / "logs"
SECONDS = FOLDER / "seconds.json"
EVALUATIONS = ("glue-eval", "imdb-eval", "squad-eval")  # which `finetune` describes
DISTILLATIONS = ("distill", "prune")  # and `distill`
LOG_LINES = 15  # of a failed stage, shown at the end


def main() -> None:
    """Run the stages that the command line names, or all, and leave with status 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m cluster", description="`dvc repro`, several stages at once.")
    parser.add_argument("--jobs", type=int, help="evaluations at once on this machine")
    parser.add_argument("--address", default=None, help="of a running Ray cluster: ray://host:10001, host:6379 or auto")
    parser.add_argument("targets", nargs="*", help="stages, with what they need (default: all)")
    arguments = parser.parse_args()
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UserError(f"JOBS={arguments.jobs}: a number of stages, at least 1")
    if arguments.jobs and arguments.address:
        raise UserError("JOBS counts stages on this machine, and with ADDRESS the cluster's CPUs do: leave one out")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as ctrl-C does
    with alone(FOLDER):
        board = reproduce(load_params(), arguments.targets, arguments.jobs, arguments.address)
    failed = board.named(State.FAILED)
    for stage in failed:
        tell(stage, board.stages[stage].message)
    if failed:
        skipped = len(board.named(State.SKIPPED))
        rest = f"; {skipped} that need{'s' * (skipped == 1)} what failed did not run" if skipped else ""
        raise UserError(f"failed: {', '.join(failed)}{rest}; `make repro` carries on from here")


def reproduce(params: Params, targets: Sequence[str], jobs: int | None, address: str | None) -> Board:
    """Bring the stages up to date; raises UserError where DVC or Ray cannot begin."""
    parse_once()
    try:
        with Repo(_wait_for_lock=True) as repo:
            head = describe(repo)
            remote = bool(address) and head.remote is not None
            pipeline = DvcPipeline(repo, targets, remote)

            def job(stage: str) -> Job:
                log = Path(repo.root_dir) / LOGS / f"{stage}.log"
                files = dict(zip(("dvc.yaml", "dvc.lock"), pipeline.reduced(stage), strict=True))
                return Job(
                    stage,
                    workspace="",
                    log=str(log),
                    files=files,
                    inputs=tuple(pipeline.inputs(stage)),
                    expected=pipeline.expected(stage),
                    record=pipeline.stays_here(stage),
                )

            def resources(stage: str) -> StageResources:
                found = params.resources_of(stage)
                return found.model_copy(update={"cpus": found.cpus or threads(stage, params)})

            given = os.environ.get(waiting.SPINS)
            if not address:
                waiting.choose()  # once for all; other runs on this machine see that this one polls
            chosen = os.environ.get(waiting.SPINS)

            def spins(stage: str, alone: bool) -> str | None:
                single = not address and threads(stage, params) == 1
                return how_to_wait(given, chosen, alone or single)

            usual = EVALUATIONS[0]
            cpus = ceil(jobs * (resources(usual).cpus or 1)) if jobs else os.cpu_count() or 1
            workers = RayWorkers(head, job, resources, spins, address, cpus, usual)
            try:
                with Display(Console(), LOGS) as display:

                    def watch(board: Board) -> None:
                        display.show(board)
                        write_seconds(board)

                    exclusive = {stage for stage in pipeline.upstream if resources(stage).exclusive}
                    return schedule(pipeline, workers, watch, seconds=read_seconds(), exclusive=exclusive)
            finally:
                workers.close()
    except DvcException as error:
        raise UserError(" ".join(str(error).split())) from error
    except ConnectionError as error:
        hint = "is it there, and are RAY_AUTH_MODE and RAY_AUTH_TOKEN as on its machines (docs/scaling.md)?"
        if not address:
            hint = "without JOBS, `make repro` takes one stage at a time and needs no Ray"
        raise UserError(f"{address or 'this machine'}: {' '.join(str(error).split())}; {hint}") from error
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"{shlex.join(error.cmd)}: {' '.join(error.stderr.decode(errors='replace').split())}"
        ) from error


def read_seconds() -> dict[str, float]:
    """Return what stages took when they ran last, of those known here."""
    try:
        found: dict[str, float] = json.loads(SECONDS.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found


def write_seconds(board: Board) -> None:
    """Keep what stages took, for the order of the next run."""
    took = {name: round(p.seconds, 1) for name, p in board.stages.items() if p.state is State.DONE and p.seconds}
    known = read_seconds()
    if known != known | took:
        write_json(SECONDS, known | took)


def threads(stage: str, params: Params) -> int:
    """Return how many threads a stage computes with, after which its CPUs are counted where `resources` has none."""
    own = {
        "teacher": params.teacher.threads,
        **dict.fromkeys(DISTILLATIONS, params.distill.threads),
        **dict.fromkeys(EVALUATIONS, params.finetune.threads),
        "onnx-eval": max(params.finetune.threads or 1, params.hardware.threads),  # for training, and for scoring
    }
    return own.get(kind(stage)) or params.hardware.threads


def how_to_wait(given: str | None, chosen: str | None, alone: bool) -> str | None:
    """Return what a stage's GOMP_SPINCOUNT is to be (`stages.core.waiting`), None for it to choose.

    Beside others threads sleep, unless the user has `given` another value. `alone` is what has nothing beside it, and
    what has a single thread: it waits for none, and so shares the libraries imported for what was `chosen`.
    """
    return chosen if alone else given or waiting.ASLEEP


def describe(repo: Repo) -> Head:
    """Say what workers know of this workspace, and make the folder for theirs."""
    name = repo.config["core"].get("remote")
    url = str(repo.config["remote"][name]["url"]) if name else "://"
    session = uuid4().hex
    root = Path(repo.root_dir)
    workspaces = root / FOLDER / session
    workspaces.mkdir(parents=True)
    (workspaces / session).touch()
    return Head(
        session,
        str(workspaces),
        str(root),
        repo.cache.legacy.path,
        name,
        None if "://" in url else url,
        os.environ.get("OMP_NUM_THREADS"),
    )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep a second run out of the workspace, and remove what a killed one left; raises UserError if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(f"a run of process {lock.read().strip()} goes on in this workspace; wait for it") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        for left in folder.iterdir():
            if left.is_dir() and left.name != LOGS.name:
                shutil.rmtree(left, ignore_errors=True)
        yield


def tell(stage: str, message: str) -> None:
    """Print the end of what a failed stage printed."""
    lines = message.strip().splitlines()
    print(f"\n{stage} failed; {LOGS}/{stage}.log ends:", file=sys.stderr)
    print("\n".join(f"    {line}" for line in lines[-LOG_LINES:]), file=sys.stderr)


if __name__ == "__main__":
    for library in ("dvc", "dvc_data"):  # the table says what they would, and at this level they draw no bars
        logging.getLogger(library).setLevel(logging.CRITICAL)
    entry.run(main)
