"""What a worker is told of its stage, and what a person sees of a run."""

import io
import os
import shutil
import signal
import subprocess
from concurrent.futures import Future
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from dvc.dependency import param
from dvc.fs import LocalFileSystem
from dvc.parsing.context import Context
from dvc.repo import Repo
from dvc.stage.serialize import to_pipeline_file, to_single_stage_lockfile
from dvc.utils import serialize
from rich.console import Console
from ruamel.yaml import YAML

from cluster import parameters
from cluster.__main__ import how_to_wait, threads
from cluster.agent import GUARD, Agent, Job, Result, _lives
from cluster.display import Display
from cluster.pipeline import DvcPipeline
from cluster.scheduler import Board, End, Outcome, State
from cluster.workers import UNNEEDED, RayWorkers, _fewer_processes
from cluster.workspace import Head
from stages.core.params import StageResources, validate
from stages.core.waiting import ASLEEP, POLLING

ROOT = Path(__file__).resolve().parents[1]


def test_a_worker_reads_its_stage_as_the_whole_pipeline_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, alone = tmp_path / "whole", tmp_path / "alone"
    for folder in (whole, alone):
        (folder / ".dvc").mkdir(parents=True)
        subprocess.run(["git", "init", "-q", folder], check=True)
        (folder / ".dvc/config").touch()
        shutil.copy(ROOT / "params.yaml", folder)
    for name in ("dvc.yaml", "dvc.lock"):
        shutil.copy(ROOT / name, whole)
    monkeypatch.chdir(whole)
    pipeline = DvcPipeline(Repo())
    stages = {stage.addressing: stage for stage in Repo().index.stages}
    assert set(pipeline.upstream) == set(stages)
    monkeypatch.chdir(alone)
    for name, stage in stages.items():
        for file, text in zip(("dvc.yaml", "dvc.lock"), pipeline.reduced(name), strict=True):
            Path(file).write_text(text)
        with Repo() as repo:
            (read,) = repo.stage.collect(name)
            assert to_pipeline_file(read) == to_pipeline_file(stage)
            needed = sorted(pipeline.upstream[name])
            others = [other for other in repo.index.stages if other.addressing != name]
            assert [made(other) for other in others] == [made(stages[other]) for other in needed]


def made(stage: Any) -> Any:
    """The outputs of a stage, with the digests that `dvc.lock` has of them."""
    return to_single_stage_lockfile(stage)["outs"]


def test_what_stands_in_a_command_after_dvc_filled_it_in_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    Path(".dvc/config").touch()
    entry = """\
stages:
  say:
    foreach: [a, b]
    do:
      cmd: echo ${item} \\${HOME} "\\\\" > ${item}
      outs: ['${item}']
"""
    Path("dvc.yaml").write_text(entry)
    for name, expected in (("say@a", 'echo a ${HOME} "\\\\" > a'), ("say@b", 'echo b ${HOME} "\\\\" > b')):
        with Repo() as repo:
            (stage,) = repo.stage.collect(name)
            assert stage.cmd == expected
        text, _ = DvcPipeline(Repo()).reduced(name)
        Path("dvc.yaml").write_text(text)
        with Repo() as repo:
            (stage,) = repo.stage.collect(name)
            assert stage.cmd == expected
        Path("dvc.yaml").write_text(entry)


def test_the_table_shows_what_each_running_stage_printed_last(tmp_path: Path) -> None:
    (tmp_path / "distill.log").write_text("loaded\ndistill 1/9: loss 7\rdistill 2/9: loss 6\r\n\n")
    board = Board({"download": frozenset(), "distill": frozenset(), "teacher": frozenset(), "report": frozenset()})
    board.end("download", State.DONE, 0.0)
    for stage in ("distill", "teacher"):
        board.hand_on(stage)
        board.begin(stage, 0.0)
    for width, shown in ((100, "distill 2/9: loss 6"), (32, "distill 2/9")):
        stream = io.StringIO()
        with Display(Console(file=stream, force_terminal=True, width=width, color_system=None), tmp_path) as display:
            display.show(board)
        lines = [line.strip() for line in stream.getvalue().splitlines()]
        assert "1 of 4 stages" in stream.getvalue()
        row = next(line for line in lines if line.startswith("distill "))
        assert shown in row
        assert len(row) <= width
        assert "loaded" not in stream.getvalue()
        assert any(line.startswith("teacher ") for line in lines)  # which has printed nothing yet


def test_a_parameter_file_is_parsed_once_for_as_long_as_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []

    original = parameters._load

    def load(path: str, fs: Any) -> Any:
        parsed.append(path)
        return original(path, fs)

    for module in (param, serialize):
        monkeypatch.setattr(module, "load_path", module.load_path)  # as it is now, at the end
    monkeypatch.setattr(parameters, "_load", load)
    parameters.parse_once()
    file, fs = tmp_path / "params.yaml", LocalFileSystem()
    for number in (1, 2):
        file.write_text(f"a: {{b: {number}}}")  # of the same size
        os.utime(file, ns=(number, number))
        for read in (param.read_param_file(fs, str(file)), Context.load_from(fs, str(file)).data):
            assert read == {"a": {"b": number}}
            read["a"]["b"] = 0  # what one does with it is nothing to others
    assert len(parsed) == 2
    file.unlink()
    with pytest.raises(FileNotFoundError):
        param.read_param_file(fs, str(file))


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


@pytest.mark.parametrize(
    ("stage", "own", "shared"),
    [
        ("distill", 3, 4),
        ("prune", 3, 4),
        ("glue-eval@bert-RTE-42", 2, 4),
        ("squad-eval@bert-SQuAD-1", 2, 4),
        ("teacher", 5, 4),
        ("quality-eval", 4, 4),
        ("onnx-eval@pruned-SST-2", 4, 4),
    ],
)
def test_a_stage_counts_for_as_many_cpus_as_it_has_threads(stage: str, own: int, shared: int) -> None:
    values = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    values["hardware"]["threads"] = 4
    assert threads(stage, validate(values)) == shared
    values["teacher"]["threads"], values["distill"]["threads"], values["finetune"]["threads"] = 5, 3, 2
    assert threads(stage, validate(values)) == own


def test_stages_beside_others_sleep_unless_the_user_says_otherwise() -> None:
    assert how_to_wait(None, POLLING, alone=False) == ASLEEP
    assert how_to_wait(None, POLLING, alone=True) == POLLING
    assert how_to_wait(None, None, alone=True) is None  # on a cluster, where the stage looks at its own machine
    assert {how_to_wait("7", "7", alone) for alone in (True, False)} == {"7"}


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
