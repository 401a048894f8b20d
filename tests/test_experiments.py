"""docs/experiments.md is true: its commands run one after the other, with nothing between, and do what it says."""

import json
import re
import time
from pathlib import Path

import pytest
from clone import TASKS, Project, small_project
from documents import block_commands
from test_documents import NOT_IN_THE_WALK, WALK

ABLATION = ("no-kl", "no-mlm", "no-cosine", "random-init")
SEEDS = (42, 43, 44)
AFTER_PRUNE = {
    *("prune", "quantize", "onnx-export", "onnx-eval@pruned-CoLA", "onnx-eval@pruned-SQuAD"),
    *("quality-eval", "size-bench", "speed-bench", "android-bench-collect", "report"),
}
QUEUE_SECONDS = 1800

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone whose pipeline has not run."""
    made = small_project(tmp_path_factory.mktemp("clone"))
    made.tasks(imdb={}, squad={})  # nothing in the document is about them
    (made.folder / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")  # in git, as in the clone of a user
    made.run("git", "add", "-A")
    made.run("git", "commit", "-qm", "a clone of one who has run nothing")
    return made


def write_own_files(project: Project) -> None:
    """Put the files of one's own that the document speaks of where it says."""
    mine = project.folder / "mine"
    mine.mkdir()
    for name, lines in (("train.txt", 300), ("dev.txt", 60)):
        (mine / name).write_text("".join(f"Word {n} of my own text is {n * n}, and no other.\n" for n in range(lines)))
    for name in ("cola.jsonl", "cola-dev.jsonl"):
        rows = ({"sentence": f"The book was read {n} times.", "label": n % 2} for n in range(32))
        (mine / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def outputs(project: Project) -> dict[str, str]:
    """What each command of the document printed the last time; queued experiments are waited for."""
    printed = {}
    for command in block_commands(WALK):
        if command == "git add mine":
            write_own_files(project)
        if command not in NOT_IN_THE_WALK:
            printed[command] = project.shell(command)
        if command.startswith("dvc queue start"):
            wait(project)
        if command.startswith("dvc queue status"):
            printed[command] = project.shell(command)  # after the waiting
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


def with_words(outputs: dict[str, str], *words: str) -> str:
    """What the one command that has these words printed."""
    (printed,) = (printed for command, printed in outputs.items() if all(word in command for word in words))
    return printed


def test_an_experiment_runs_what_it_changes(outputs: dict[str, str]) -> None:
    assert "distill" in stages(outputs["make repro"])
    longer = stages(outputs["dvc exp run -n longer -S epochs=3"])
    assert {"distill", "prune", "report"} <= longer
    assert not {"download", "teacher"} & longer
    assert stages(with_words(outputs, "more-zeros")) == AFTER_PRUNE
    task = stages(with_words(outputs, "own-task"))
    assert {f"glue-eval@{model}-CoLA-42" for model in ("bert", "distilbert")} <= task
    assert not any(f"-{TASKS[1]}-" in stage for stage in task)


def test_experiments_are_compared(outputs: dict[str, str]) -> None:
    shown = with_words(outputs, "exp show", "epochs")
    assert re.search(r"\[longer\].*\| 3 ", shown)
    assert "metrics/distill.json:mlm_loss" in shown
    assert "longer" in outputs["dvc exp show --csv"]
    difference = outputs["dvc exp diff HEAD longer --md"]
    assert "metrics/distill.json" in difference
    assert re.search(r"params.yaml\s*\|\s*epochs\s*\|\s*1", difference)


def test_scores_stand_beside_those_of_a_commit_and_of_an_experiment(outputs: dict[str, str]) -> None:
    for name in ("HEAD", "no-kl"):
        text = outputs[f"make compare REV={name}"]
        assert "the same predictions" in text.split("DistilBERT")[0]  # BERT's, which the change does not touch
        assert re.search(rf"Task +Metric +{name} +here +here - {name}", text)


@pytest.mark.parametrize("name", [*ABLATION, "other-teacher", "own-text", "own-task", "more-zeros", "half-the-heads"])
def test_an_experiment_differs_from_the_commit_by_what_it_names_alone(
    name: str, project: Project, outputs: dict[str, str]
) -> None:
    (named,) = (command for command in outputs if f"-n {name} " in command)
    changed = json.loads(project.run("dvc", "params", "diff", "HEAD", name, "--json"))["params.yaml"]
    said = tuple(re.findall(r"-S '?\+?([\w.]+)=", named))
    assert [key for key in changed if not key.startswith(said)] == []


def test_the_queue_runs_the_ablation_with_three_seeds(project: Project, outputs: dict[str, str]) -> None:
    table = with_words(outputs, "exp show", "glue_paper")
    for name in ABLATION:
        assert re.search(rf"{name}\s.*Success", outputs["dvc queue status"]), outputs["dvc queue status"]
        assert f"[{name}]" in table
        difference = outputs[f"dvc metrics diff HEAD {name} --md --targets metrics/glue_paper/distilbert.json"]
        assert "| metrics/glue_paper/distilbert.json |" in difference
        locked = project.run("git", "show", f"refs/exps/{experiment(project, name)}:dvc.lock")
        for seed in SEEDS:
            assert f"glue-eval@distilbert-CoLA-{seed}:" in locked


def experiment(project: Project, name: str) -> str:
    """The path of an experiment's git reference under refs/exps."""
    found = project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps")
    (reference,) = (line for line in found.splitlines() if line.endswith(f"/{name}"))
    return reference.removeprefix("refs/exps/")


def test_a_branch_keeps_an_experiment_and_a_removed_one_is_gone(project: Project, outputs: dict[str, str]) -> None:
    assert "epochs: 3" in project.run("git", "show", "longer-distillation:params.yaml")
    assert "shorter" in with_words(outputs, "--temp -n shorter")
    assert "shorter" not in project.run("dvc", "exp", "list")


def test_the_working_tree_is_as_committed_at_the_end(project: Project, outputs: dict[str, str]) -> None:
    assert {line[0] for line in project.run("git", "status", "--short").splitlines()} == {"A"}, "mine alone"
    assert project.run("dvc", "status").strip().endswith("Data and pipelines are up to date.")


def test_curves_are_drawn_beside_each_other(project: Project, outputs: dict[str, str]) -> None:
    page = (project.folder / "dvc_plots/index.html").read_text()
    assert "longer" in page
    assert Path(outputs["dvc plots diff HEAD longer"].strip().splitlines()[-1].removeprefix("file://")).is_file()
