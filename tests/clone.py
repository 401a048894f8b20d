"""Clones of the working tree in which tests run the pipeline."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.profile import overlay

ROOT = Path(__file__).resolve().parents[1]


class Project:
    """A clone of this working tree with its own cache."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.environment = folder, environment

    def run(self, *command: str, check: bool = True) -> str:
        who = {f"GIT_{role}_{what}": f"t@{what}.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, **who, **self.environment, "PATH": path, "CI": "true"}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def repro(self, *arguments: str) -> list[str]:
        """Names of the stages that were run."""
        return re.findall(r"Running stage '([^']+)'", self.run("dvc", "repro", *arguments))

    def would_run(self) -> set[str]:
        return set(re.findall(r"Running stage '([^']+)'", self.run("dvc", "repro", "--dry")))

    def params(self, **changes: Any) -> None:
        """Change top-level sections of params.yaml."""
        path = self.folder / "params.yaml"
        values = YAML(typ="safe").load(path)
        overlay(values, changes)
        YAML().dump(values, path)

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def commit(self) -> None:
        """Begin a history without a lock file, so that everything has to run."""
        (self.folder / "dvc.lock").unlink(missing_ok=True)
        self.run("git", "init", "-q")
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", "a clone")


def copy_tree(folder: Path) -> None:
    """Copy what git tracks or would track."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
