"""`dvc repro`, killed with all that it started in the middle of distillation and run again, ends in the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from clone import Project, small_project
from tiny_distillation import results

pytestmark = pytest.mark.long
LONG_ENOUGH = {"epochs": 12, "hardware": {"threads": 2}, "distill": {"save_minutes": 0.01}}
FROM_THE_START = "distill 0/"  # how the held-out losses of the untrained student are shown


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pipeline that has run up to the teacher."""
    made = small_project(tmp_path_factory.mktemp("start"))
    made.params(**LONG_ENOUGH)
    assert made.repro("teacher") == ["download", "teacher"]
    return made.folder


def copy(start: Path, folder: Path, **environment: str) -> Project:
    shutil.copytree(start, folder, ignore=shutil.ignore_patterns(".cache"))
    return Project(folder, **environment)


@pytest.fixture(scope="module")
def uninterrupted(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = copy(start, tmp_path_factory.mktemp("uninterrupted") / "clone")
    assert FROM_THE_START in project.run("dvc", "repro", "distill")
    return project.folder


def kill_all_in(folder: Path) -> None:
    """Kill DVC, the stage and the server that it may be a fork of, which leads a session of its own."""
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder):
                process.kill()
        except psutil.Error:
            continue


def kill_in_the_middle(project: Project) -> None:
    """Run up to `distill` and kill that once it has saved a checkpoint."""
    environment = {**os.environ, **project.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    running = subprocess.Popen(["dvc", "repro", "distill"], cwd=project.folder, env=environment, start_new_session=True)
    while not list(project.folder.glob(".cache/checkpoints/distill/*/checkpoint-*/complete.json")):
        assert running.poll() is None, "ended before it saved a checkpoint"
        time.sleep(0.01)
    kill_all_in(project.folder)
    assert running.wait() == -signal.SIGKILL
    assert not (project.folder / "models/distilbert").exists()


@pytest.mark.parametrize("warm", ["1", "0"])  # in a fork of a server, by itself
def test_a_killed_run_of_the_pipeline_carries_on(start: Path, uninterrupted: Path, tmp_path: Path, warm: str) -> None:
    project = copy(start, tmp_path / "clone", DISTILBERT_WARM=warm)
    kill_in_the_middle(project)
    shown = project.run("dvc", "repro", "distill")
    assert "Running stage 'distill'" in shown
    assert "Running stage 'teacher'" not in shown
    assert FROM_THE_START not in shown
    expected, resumed = results(uninterrupted), results(project.folder)
    assert sorted(expected) == sorted(resumed)
    assert [name for name in expected if expected[name] != resumed[name]] == []
    assert "up to date" in project.run("dvc", "status", "distill")
