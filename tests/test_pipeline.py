"""The whole pipeline, on a cut small enough for a test: from a clone to the tables, and what a change re-runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.profile import overlay

ROOT = Path(__file__).resolve().parents[1]
TASKS = ("CoLA", "STS-B")
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
}


class Project:
    """A clone of this working tree with its own cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str, check: bool = True) -> str:
        who = {f"GIT_{role}_{what}": f"t@{what}.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, **who, "PATH": path, "CI": "true"}
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


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("clone")
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    made = Project(folder)
    shutil.copy(folder / "profiles/tiny.yaml", folder / "params.yaml")
    made.params(**OVERLAY)
    values = YAML(typ="safe").load(folder / "params.yaml")
    values["glue"]["tasks"] = {task: {} for task in TASKS}
    YAML().dump(values, folder / "params.yaml")
    (folder / "dvc.lock").unlink(missing_ok=True)
    made.run("git", "init", "-q")
    made.run("git", "add", "-A")
    made.run("git", "commit", "-qm", "a clone")
    yield made
    subprocess.run(["pkill", "-f", f"stages.warm .*{folder.name}"], check=False)


def cells(*models: str, seeds: tuple[int, ...] = (42,), tasks: tuple[str, ...] = TASKS) -> set[str]:
    glue = {f"glue-eval@{model}-{task}-{seed}" for model in models for task in tasks for seed in seeds}
    others = {(suite, task) for suite, task in (("imdb-eval", "IMDb"), ("squad-eval", "SQuAD"))}
    return glue | {f"{suite}@{model}-{task}-{seed}" for suite, task in others for model in models for seed in seeds}


def test_a_clone_becomes_tables_and_the_second_run_does_nothing(project: Project) -> None:
    first = project.repro()
    assert set(first) == {"download", "teacher", "distill", "report"} | cells("bert", "distilbert")
    assert set(project.json("metrics/glue/bert.json")) == set(TASKS)
    assert set(project.json("metrics/squad/distilbert.json")) == {"exact_match", "f1"}
    assert set(project.json("metrics/imdb/distilbert.json")) == {"accuracy"}
    assert {"mlm_loss", "distill_loss", "cosine_loss"} <= set(project.json("metrics/distill.json"))
    tables = (project.folder / "plots/report/tables.md").read_text()
    assert "| DistilBERT" in tables
    assert project.repro() == []


def test_checkpoints_load_with_transformers(project: Project) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    for name, kind in (("bert", "BertForMaskedLM"), ("distilbert", "DistilBertForMaskedLM")):
        folder = project.folder / "models" / name
        assert type(AutoModelForMaskedLM.from_pretrained(folder)).__name__ == kind
        assert AutoTokenizer.from_pretrained(folder)("people").input_ids
        assert not list(folder.rglob("*.bin"))


def test_a_change_re_runs_what_depends_on_it_and_nothing_before(project: Project) -> None:
    values = (project.folder / "params.yaml").read_text()
    for changes, stages in (
        ({"epochs": 3}, {"distill"}),  # and what its new student changes, as the experiment below shows
        (
            {"glue": {"tasks": {"CoLA": {"learning_rate": 3e-5}}}},
            {f"glue-eval@{m}-CoLA-42" for m in ("bert", "distilbert")},
        ),
        ({"seeds": [42, 43]}, cells("bert", "distilbert", seeds=(43,))),
        ({"finetune": {"learning_rate": 3e-5}}, cells("bert", "distilbert")),
        ({"seed": 7}, {"teacher", "distill"}),
    ):
        project.params(**changes)
        assert project.would_run() - {"report"} == stages - {"report"}
        (project.folder / "params.yaml").write_text(values)
    assert project.would_run() == set()


def test_experiments_run_and_compare(project: Project) -> None:
    before = project.json("metrics/distill.json")
    out = project.run("dvc", "exp", "run", "-S", "epochs=3")
    assert set(re.findall(r"Running stage '([^']+)'", out)) == {"distill", "report"} | cells("distilbert")
    assert project.json("metrics/distill.json") != before
    assert "distill_loss" in project.run("dvc", "metrics", "diff", "--targets", "metrics/distill.json")
    shown = project.run("dvc", "metrics", "show", "metrics/glue/bert.json", "metrics/glue/distilbert.json", "--md")
    assert all(name in shown for name in ("bert.json", "distilbert.json", *TASKS))
    project.run("git", "checkout", "-q", "params.yaml")
    project.run("dvc", "repro")


def test_adding_and_removing_rows(project: Project) -> None:
    alone = project.json("metrics/glue/bert.json")
    values = (project.folder / "params.yaml").read_text()
    project.params(seeds=[42, 43, 44])
    assert set(project.repro()) - {"report"} == cells("bert", "distilbert", seeds=(43, 44))
    assert project.json("metrics/glue/bert.json") != alone
    (project.folder / "params.yaml").write_text(values)
    assert project.repro() in ([], ["report"])
    assert project.json("metrics/glue/bert.json") == alone
    loaded = YAML(typ="safe").load(values)
    del loaded["models"]["distilbert"]
    YAML().dump(loaded, project.folder / "params.yaml")
    project.repro()
    assert sorted(p.name for p in (project.folder / "metrics/glue").iterdir()) == ["bert.json"]
    (project.folder / "params.yaml").write_text(values)
    project.repro()


def test_empty_grids(project: Project) -> None:
    values = (project.folder / "params.yaml").read_text()
    loaded = YAML(typ="safe").load(values)
    for suite in ("glue", "imdb", "squad"):
        loaded[suite]["tasks"] = {}
    YAML().dump(loaded, project.folder / "params.yaml")
    assert project.repro() == ["report"]
    (project.folder / "params.yaml").write_text(values)
    project.repro()
