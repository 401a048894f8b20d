"""Clones of the working tree in which tests run the pipeline."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.profile import overlay

ROOT = Path(__file__).resolve().parents[1]
TASKS = ("CoLA", "STS-B")
MAKE = (
    "make",
    "-o",
    ".venv/.base",
    "-o",
    ".venv/.cluster",
    "PIP=true",
)  # the tests' own environment has what a target installs
OVERLAY: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 4,
    "hardware": {"threads": 1, "precision": "fp32"},
    "download": {"embedded": {"corpus_paragraphs": 200, "train_rows": 32, "dev_rows": 32}},
    "teacher": {
        "init": "config",
        "revision": None,
        "config": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 128,
        },
        "vocab_size": 400,
        "pretrain_steps": 4,
        "head_steps": 2,
        "batch_size": 4,
    },
    "distill": {"teacher_layers": [1], "effective_batch_size": 8, "eval_blocks": 4, "evaluations": 2},
    "finetune": {"epochs": 1.0, "batch_size": 16},
    "squad": {"tasks": {"SQuAD": {"max_length": 96, "doc_stride": 16}}},
    "prune": {"importance_blocks": 2},
    "onnx_export": {"check_blocks": 2, "calibration_rows": 2},
    "quality_eval": {"blocks": 4},
    "speed_bench": {
        "rounds": 1,
        "lengths": [16],
        "warmup": 1,
        "repeats": 2,
        "throughput_batch": 2,
        "throughput_length": 16,
        "stsb_samples": 4,
        "stsb_warmup": 1,
    },
}


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

    def shell(self, command: str) -> str:
        """Run a line as a user types it; `make` takes the tests' environment for the one that it would set up."""
        return self.run("bash", "-c", re.sub("^make ", f"{shlex.join(MAKE)} ", command))

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

    def tasks(self, **tasks: dict[str, Any]) -> None:
        """Put these tasks, with their settings, in place of a section's."""
        path = self.folder / "params.yaml"
        values = YAML(typ="safe").load(path)
        for section, chosen in tasks.items():
            values[section]["tasks"] = chosen
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


def small_project(folder: Path) -> Project:
    """A clone with parameters that make the whole pipeline a matter of a minute, committed and not run yet."""
    copy_tree(folder)
    made = Project(folder)
    shutil.copy(folder / "profiles/tiny.yaml", folder / "params.yaml")
    made.params(**OVERLAY)
    made.tasks(
        glue={task: {} for task in TASKS},
        onnx_export={"CoLA": {}, "SQuAD": {"max_length": 96, "doc_stride": 16}},
    )
    made.commit()
    return made


def finished_project(folder: Path, files: Mapping[str, str]) -> Project:
    """A clone in which DVC takes everything for done: what git does not keep of the outputs are stand-ins.

    `files` are further texts, by path.
    """
    from dvc.repo import Repo

    copy_tree(folder)
    made = Project(folder)
    shutil.copy(folder / "profiles/tiny.yaml", folder / "params.yaml")
    made.commit()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with Repo(folder) as repo:
        for path in (Path(one.fs_path) for one in (*repo.index.outs, *repo.index.deps)):
            if not path.exists():
                (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
                (path if path.suffix else path / "stand-in").write_text("{}")
    made.run("dvc", "commit", "--force")
    made.run("git", "add", "-A")
    made.run("git", "commit", "-qm", "results")
    return made
