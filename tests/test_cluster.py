"""`python -m cluster` against `dvc repro`: the same workspace, and nothing lost when something is killed or fails."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from clone import MAKE, small_project
from dvc.dvcfile import Lockfile
from dvc.repo import Repo
from quick import CELLS, is_like, nothing_is_left
from quick import QuickProject as Project

from cluster.pipeline import DvcPipeline
from cluster.scheduler import State

pytest.importorskip("ray", reason="the extra `cluster` is not installed")
TIMED = ("metrics/compression", "metrics/speed")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "ours")


@pytest.fixture
def serial(tmp_path: Path) -> Project:
    made = Project(tmp_path / "serial")
    made.run("dvc", "repro")
    return made


def test_it_ends_as_dvc_repro_does(project: Project, serial: Project) -> None:
    shown = project.repro()
    is_like(project, serial)
    assert sorted(project.ran()) == sorted(serial.ran())
    assert "report: done" in shown
    assert "again" not in shown
    assert {Path(where).parts[-5:-2] for name, where in project.places() if name.isdigit()} == {
        (".dvc", "tmp", "cluster")
    }
    # what all others wait for, and the last, do not
    assert {where for name, where in project.places() if not name.isdigit()} == {str(project.folder)}
    nothing_is_left(project)
    # and again: nothing to run
    project.repro()
    assert len(project.ran()) == CELLS + 2
    # a change comes from the run cache on its way back, and only what depends on it was run
    for batch, ran in ((4, 2 * CELLS + 2), (8, 2 * CELLS + 2)):
        path = project.folder / "params.yaml"
        path.write_text(path.read_text().replace(f"\nbatch_size: {12 - batch}", f"\nbatch_size: {batch}"))
        project.repro()
        assert len(project.ran()) == ran
    is_like(project, serial)


UNTIL_WORKERS_ARE_READY = """
give_up = time.monotonic() + 60
while len(ready := sorted(str(path) for path in pathlib.Path(".dvc/tmp/cluster").resolve().glob("*/*-0"))) < 2:
    assert time.monotonic() < give_up, ready
    time.sleep(0.1)
(head / "ready").write_text("\\n".join(ready))
"""


def test_workers_get_ready_beside_what_all_others_wait_for(project: Project) -> None:
    project.tell("download", UNTIL_WORKERS_ARE_READY)
    project.repro()
    ready = (project.head / "ready").read_text().splitlines()
    assert {where for name, where in project.places() if name.isdigit()} <= set(ready)


def test_a_failure_stops_only_what_needs_it_and_is_told(project: Project, serial: Project) -> None:
    project.tell("2", "raise SystemExit('no luck')")
    shown = project.repro(check=False)
    assert "glue-eval@2 failed; .dvc/tmp/cluster/logs/glue-eval@2.log ends:" in shown
    assert "no luck" in shown
    assert "error: failed: glue-eval@2; 1 that needs what failed did not run" in shown
    assert "Traceback" not in shown
    assert sorted(project.ran()) == ["0", "1", "2", "3", "download"]
    nothing_is_left(project)
    project.tell("2", None)
    project.run("dvc", "repro")  # carries on
    assert project.ran()[CELLS + 1 :] == ["2", "report"]
    is_like(project, serial)


@pytest.mark.long
def test_a_terminal_shows_the_table_and_nothing_of_dvc(project: Project) -> None:
    project.tell("3", "print('step 1 of 2', flush=True); time.sleep(3)")
    ours, theirs = pty.openpty()
    environment = {**project.environment, "TERM": "xterm", "COLUMNS": "100"}
    run = subprocess.Popen(
        [sys.executable, "-m", "cluster", "--jobs=2"], cwd=project.folder, env=environment, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # which is how a terminal ends
        while read := os.read(ours, 4096):
            shown += read
    os.close(ours)
    assert run.wait() == 0, shown.decode()
    assert "of 6 stages" in shown.decode()
    assert re.search(r"glue-eval@3\b.*step 1 of 2", shown.decode())
    assert "Collecting" not in shown.decode()
    assert "hash" not in shown.decode()


ONCE = """
if not (head / "once").exists():
    (head / "once").touch()
    time.sleep(600)
