"""Where stages run: which has room, what waits for what, and how the processes of a worker begin and end."""

import os
import signal
import subprocess
from concurrent.futures import Future
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from cluster.agent import GUARD, Agent, Job, Result, _lives
from cluster.scheduler import End, Outcome
from cluster.workers import UNNEEDED, RayWorkers, _fewer_processes
from cluster.workspace import Head
from stages.core.params import StageResources


class StandIn(RayWorkers):
    """Workers without Ray and without stages: what is handed on runs until `finish`."""

    def __init__(self, tmp_path: Path) -> None:
        def resources(stage: str) -> StageResources:
            return StageResources(cpus=1, exclusive=stage.startswith("measure"))

        def job(stage: str) -> Job:
            return Job(stage, "", str(tmp_path / stage))

        head = Head("", str(tmp_path), str(tmp_path), "", None, None, None)
        super().__init__(head, job, resources, lambda stage, alone: None, None, 2, "cell")
        self._ray, self._slots, self._machines = object(), 2, [(2.0, 0.0)]

    def _hand_on(self, stage: str, here: bool) -> None:
        (self._here if here else self._running)[Future()] = stage

    @property
    def run(self) -> set[str]:
        return {*self._here.values(), *self._running.values()}

    def finish(self, stage: str) -> None:
        for running in (self._here, self._running):
            for future in [future for future, name in running.items() if name == stage]:
                del running[future]
        self._release()


def test_that_ray_cannot_be_started_is_told_while_the_first_stage_runs(tmp_path: Path) -> None:
    class Failing(StandIn):
        def _start(self) -> None:
            raise ConnectionError("Ray: no shared memory")

    workers = Failing(tmp_path)
    workers._ray = None
    workers._started().exception()
    with pytest.raises(ConnectionError, match="no shared memory"):
        workers.wait(0.0)
    workers.close()


def test_what_takes_all_cores_begins_when_ray_is_there_that_is_being_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Done(Agent):
        alive = True

        def __init__(self) -> None:
            pass

        def run(self, job: dict[str, Any], seconds: float | None = None) -> Result:
            return Result("done")

        def end(self) -> None:
            pass

    class Here(StandIn):
        _hand_on = RayWorkers._hand_on

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    workers, ray = Here(tmp_path), Future[None]()
    workers._agent, workers._packed, workers._ray = Done(), b"", None
    workers._resources = lambda stage: StageResources(cpus=2 if stage == "teacher" else 1)

    def begin(stage: str) -> Future[Outcome]:
        workers.submit(stage, True)
        return next(future for future, name in workers._here.items() if name == stage)

    assert begin("teacher").result(10).end is End.DONE  # the first, after which Ray begins to start
    workers._starting = ray
    assert begin("one thread").result(10).end is End.DONE
    workers.wait(0)
    waits = begin("teacher")
    with pytest.raises(TimeoutError):
        waits.result(0.2)
    ray.set_result(None)
    assert waits.result(10).end is End.DONE
    workers._starting = None
    workers.close()


def test_ray_has_the_processes_that_one_machine_does_without() -> None:
    Node = pytest.importorskip("ray._private.node", reason="needs Ray").Node  # noqa: N806
    started = [getattr(Node, name) for name in UNNEEDED]  # if they have other names now, they start again
    with _fewer_processes():
        assert not set(started) & {getattr(Node, name) for name in UNNEEDED}
    assert [getattr(Node, name) for name in UNNEEDED] == started


def test_a_process_that_nobody_waited_for_is_not_waited_for(tmp_path: Path) -> None:
    zombie = subprocess.Popen(["true"], start_new_session=True)
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert not _lives(zombie.pid)
    assert pauses_of_the_guard(zombie.pid, tmp_path) == 0
    zombie.wait()
    assert not _lives(zombie.pid)


def test_what_goes_on_is_waited_for_and_killed_in_the_end(tmp_path: Path) -> None:
    stubborn = 'trap "" INT; echo ready; read -r _'
    process = subprocess.Popen(["sh", "-c", stubborn], stdin=PIPE, stdout=PIPE, start_new_session=True)
    assert process.stdout
    process.stdout.readline()
    assert _lives(process.pid)
    assert pauses_of_the_guard(process.pid, tmp_path) == 50
    assert process.wait() == -signal.SIGKILL


