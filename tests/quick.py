"""A git and DVC repository of quick stages that do as a test says, for what runs stages elsewhere."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
SAFE = YAML(typ="safe", pure=True)
CELLS = 4
PIPELINE = """\
stages:
  download:
    cmd: python step.py download data
    deps: [step.py]
    outs: [data]
  glue-eval:
    matrix: {number: [0, 1, 2, 3]}
    cmd: python step.py ${item.number} cells/${item.number}
    params: [batch_size]
    deps: [data, step.py]
    outs: ["cells/${item.number}"]
    metrics:
      - metrics/${item.number}.json: {cache: false}
  report:
    cmd: python step.py report tables.md
    deps: [cells, metrics, step.py]
    outs:
      - tables.md: {cache: false}
"""
# Writes the names of what it was made of, and does as a file in the folder of the head says: sleeps, fails or hangs.
STEP = """\
import json, os, pathlib, sys, time
name, out = sys.argv[1:]
head = pathlib.Path(os.environ["HEAD"])
with (head / "log").open("a") as log:
    log.write(f"{name} {os.getpid()} {pathlib.Path.cwd()}\\n")
told = head / f"{name}.told"
if told.exists():
    exec(told.read_text())
pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
needed = {"download": [], "report": sorted(pathlib.Path("cells").glob("*"))}.get(name, [pathlib.Path("data")])
pathlib.Path(out).write_text("\\n".join([name, *(path.read_text() for path in needed)]))
if name.isdigit():
    pathlib.Path("metrics").mkdir(exist_ok=True)
    pathlib.Path(f"metrics/{name}.json").write_text(json.dumps({"score": int(name)}))
"""


class QuickProject:
    """A git and DVC repository of quick stages, two clones of which can be compared."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.head = folder, folder.parent / f"{folder.name}-told"
        folder.mkdir()
        self.head.mkdir()
        (folder / "dvc.yaml").write_text(PIPELINE)
        (folder / "step.py").write_text(STEP)
        (folder / "params.yaml").write_text((ROOT / "profiles/tiny.yaml").read_text())
        (folder / ".gitignore").write_text("/data\n/cells/\n/.remote/\n__pycache__/\n")
        self.environment = {
            **os.environ,
            "HEAD": str(self.head),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "DISTILBERT_WARM": "0",  # its stages import nothing heavy
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        for command in (
            "git init -q",
            "dvc init -q",
            "git add -A",
            "git -c user.name=n -c user.email=e@example.org commit -qm start",
        ):
            self.run(*command.split())

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert not check or done.returncode == 0, done.stdout
        assert check or done.returncode, done.stdout
        return done.stdout

    def start(self, jobs: int = 2) -> subprocess.Popen[str]:
        """Begin a run in a session of its own, so that ctrl-C can be sent to it as a terminal does."""
        return subprocess.Popen(
            [sys.executable, "-m", "cluster", f"--jobs={jobs}"],
            cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def repro(self, *options: str, check: bool = True) -> str:
        return self.run(sys.executable, "-m", "cluster", "--jobs=2", *options, check=check)

    def tell(self, stage: str, code: str | None) -> None:
        told = self.head / f"{stage}.told"
        if code is None:
            told.unlink()
        else:
            told.write_text(code)

    def ran(self) -> list[str]:
        """Names of the stages that were executed so far, by whoever."""
        log = self.head / "log"
        return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []

    def places(self) -> list[tuple[str, str]]:
        """The stages that were executed and the folders that they ran in."""
        lines = [line.split(" ", 2) for line in (self.head / "log").read_text().splitlines()]
        return [(name, where) for name, _, where in lines]

    def pid(self, stage: str) -> int:
        """Process that runs a stage, once it does."""
        give_up = time.monotonic() + 60
        while stage not in self.ran():
            assert time.monotonic() < give_up, f"{stage} did not start"
            time.sleep(0.05)
        lines = [line.split() for line in (self.head / "log").read_text().splitlines()]
        return next(int(pid) for name, pid, _ in reversed(lines) if name == stage)

    def lock(self) -> object:
        return SAFE.load(self.folder / "dvc.lock")

    def files(self) -> dict[str, bytes]:
        """Contents of what the stages make."""
        made = [
            *self.folder.glob("cells/*"),
            *self.folder.glob("metrics/*"),
            self.folder / "data",
            self.folder / "tables.md",
        ]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in made if path.is_file()}


def nothing_is_left(project: QuickProject) -> None:
    """No process of the run, no workspace of a worker, no lock."""
    give_up = time.monotonic() + 20
    while left := [p.cmdline() for p in psutil.process_iter() if belongs(p, project)]:
        assert time.monotonic() < give_up, left
        time.sleep(0.2)
    assert [path.name for path in (project.folder / ".dvc/tmp/cluster").iterdir() if path.is_dir()] in ([], ["logs"])
    project.run("dvc", "status")


def belongs(process: psutil.Process, project: QuickProject) -> bool:
    try:
        return process.environ().get("HEAD") == str(project.head)
    except psutil.Error:
        return False


def is_like(project: QuickProject, serial: QuickProject) -> None:
    assert project.files() == serial.files()
    assert project.lock() == serial.lock()
    assert "up to date" in project.run("dvc", "status")
