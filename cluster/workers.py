"""Ray's side of a run: which worker has room for a stage, and whether it is still there."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict
from math import ceil
from operator import ge
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cluster import workspace
from cluster.agent import Agent, Job
from cluster.scheduler import End, Outcome
from stages.core import waiting
from stages.core.params import StageResources

CLOSING_SECONDS = 15.0
REGISTER_SECONDS = 5.0
JOINS = 3  # tries to join a cluster whose head does not get its part of the connection started
JOIN_SECONDS = 2.0  # between them
ROUNDING = 1e-6  # of sums of fractions
DEBUGGER = "PYTHONBREAKPOINT"
UNNEEDED = ("start_monitor", "start_log_monitor")  # of Ray: its autoscaler, and what copies workers' output


class RayWorkers:
    """Runs stages as tasks of a Ray cluster, which is started or joined when it is needed, or in this workspace."""

    def __init__(
        self,
        head: workspace.Head,
        job: Callable[[str], Job],
        resources: Callable[[str], StageResources],
        spins: Callable[[str, bool], str | None],
        address: str | None,
        cpus: int,
        usual: str,
    ) -> None:
        """Without `address` there is this machine alone, with so many CPUs to give.

        `job` and `resources` describe a stage, and `spins` how its threads wait for each other if it is alone on its
        machine or, with False, beside others (`stages.core.waiting`). `usual` is one of the many short stages.
        """
        self._head, self._job, self._resources = head, job, resources
        self._spins, self._usual_stage, self._usual = spins, usual, resources(usual)
        self._address, self._cpus = address, cpus
        self._slots = 1  # stages that fit at once, about
        self._machines: list[tuple[float, float]] = []  # CPUs and GPUs of each
        self._held: list[tuple[str, bool]] = []  # what was submitted and has to wait for what runs
        self._begun: set[str] = set()  # of what Ray has, on one machine
        self._logs: dict[str, Path] = {}
        self._begun_here: list[str] = []
        self._ray: Any = None
        self._register: Any = None
        self._running: dict[Any, str] = {}
        self._here: dict[Future[Outcome], str] = {}
        self._pool, self._background = ThreadPoolExecutor(1), ThreadPoolExecutor(1)  # stages here; Ray's start and end
        self._starting: Future[None] | None = None
        self._leaving: Future[None] | None = None
        self._imports: dict[str | None, subprocess.Popen[bytes]] = {}  # hold the libraries, for each way to wait
        self._debugger = os.environ.get(DEBUGGER)  # now, since Ray names its own, here too
        self._agent: Agent | None = None
        self._packed: bytes | None = None  # the workspace's files, for those of the workers
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # now, since a stage may be started while Ray is
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")

    def room(self, handed_on: Sequence[str]) -> int:
        """Return how many more to hand on: on one machine what there is room for, so that the most urgent is next.

        On a cluster, whose machines may change, as many more wait in Ray as can run at once, and it starts whatever
        fits. None while one waits that is larger than most or wants all CPUs: others would take each CPU that becomes
        free before it. Nor while one has this machine's workspace and all of its CPUs.
        """
        if self._held or any(self._resources(stage).exclusive for stage in self._here.values()):
            return 0
        pending = [stage for stage in self._running.values() if stage in handed_on]
        if any(
            self._resources(stage).exclusive or self._share(stage)[0] > (self._usual.cpus or 1) for stage in pending
        ):
            return 0
        if self._address or self._ray is None:
            return max(0, self._slots - len(handed_on))
        begun = [self._share(stage) for stage in self._running.values() if stage not in handed_on]
        return max(0, self._places(begun) - len(pending))

    def _places(self, begun: Sequence[tuple[float, float]]) -> int:
        """Return how many usual stages fit beside those that have begun; at least 1 if a CPU is free."""
        cpus, gpus = self._free(begun)
        return max(ceil(self._fitting(cpus, gpus)), int(cpus > 0))

    def _free(self, begun: Sequence[tuple[float, float]]) -> tuple[float, float]:
        """Return the CPUs and GPUs that those that have begun leave."""
        cpus, gpus = (total - sum(one[i] for one in begun) for i, total in enumerate(self._totals()))
        return cpus, gpus

    def _totals(self) -> tuple[float, float]:
        """Return the CPUs and GPUs of all machines."""
        return sum(cpus for cpus, _ in self._machines), sum(gpus for _, gpus in self._machines)

    def _fitting(self, cpus: float, gpus: float) -> float:
        """Return how many usual stages have room in so much; GPUs count where there are any."""
        places = cpus / (self._usual.cpus or 1)
        return min(places, gpus / self._usual.gpus) if self._usual.gpus and self._totals()[1] else places

    def _share(self, stage: str) -> tuple[float, float]:
        """Return the CPUs and GPUs that the stage gets: what it asks for, or what the machine that fits best has."""
        needs = self._resources(stage)
        gpus = min(needs.gpus, max(gpus for _, gpus in self._machines))
        most = max(cpus for cpus, there in self._machines if there >= gpus)
        return most if needs.exclusive else min(needs.cpus or 1, most), gpus

    def may_stay(self, stage: str) -> bool:
        """Whether a stage beside which no other runs may as well run in this machine's own workspace.

        Not where there are other machines, nor where Ray has to give it its GPUs.
        """
        return not (self._address or self._resources(stage).gpus)

    def prepare(self) -> None:
        """Begin to start Ray on this machine, and to import the libraries that its stages share."""
        if self._address or self._starting is not None:
            return
        for alone in (True, False) if self._here else (False,):
            variables = self._variables(self._usual_stage, alone)
            if variables[waiting.SPINS] not in self._imports:
                environment = {name: value for name, value in (os.environ | variables).items() if value is not None}
                self._imports[variables[waiting.SPINS]] = subprocess.Popen(
                    [sys.executable, "-m", "stages.core.warm"],
                    cwd=self._head.root,
                    env=environment,
                    stdin=subprocess.PIPE,
                    start_new_session=True,  # so that ctrl-C is not for it
                )
        self._started()
        if self._here:  # otherwise a stage follows at once, and starts its own
            self._background.submit(self._start_agents)

    def _start_agents(self) -> None:
        """Have Ray's processes start what runs stages in them."""
        if self._ray is not None:
            cpus, gpus = self._share(self._usual_stage)  # Ray has other processes for what asks for GPUs
            task = self._task.options(name="agent", num_cpus=cpus, num_gpus=gpus)
            for _ in range(self._slots):
                task.remote(None, self._head, self._archive, None, None)

    def _started(self) -> "Future[None]":
        """Begin to start Ray on this machine, once."""
        if self._starting is None:
            self._starting = self._background.submit(self._start)
        return self._starting

    def _variables(self, stage: str, alone: bool) -> dict[str, str | None]:
        """Return environment variables of a stage; stages share imported libraries where all variables agree."""
        return {waiting.SPINS: self._spins(stage, alone), DEBUGGER: self._debugger}

    def dismiss(self) -> None:
        """Begin to leave Ray, which ends where it was started for this run."""
        if self._starting is not None:
            with suppress(Exception):  # which `wait` tells
                self._starting.result()
        if self._ray is not None:
            for reference in self._running:
                self._ray.cancel(reference, force=True)
            self._leaving = self._background.submit(self._leave, self._ray)
        self._ray = self._starting = None

    def _leave(self, ray: Any) -> None:
        ray.shutdown()
        folder, give_up = Path(self._head.folder), time.monotonic() + CLOSING_SECONDS
        while any(path.is_dir() for path in folder.iterdir()) and time.monotonic() < give_up:
            time.sleep(0.1)  # agents whose worker is gone end their stage and remove their workspace

    def submit(self, stage: str, here: bool) -> None:
        """Hand a stage on; it is held back while an exclusive one and another would run beside each other.

        Ray sees to that among the stages that it has, and knows nothing of those in this machine's own workspace.
        """
        others = [*self._here.values(), *(self._running.values() if here else ())]
        exclusive = [other for other in others if self._resources(other).exclusive]
        if exclusive or (others and self._resources(stage).exclusive):
            self._held.append((stage, here))
        else:
            self._hand_on(stage, here)

    def _hand_on(self, stage: str, here: bool) -> None:
        job = asdict(self._job(stage))
        alone = self._resources(stage).exclusive or (here and not self._running)
        job["environment"] = self._variables(stage, alone)
        self._logs[stage] = Path(job["log"])
        self._logs[stage].unlink(missing_ok=True)  # of a former run
        self._pack()  # before a stage here changes files
        if here:
            if self._agent is None or not self._agent.alive:
                self._agent = Agent(Path(self._head.root), owned=False)
            changed = {"workspace": self._head.root, "files": {}, "inputs": (), "expected": {}}
            first = self._starting if self._fills_the_machine(stage) else None
            future = self._pool.submit(self._run_here, self._agent, job | changed, self._seconds(stage), first)
            self._here[future] = stage
            return
        if not self._resources(stage).exclusive:  # alone, so that nothing disturbs the measurement
            self.prepare()
        self._connect()
        cpus, gpus = self._share(stage)
        task = self._task.options(name=stage, num_cpus=cpus, num_gpus=gpus)
        arguments = (job, self._head, self._archive, self._seconds(stage), self._register)
        self._running[task.remote(*arguments)] = stage

    def _fills_the_machine(self, stage: str) -> bool:
        """Whether the stage has several threads, one for each core.

        Threads that wait for each other lose more while Ray starts on the same cores than that takes, so the stage
        waits for it, unless it is the first one and Ray begins to start after it.
        """
        return 1 < (os.cpu_count() or 1) <= (self._resources(stage).cpus or 1)

    def begun(self) -> list[str]:
        """Return the stages that have begun since the last call."""
        here, self._begun_here = self._begun_here, []
        if self._register is None:
            return here + self._fitting_now()
        try:
            there: list[str] = self._ray.get(self._register.take.remote(), timeout=REGISTER_SECONDS)
        except (self._ray.exceptions.RayError, TimeoutError):
            return here  # its machine is gone or busy; Ray starts it elsewhere, and meanwhile only ends are known
        return here + there

    def _fitting_now(self) -> list[str]:
        """Return the stages that Ray has begun since the last call, on one machine: those for which it has room.

        Fractions of GPUs are counted as if a stage could have them of several.
        """
        running = list(self._running.values())
        self._begun &= set(running)
        new = []
        for stage in running:
            free = self._free([self._share(one) for one in self._begun])
            if stage not in self._begun and all(map(ge, free, (need - ROUNDING for need in self._share(stage)))):
                self._begun.add(stage)
                new.append(stage)
        return new

    def wait(self, seconds: float) -> list[Outcome]:
        """Return what has ended, after at most so many seconds; raises ConnectionError if Ray could not be started."""
        if self._starting is not None and self._starting.done():
            self._connect()
        if self._running:
            self._ray.wait(list(self._running), timeout=seconds)
        elif self._here:
            wait_for(self._here, timeout=seconds)
        ended = [self._here_ended(future) for future in list(self._here) if future.done()]
        if self._running:
            ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
            ended += [self._ended(reference) for reference in ready]
        self._release()
        return ended

    def _release(self) -> None:
        """Submit again what was held back, which is held back again if it still has to be."""
        held, self._held = self._held, []
        for stage, here in held:
            self.submit(stage, here)

    def close(self) -> None:
        """Leave no process and no workspace behind, whatever runs."""
        for holder in self._imports.values():
            assert holder.stdin
            holder.stdin.close()  # at which it ends
        if self._agent:
            self._agent.end()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.dismiss()
        self._background.shutdown()
        for holder in self._imports.values():
            with suppress(subprocess.TimeoutExpired):
                holder.wait(CLOSING_SECONDS)
            holder.kill()
        shutil.rmtree(self._head.folder, ignore_errors=True)

    def _pack(self) -> bytes:
        if self._packed is None:
            self._packed = workspace.pack(Path(self._head.root))
        return self._packed

    def _connect(self) -> None:
        """Wait until Ray is there; raises ConnectionError if it cannot be."""
        if not self._address:
            self._started().result()
        elif self._ray is None:
            self._start()  # in this thread, where ctrl-C ends it
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray's own would leave its processes behind

    def _start(self) -> None:
        """Start Ray or join it."""
        import ray

        untyped: Any = ray
        alone = {"address": "local", "num_cpus": self._cpus, "include_dashboard": False}
        how = {"address": self._address} if self._address else alone
        for left in reversed(range(JOINS)):
            try:
                with nullcontext() if self._address else _fewer_processes():
                    ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **how)
                break
            except Exception as error:  # Ray raises what it likes, even plain Exceptions
                # For a `ray://` address the head starts a process, which a busy machine may be too slow for, or end.
                if not isinstance(error, ConnectionAbortedError) or not left:
                    raise ConnectionError(f"Ray: {' '.join(str(error).split())}") from error
                time.sleep(JOIN_SECONDS)
        untyped.cloudpickle.register_pickle_by_value(workspace)
        self._task = ray.remote(max_retries=0)(workspace.run)
        if self._address:
            self._register = untyped.remote(num_cpus=0, max_restarts=-1)(workspace.Register).remote()
        self._archive = ray.put(self._pack())
        nodes = [node["Resources"] for node in untyped.nodes() if node["Alive"]]
        self._machines = [(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes]
        self._slots = max(1, int(self._fitting(*self._totals())))
        self._ray = ray  # last, since others look whether it is there

    def _ended(self, reference: Any) -> Outcome:
        stage = self._running.pop(reference)
        try:
            result, log = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Outcome(stage, End.LOST, f"its worker was lost: {_first_line(error)}")
        if log:
            self._logs[stage].parent.mkdir(parents=True, exist_ok=True)
            self._logs[stage].write_bytes(log)
        return Outcome(stage, End(result["end"]), result["message"])

    def _seconds(self, stage: str) -> float | None:
        minutes = self._resources(stage).minutes
        return minutes and minutes * 60

    def _run_here(
        self, agent: Agent, job: dict[str, Any], seconds: float | None, first: "Future[None] | None"
    ) -> Outcome:
        if first is not None:
            wait_for([first])
        if self._leaving is not None:
            self._leaving.result()  # so that it disturbs no measurement
        self._begun_here.append(job["stage"])
        result = agent.run(job, seconds)
        return Outcome(job["stage"], End(result.end), result.message)

    def _here_ended(self, future: Future[Outcome]) -> Outcome:
        del self._here[future]
        return future.result()


@contextmanager
def _fewer_processes() -> Iterator[None]:
    """Have Ray start without the two processes that one machine does not need; its end would wait a second for one."""
    try:
        from ray._private.node import Node
    except ImportError:  # in another version of Ray, where they start then
        yield
        return
    with ExitStack() as stack:
        for name in UNNEEDED:
            if hasattr(Node, name):
                stack.enter_context(patch.object(Node, name, lambda *_, **__: None))
        yield


def _first_line(error: Exception) -> str:
    reason = getattr(error, "cause", None) or error  # of an error in the worker, whose own text begins with its address
    return (str(reason).strip() or type(reason).__name__).splitlines()[0]