"""


@pytest.mark.long
@pytest.mark.parametrize("generations", [0, 1, 2], ids=["stage", "agent", "ray-worker"])
def test_a_killed_worker_costs_another_run(project: Project, serial: Project, generations: int) -> None:
    project.tell("1", ONCE)
    run = project.start()
    victim = psutil.Process(project.pid("1"))
    beside = [one.as_dict(["cmdline"])["cmdline"] for one in psutil.Process(run.pid).children(recursive=True)]
    assert not [one for one in beside if "monitor.py" in " ".join(one or ())]
    for _ in range(generations):
        victim = parent_of_another_kind(victim)
    victim.kill()
    shown, _ = run.communicate(timeout=120)
    assert run.returncode == 0, shown
    assert project.ran().count("1") == 2
    is_like(project, serial)
    nothing_is_left(project)


def parent_of_another_kind(process: psutil.Process) -> psutil.Process:
    """The next ancestor that is no shell."""
    parent = process.parent()
    while parent and parent.name() in ("sh", "bash", "dash"):
        parent = parent.parent()
    assert parent
    return parent


@pytest.mark.long
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing_and_is_carried_on(
    project: Project, serial: Project, sent: signal.Signals
) -> None:
    project.tell("3", ONCE)
    run = project.start()
    project.pid("3")
    while sorted(project.ran()) != ["0", "1", "2", "3", "download"]:
        time.sleep(0.1)
    time.sleep(3)  # for the others to be taken
    if sent is signal.SIGINT:
        os.killpg(run.pid, sent)
    else:
        run.send_signal(sent)
    shown, _ = run.communicate(timeout=60)
    if sent is not signal.SIGKILL:
        assert run.returncode == 130, shown
        assert "carries on from here" in shown
        assert "Traceback" not in shown
        nothing_is_left(project)
    else:
        project.run("dvc", "repro")  # takes from the run cache what dvc.lock does not name yet
    project.repro()
    assert project.ran()[CELLS + 1 :] == ["3", "report"]
    is_like(project, serial)
    nothing_is_left(project)


@pytest.mark.long
@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_a_run_can_be_interrupted_while_ray_starts(project: Project, serial: Project, seconds: float) -> None:
    project.tell("download", ONCE)  # beside which Ray starts
    run = project.start()
    project.pid("download")
    time.sleep(seconds)
    os.killpg(run.pid, signal.SIGINT)
    shown, _ = run.communicate(timeout=60)
    assert run.returncode == 130, shown
    assert "Traceback" not in shown
    nothing_is_left(project)
    project.repro()
    is_like(project, serial)


@pytest.mark.long
def test_a_stage_past_its_limit_is_ended(project: Project, serial: Project) -> None:
    path = project.folder / "params.yaml"
    path.write_text(path.read_text().replace("\n  speed-bench:", "\n  glue-eval: {minutes: 0.1}\n  speed-bench:"))
    project.tell("0", "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)")
    shown = project.repro(check=False)
    assert "glue-eval@0 failed" in shown
    assert "ran past its limit of 0.1 minutes" in shown
    nothing_is_left(project)
    project.tell("0", None)
    project.run("dvc", "repro")  # carries on
    is_like(project, serial)


@pytest.mark.long
def test_a_second_run_in_the_same_workspace_is_refused(project: Project, serial: Project) -> None:
    project.tell("0", "time.sleep(600)")
    run = project.start()
    project.pid("0")
    shown = project.repro(check=False)
    assert f"error: a run of process {run.pid} goes on in this workspace" in shown
    os.killpg(run.pid, signal.SIGINT)
    run.communicate(timeout=60)
    nothing_is_left(project)
    project.tell("0", None)
    project.run("dvc", "repro")  # carries on
    is_like(project, serial)


@pytest.mark.long
def test_a_serial_run_beside_it_spoils_nothing(project: Project, serial: Project) -> None:
    for cell in range(CELLS):
        project.tell(str(cell), "time.sleep(2)")
    run = project.start()
    project.pid("0")
    with contextlib.suppress(AssertionError):  # either may be refused what the other works on
        project.run("dvc", "repro")
    shown, _ = run.communicate(timeout=120)
    assert "Traceback" not in shown
    project.run("dvc", "repro")
    is_like(project, serial)
    nothing_is_left(project)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")
def test_a_write_of_dvc_lock_that_is_cut_short_leaves_the_former_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.repro()
    before = (project.folder / "dvc.lock").read_bytes()
    for made in ("cells/0", "metrics/0.json"):
        (project.folder / made).unlink()
    monkeypatch.chdir(project.folder)

    def half(lock: Lockfile, stages: Sequence[object], **_: object) -> None:
        Path(lock.path).write_bytes(before[: len(before) // 2])
        raise KeyboardInterrupt

    with Repo() as repo:
        pipeline = DvcPipeline(repo)
        assert pipeline.settle("download") is State.UNCHANGED
        assert pipeline.settle("glue-eval@0") is State.CACHED
        with monkeypatch.context() as patched:
            patched.setattr(Lockfile, "dump_stages", half)
            with pytest.raises(KeyboardInterrupt):
                pipeline.write()
        assert (project.folder / "dvc.lock").read_bytes() == before
        pipeline.write()
    assert "up to date" in project.run("dvc", "status")


def write_own_file(project: Project) -> None:
    """Write own.bin, which neither git nor DVC has, so that no worker gets it."""
    with (project.folder / ".gitignore").open("a") as ignored:
        ignored.write("/own.bin\n")
    (project.folder / "own.bin").write_text("not for git")


BESIDE = """\
  beside:
    cmd: python step.py download beside.txt
    deps: [step.py]
    outs: [beside.txt]
  report:
