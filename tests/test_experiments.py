"""docs/experiments.md is true: every command of it runs, and does what it says."""

import json
import re
import shlex
import time
from pathlib import Path

import pytest
from clone import ROOT, TASKS, Project, small_project

DOCUMENT = ROOT / "docs/experiments.md"
QUEUED = ("no-kl", "no-mlm", "no-cosine", "random-init")
AFTER_PRUNE = {"prune", "quantize", "onnx-export", "quality-eval", "speed-bench", "android-bench-collect", "report"}
QUEUE_SECONDS = 1800

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone whose pipeline has run, with the files of one's own that the document speaks of."""
    made = small_project(tmp_path_factory.mktemp("clone"))
    made.repro()
    made.run("git", "add", "-A")
    made.run("git", "commit", "-qm", "results")
    return made


@pytest.fixture(scope="module")
def outputs(project: Project) -> dict[str, str]:
    """What each command of the document printed, in its order; queued experiments are waited for."""
    mine = project.folder / "mine"
    mine.mkdir()
    for name, lines in (("train.txt", 300), ("dev.txt", 60)):
        (mine / name).write_text("".join(f"Word {n} of my own text is {n * n}, and no other.\n" for n in range(lines)))
    for name in ("cola.jsonl", "cola-dev.jsonl"):
        rows = ({"sentence": f"The book was read {n} times.", "label": n % 2} for n in range(32))
        (mine / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    project.run("git", "add", "mine")
    project.run("git", "commit", "-qm", "text of my own")
    printed = {}
    for command in re.findall(r"(?m)^    (\S.*)$", DOCUMENT.read_text()):
        printed[command] = project.run(*shlex.split(command))
        if command.startswith("dvc queue start"):
            wait(project)
        if command.startswith(("dvc exp run", "dvc exp apply")):
            project.run("git", "checkout", "-q", ".")
            project.run("dvc", "checkout")
    return printed


def wait(project: Project) -> None:
    give_up = time.monotonic() + QUEUE_SECONDS
    while time.monotonic() < give_up:
        status = project.run("dvc", "queue", "status")
        assert "Failed" not in status, status
        if not re.search(r"Queued|Running", status):
            return
        time.sleep(3)
    raise AssertionError(status)


def stages(printed: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", printed))


def test_every_command_is_known_to_this_test(outputs: dict[str, str]) -> None:
    assert len(outputs) >= 20


def test_an_experiment_runs_what_it_changes(outputs: dict[str, str]) -> None:
    longer = stages(outputs["dvc exp run -n longer -S epochs=3"])
    assert {"distill", "prune", "report"} <= longer
    assert not {"download", "teacher"} & longer
    assert stages(outputs["dvc exp run -n more-zeros -S prune.amount=0.7"]) == AFTER_PRUNE
    (task,) = (printed for command, printed in outputs.items() if "own-task" in command)
    assert {f"glue-eval@{model}-CoLA-42" for model in ("bert", "distilbert")} <= stages(task)
    assert not any(f"-{TASKS[1]}-" in stage for stage in stages(task))


def test_experiments_are_compared(outputs: dict[str, str]) -> None:
    shown = next(printed for command, printed in outputs.items() if command.startswith("dvc exp show"))
    assert re.search(r"\[longer\].*\| 3 ", shown)
    assert "metrics/distill.json:mlm_loss" in shown
    difference = outputs["dvc exp diff HEAD longer --md"]
    assert "metrics/distill.json" in difference
    assert re.search(r"params.yaml\s*\|\s*epochs\s*\|\s*1", difference)


def test_the_queue_runs_the_ablation(project: Project, outputs: dict[str, str]) -> None:
    status = project.run("dvc", "queue", "status")
    for name in QUEUED:
        assert re.search(rf"{name}\s.*Success", status), status
    table = next(printed for command, printed in outputs.items() if "--keep" in command and "glue" in command)
    for name in QUEUED:
        assert f"[{name}]" in table


def test_a_temporary_run_leaves_the_working_tree_alone(project: Project, outputs: dict[str, str]) -> None:
    assert "shorter" in outputs["dvc exp run --temp -n shorter -S epochs=1"]
    assert project.run("git", "status", "--short").strip() == ""


def test_curves_are_drawn_beside_each_other(project: Project, outputs: dict[str, str]) -> None:
    page = (project.folder / "dvc_plots/index.html").read_text()
    assert "longer" in page
    assert Path(outputs["dvc plots diff HEAD longer"].strip().splitlines()[-1].removeprefix("file://")).is_file()
