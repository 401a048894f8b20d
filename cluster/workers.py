"""Ray's side of a run: which worker has room for a stage, and whether it is still there."""

import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster import workspace
from cluster.agent import Agent, Job
from cluster.scheduler import End, Outcome
from stages.params import StageResources

CLOSING_SECONDS = 15.0
REGISTER_SECONDS = 5.0


class RayWorkers:
    """Runs stages as tasks of a Ray cluster, which is started with the first of them or joined."""

    def __init__(
        self,
        head: workspace.Head,
        job: Callable[[str], Job],
        resources: Callable[[str], StageResources],
        address: str | None,
        cpus: int,
        usual: float,
    ) -> None:
        """`job` and `resources` describe a stage; without `address` this machine alone, with so many CPUs to give.

        `usual` is how many of them the many short stages take.
        """
        self._head, self._job, self._resources = head, job, resources
        self._address, self._cpus, self._usual = address, cpus, usual
        self._slots = 1  # stages that fit at once, about
        self._largest = (0.0, 0.0)  # CPUs and GPUs of the machine that has most
        self._begun_here: list[str] = []
        self._ray: Any = None
        self._running: dict[Any, str] = {}
        self._here: dict[Future[Outcome], str] = {}
        self._pool = ThreadPoolExecutor(1)
        self._agent: Agent | None = None

    def room(self, handed_on: Sequence[str]) -> int:
        """Return how many more to hand on: no more than can run at once wait in Ray, which starts whatever fits.

        None while one waits that is larger than most: others would take each CPU that becomes free before it.
        """
        if any(self._cpus_of(stage) > self._usual for stage in self._running.values() if stage in handed_on):
            return 0
        return max(0, self._slots - len(handed_on))

    def _cpus_of(self, stage: str) -> float:
        needs, (most, _) = self._resources(stage), self._largest
        return most if needs.exclusive else min(needs.cpus or 1, most)

    def submit(self, stage: str, here: bool) -> None:
        """Hand a stage on."""
        if here:
            self._here[self._pool.submit(self._run_here, self._job(stage), self._seconds(stage))] = stage
            return
        if self._ray is None:
            self._start()
        gpus = min(self._resources(stage).gpus, self._largest[1])
        task = self._task.options(name=stage, num_cpus=self._cpus_of(stage), num_gpus=gpus)
        job = asdict(self._job(stage))
        self._running[task.remote(job, self._head, self._archive, self._seconds(stage), self._register)] = stage

    def begun(self) -> list[str]:
        """Return the stages that have begun since the last call."""
        here, self._begun_here = self._begun_here, []
        if self._ray is None:
            return here
        try:
            there: list[str] = self._ray.get(self._register.take.remote(), timeout=REGISTER_SECONDS)
        except (self._ray.exceptions.RayError, TimeoutError):
            return here  # its machine is gone or busy; Ray starts it elsewhere, and the display alone is the poorer
        return here + there

    def wait(self, seconds: float) -> list[Outcome]:
        """Return what has ended, after at most so many seconds."""
        if self._running:
            self._ray.wait(list(self._running), timeout=seconds)
        elif self._here:
            wait_for(self._here, timeout=seconds)
        ended = [self._here_ended(future) for future in list(self._here) if future.done()]
        if self._running:
            ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
            ended += [self._ended(reference) for reference in ready]
        return ended

    def close(self) -> None:
        """Leave no process and no workspace behind, whatever runs."""
        if self._agent:
            self._agent.end()
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._ray is not None:
            for reference in self._running:
                self._ray.cancel(reference, force=True)
            self._ray.shutdown()
        folder, give_up = Path(self._head.folder), time.monotonic() + CLOSING_SECONDS
        while any(path.is_dir() for path in folder.iterdir()) and time.monotonic() < give_up:
            time.sleep(0.1)  # agents whose worker is gone end their stage and remove their workspace
        shutil.rmtree(folder, ignore_errors=True)

    def _start(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        import ray

        untyped: Any = ray
        alone = {"address": "local", "num_cpus": self._cpus, "include_dashboard": False}
        how = {"address": self._address} if self._address else alone
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **how)
        except RuntimeError as error:
            raise ConnectionError(f"Ray does not start: {_first_line(error)}") from error
        untyped.cloudpickle.register_pickle_by_value(workspace)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray's own would leave its processes behind
        self._ray = ray
        self._task = ray.remote(max_retries=0)(workspace.run)
        self._register = untyped.remote(num_cpus=0, max_restarts=-1)(workspace.Register).remote()
        self._archive = ray.put(workspace.pack(Path(self._head.root)))
        nodes = [node["Resources"] for node in untyped.nodes() if node["Alive"]]
        self._slots = max(1, int(sum(node.get("CPU", 0) for node in nodes) / self._usual))
        self._largest = (max(node.get("CPU", 0) for node in nodes), max(node.get("GPU", 0) for node in nodes))

    def _ended(self, reference: Any) -> Outcome:
        stage = self._running.pop(reference)
        try:
            result, log = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Outcome(stage, End.LOST, f"its worker was lost: {_first_line(error)}")
        if log:
            path = Path(self._job(stage).log)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(log)
        return Outcome(stage, End(result["end"]), result["message"])

    def _seconds(self, stage: str) -> float | None:
        minutes = self._resources(stage).minutes
        return minutes and minutes * 60

    def _run_here(self, job: Job, seconds: float | None) -> Outcome:
        if self._agent is None or not self._agent.alive:
            self._agent = Agent(Path(self._head.root), owned=False)
        local = asdict(job) | {"workspace": self._head.root, "files": {}, "inputs": (), "expected": {}}
        self._begun_here.append(job.stage)
        result = self._agent.run(local, seconds)
        return Outcome(job.stage, End(result.end), result.message)

    def _here_ended(self, future: Future[Outcome]) -> Outcome:
        del self._here[future]
        return future.result()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