"""


@pytest.mark.long
def test_workers_get_what_is_not_committed_and_the_rest_runs_here(project: Project) -> None:
    with (project.folder / "step.py").open("a") as code:
        code.write("pathlib.Path(out).write_text(pathlib.Path('new.txt').read_text() + str(pathlib.Path.cwd()))\n")
    (project.folder / "new.txt").write_text("from a file that git does not know yet, in ")
    pipeline = (project.folder / "dvc.yaml").read_text()
    (project.folder / "dvc.yaml").write_text(
        pipeline.replace("deps: [data, step.py]", "deps: [data, own.bin, step.py]").replace("  report:\n", BESIDE)
    )
    write_own_file(project)
    project.repro("beside", "glue-eval@0", "glue-eval@1")
    assert (project.folder / "data").read_text().startswith("from a file that git does not know yet, in ")
    assert ".dvc/tmp/cluster/" in (project.folder / "data").read_text()
    assert (project.folder / "cells/0").read_text().endswith(f"in {project.folder}")


@pytest.mark.long
def test_workers_get_what_dvc_files_name(project: Project) -> None:
    (project.folder / "kept.txt").write_text("by `dvc add`")
    project.run("dvc", "add", "-q", "kept.txt")
    (project.folder / "kept.txt").unlink()
    project.run("dvc", "checkout", "-q", "kept.txt")
    pipeline = (project.folder / "dvc.yaml").read_text()
    (project.folder / "dvc.yaml").write_text(
        pipeline.replace("deps: [data, step.py]", "deps: [data, kept.txt, step.py]")
    )
    project.tell(
        "0",
        "assert pathlib.Path('kept.txt').read_text() == 'by `dvc add`'\n"
        "assert os.environ['GOMP_SPINCOUNT'] == '1000'  # for others may compute beside it",
    )
    project.repro("glue-eval@0", "glue-eval@1")
    (where,) = (where for name, where in project.places() if name == "0")
    assert ".dvc/tmp/cluster/" in where


EXCLUSIVE = """\
  speed-bench:
    cmd: python step.py speed-bench cells/speed
    deps: [data, own.bin, step.py]
    outs: [cells/speed]
"""
TIMED_SLEEP = """
begin = time.time()
time.sleep(2)
(head / f"{name}.span").write_text(f"{begin} {time.time()}")
"""


@pytest.mark.long
def test_nothing_runs_beside_a_measurement_wherever_it_runs(project: Project) -> None:
    """It is handed on when all else is, and ends up in the workspace itself, as what it reads is nowhere else."""
    write_own_file(project)
    pipeline = (project.folder / "dvc.yaml").read_text()
    (project.folder / "dvc.yaml").write_text(pipeline.replace("  report:\n", f"{EXCLUSIVE}  report:\n"))
    for stage in ("speed-bench", "0", "1", "2", "3"):
        project.tell(stage, TIMED_SLEEP)
    project.repro()
    spans = {path.stem: [float(end) for end in path.read_text().split()] for path in project.head.glob("*.span")}
    assert len(spans) == CELLS + 1
    begin, end = spans.pop("speed-bench")
    assert all(last <= begin or first >= end for first, last in spans.values()), (begin, end, spans)


def test_wrong_options_are_one_line(project: Project) -> None:
    assert "error: JOBS=-1" in project.repro("--jobs=-1", check=False)
    assert "error: JOBS=0" in project.repro("--jobs=0", check=False)
    assert "error: JOBS counts stages on this machine" in project.repro("--address=auto", check=False)
    shown = project.repro("nowhere", check=False)
    assert "error: " in shown
    assert "nowhere" in shown
    assert "Traceback" not in shown


@pytest.mark.long
def test_the_real_pipeline_gives_the_metrics_of_a_serial_run(tmp_path: Path) -> None:
    found = []
    for name, command in (("serial", (*MAKE, "repro")), ("ours", (*MAKE, "repro", "JOBS=2"))):
        (tmp_path / name).mkdir()
        made = small_project(tmp_path / name)
        made.run(*command)
        files = sorted(path.relative_to(made.folder) for path in (made.folder / "metrics").rglob("*.json"))
        found.append(
            {str(path): (made.folder / path).read_bytes() for path in files if not str(path).startswith(TIMED)}
        )
        assert "up to date" in made.run("dvc", "status")
        # Of those that poll, and of those that sleep, which all workers share with what was imported for them.
        assert len(list(made.folder.glob(".cache/warm-*.sock"))) <= 2
    assert len(found[0]) > 20
    assert found[0] == found[1]