def pauses_of_the_guard(group: int, folder: Path) -> int:
    """Have the guard of a workspace end a process group; how often it paused, for no time here."""
    workspace, pauses, bin_folder = folder / "run" / "workspace", folder / "pauses", folder / "bin"
    for new in (workspace, bin_folder):
        new.mkdir(parents=True)
    (bin_folder / "sleep").write_text(f"#!/bin/sh\necho >> '{pauses}'\n")
    (bin_folder / "sleep").chmod(0o755)
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", "-c", GUARD, "guard", str(group), str(workspace)]
    subprocess.run(command, stdin=subprocess.DEVNULL, env={**os.environ, "PATH": path}, check=True)
    assert not workspace.parent.exists()
    return len(pauses.read_text().splitlines()) if pauses.exists() else 0


@pytest.mark.parametrize("cell_here", [True, False])
@pytest.mark.parametrize("measurement_here", [True, False])
def test_a_measurement_waits_for_what_ray_does_not_know_of(
    tmp_path: Path, cell_here: bool, measurement_here: bool
) -> None:
    workers = StandIn(tmp_path)
    workers.submit("cell", cell_here)
    workers.submit("measure", measurement_here)
    # if Ray has both, it keeps them apart itself
    assert workers.run == ({"cell"} if cell_here or measurement_here else {"cell", "measure"})
    workers.finish("cell")
    assert workers.run == {"measure"}
    if measurement_here:
        assert workers.room([]) == 0
    for cell in ("again", "and again"):
        workers.submit(cell, True)
    assert workers.run == {"measure"}
    workers.finish("measure")
    assert workers.run == {"again", "and again"}
    assert workers.room([]) == 2


def test_nothing_joins_a_measurement_that_waits_in_ray(tmp_path: Path) -> None:
    workers = StandIn(tmp_path)
    workers._machines = [(1.0, 0.0)]  # no larger than what the short stages take
    workers.submit("measure", False)
    assert workers.room(["measure"]) == 0
    assert workers.room([]) == 0  # it runs


def test_on_one_machine_a_stage_has_begun_when_there_is_room_for_it(tmp_path: Path) -> None:
    workers = StandIn(tmp_path)
    for cell in ("a", "b", "c"):
        workers.submit(cell, False)
    assert workers.begun() == ["a", "b"]
    assert workers.begun() == []
    workers.finish("a")
    assert workers.begun() == ["c"]
    workers.submit("measure", False)
    workers.finish("b")
    assert workers.begun() == []  # it takes all CPUs
    workers.finish("c")
    assert workers.begun() == ["measure"]


def test_none_waits_in_ray_on_one_machine_so_that_the_most_urgent_is_next(tmp_path: Path) -> None:
    workers = StandIn(tmp_path)
    for number, cell in enumerate(("a", "b")):
        assert workers.room(["a", "b"][:number]) == 2 - number  # before any is known to have begun
        workers.submit(cell, False)
    assert workers.room(["a", "b"]) == workers.room(["b"]) == workers.room([]) == 0
    workers.finish("a")
    assert workers.room([]) == 1
    workers.submit("here", True)
    assert workers.room(["here"]) == 1  # which takes none of Ray's places


@pytest.mark.parametrize(
    ("usual", "begun", "places"),
    [
        (StageResources(cpus=2, gpus=1), [], 2),
        (StageResources(cpus=2, gpus=1), [(16.0, 1.0)], 1),  # a large one leaves the other GPU
        (StageResources(cpus=2, gpus=1), [(2.0, 1.0), (2.0, 1.0)], 1),  # for one without a GPU
        (StageResources(cpus=2, gpus=1), [(32.0, 0.0)], 0),
        (StageResources(cpus=8), [(8.0, 0.0)] * 3, 1),
        (StageResources(cpus=8), [(8.0, 0.0)] * 3 + [(1.0, 0.0)], 1),  # for a small one
    ],
)
def test_places_are_counted_in_cpus_and_gpus(
    tmp_path: Path, usual: StageResources, begun: list[tuple[float, float]], places: int
) -> None:
    workers = StandIn(tmp_path)
    workers._usual, workers._machines = usual, [(32.0, 2.0)]
    assert workers._places(begun) == places


def test_a_cluster_may_grow_and_starts_what_fits(tmp_path: Path) -> None:
    workers = StandIn(tmp_path)
    workers._address = "auto"
    for cell in ("a", "b"):
        workers.submit(cell, False)
    assert workers.room(["a", "b"]) == 0
    assert workers.room([]) == 2  # whatever runs
