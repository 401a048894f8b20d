"""`make compare`: scores beside those of another commit, and whether the dev rows tell them apart."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clone import Project
from numpy.typing import NDArray
from report_project import ROOT, ROWS, make_project
from ruamel.yaml import YAML

from stages.core.errors import UserError
from stages.core.params import load_params
from stages.reporting import revisions
from stages.reporting.cells import load_results
from stages.reporting.summary import TEACHER, mean_retained, retained, standing

Rights = Callable[[NDArray[np.int64]], NDArray[np.bool_]]


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose cells DVC and git know of."""
    folder = tmp_path_factory.mktemp("committed")
    make_project(folder)
    values = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
    values["seeds"] = [1, 2, 3]
    YAML().dump(values, folder / "params.yaml")
    made = Project(folder)
    made.run("git", "init", "-q")
    made.run("dvc", "init", "-q")
    cells = [str(cell.relative_to(folder)) for cell in sorted(folder.glob("data/eval/*/*/*/*"))]
    YAML().dump({"stages": {"cells": {"cmd": "exit 1", "outs": cells}}}, folder / "dvc.yaml")
    made.run("dvc", "commit", "--force")
    made.run("git", "add", "params.yaml", "dvc.yaml", "dvc.lock", ".dvc")
    made.run("git", "commit", "-qm", "scores")
    return folder


@pytest.fixture
def project(committed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to change, as the current folder."""
    shutil.copytree(committed, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def printed(capsys: pytest.CaptureFixture[str], revision: str = "HEAD") -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["revisions", revision])
        revisions.main()
    return capsys.readouterr().out


def rows(text: str, model: str) -> dict[str, list[str]]:
    """A model's table: the cells of each line by its first one."""
    (table,) = (part for part in re.split(r"\n\n(?=\S+, )", text) if part.startswith(f"{model}, "))
    return {line.split()[0]: re.split(r"\s{2,}", line) for line in table.splitlines() if line}


def rewrite(path: Path, table: pa.Table) -> None:
    """Put other predictions in the place of a file that may be a link into DVC's cache."""
    path.unlink()
    pq.write_table(table, path)


def change(project: Path, model: str, task: str, right: Rights) -> None:
    """Have a model be right on these rows of a GLUE task, with all seeds."""
    for folder in (project / "data/eval/glue" / model / task).glob("[0-9]"):
        labels = pq.read_table(folder / "predictions.parquet")["label"].to_numpy()
        hits = right(np.arange(len(labels)))
        guesses = np.where(hits, labels, 1 - labels)
        rewrite(folder / "predictions.parquet", pa.table({"label": labels, "prediction": guesses}))
        result = json.loads((folder / "result.json").read_text())
        result["scores"]["accuracy"] = float(hits.mean())
        (folder / "result.json").unlink()
        (folder / "result.json").write_text(json.dumps(result))


def update(**changes: Any) -> Any:
    values = YAML(typ="safe").load(Path("params.yaml")) | changes
    YAML().dump(values, Path("params.yaml"))
    return values


def test_without_a_change_all_is_the_same(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys)
    for model in ("BERT", "DistilBERT"):
        assert f"{model}, medians of 3 seeds: the same predictions at HEAD and here" in text
    assert "Task" not in text


def test_a_change_is_told_with_its_interval(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(project, "distilbert", "SST-2", lambda row: row < 0.9 * ROWS)
    text = printed(capsys)
    assert "BERT, medians of 3 seeds: the same predictions" in text
    table = rows(text, "DistilBERT")
    assert table["Task"][2:] == ["HEAD", "here", "here - HEAD", "its 95 % interval"]
    assert table["SST-2"][1:5] == ["accuracy", "0.7100", "0.9000", "+0.1900"]
    low, high = map(float, table["SST-2"][5].split(" to "))
    error = 1.96 * np.sqrt(0.19 * 0.81 / ROWS)  # 38 rows differ, all in one direction: a binomial share
    assert (low, high) == (pytest.approx(0.19 - error, abs=0.01), pytest.approx(0.19 + error, abs=0.01))
    assert table["RTE"][-2:] == ["+0.0000≈", "+0.0000 to +0.0000"]


def test_a_difference_within_the_luck_of_the_rows_is_marked(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    as_many = int(0.73 * ROWS)  # as at HEAD, but other rows
    change(project, "distilbert", "RTE", lambda row: np.random.default_rng(0).permutation(row) < as_many)
    score, interval = rows(printed(capsys), "DistilBERT")["RTE"][-2:]
    assert score == "+0.0000≈"
    low, high = map(float, interval.split(" to "))
    assert low < -0.05
    assert high > 0.05


def test_what_is_retained_is_that_of_the_report(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = average()
    change(project, "distilbert", "SST-2", lambda row: row < 0.9 * ROWS)
    after = average()
    line = rows(printed(capsys), "DistilBERT")["average"]
    assert line[1:4] == ["retained", f"{before:.1f} %", f"{after:.1f} %"]
    assert line[4] == f"{after - before:+.1f}"
    low, high = map(float, line[5].split(" to "))
    assert 0 < low < after - before < high


def average() -> float:
    """What DistilBERT retains on average by the report's own reckoning, in percent."""
    results = load_results(load_params())
    pairs = [[standing(results, task, m) for m in ("distilbert", TEACHER)] for task in results.all_tasks()]
    mean = mean_retained([retained(*pair) for pair in pairs])
    assert mean is not None
    return 100 * mean.corrected


def test_a_teacher_that_changes_changes_what_is_retained(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(project, "bert", "SST-2", lambda row: row < 0.95 * ROWS)
    text = printed(capsys)
    assert rows(text, "DistilBERT")["SST-2"][4] == "+0.0000≈"
    assert float(rows(text, "DistilBERT")["average"][4]) < 0
    assert "average" not in rows(text, "BERT")


def test_without_the_teacher_nothing_is_retained(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    update(models={"distilbert": "models/distilbert"})
    change(project, "distilbert", "RTE", lambda row: row < 0.9 * ROWS)
    assert "average" not in rows(printed(capsys), "DistilBERT")


def test_what_only_this_workspace_has_is_left_out_and_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    update(seeds=[1, 9], models={name: f"models/{name}" for name in ("bert", "distilbert", "pruned")})
    for task in (project / "data/eval").glob("*/bert/*"):
        for model, seed in (("bert", 9), ("distilbert", 9), ("pruned", 1), ("pruned", 9)):
            shutil.copytree(task / "1", task.parents[1] / model / task.name / str(seed))
    change(project, "distilbert", "RTE", lambda row: row < 0.9 * ROWS)
    text = printed(capsys)
    assert "Not at HEAD: pruned, seed 9." in text
    assert rows(text, "DistilBERT")["RTE"][2:4] == ["0.7300", "0.9000"]
    assert "DistilBERT, 1 seed" in text


def test_a_task_that_the_revision_has_not_is_left_out_and_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = YAML(typ="safe").load(Path("dvc.yaml"))
    outs = stages["stages"]["cells"]["outs"]
    stages["stages"]["cells"]["outs"] = [out for out in outs if "CoLA" not in out]
    YAML().dump(stages, Path("dvc.yaml"))
    Project(project).run("dvc", "commit", "--force")
    Project(project).run("git", "commit", "-qam", "without CoLA")
    change(project, "distilbert", "RTE", lambda row: row < 0.9 * ROWS)
    text = printed(capsys)
    assert "Not at HEAD: CoLA." in text
    assert set(rows(text, "DistilBERT")) >= {"RTE", "SST-2", "average"}
    assert "CoLA" not in rows(text, "DistilBERT")


def test_tasks_that_only_the_revision_has_do_not_matter(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = update(seeds=[1, 2])
    values["glue"]["tasks"] = {"RTE": values["glue"]["tasks"]["RTE"]}
    update(**values)
    change(project, "distilbert", "RTE", lambda row: row < 0.9 * ROWS)
    text = printed(capsys)
    assert "DistilBERT, medians of 2 seeds" in text
    assert "SST-2" not in text
    assert "Not at" not in text


def test_nothing_in_common_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in [place.parent for place in (project / "data/eval").glob("*/*/*/1")]:
        shutil.copytree(place / "1", place / "7")
    update(seeds=[7])
    with pytest.raises(UserError, match="HEAD: has no model, task and seed in common"):
        printed(capsys)


@pytest.mark.parametrize(
    ("revision", "message"),
    [
        ("", "name a commit or an experiment"),
        ("nowhere", "nowhere: no commit, branch, tag or experiment of that name"),
    ],
)
def test_a_wrong_name_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], revision: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        printed(capsys, revision)
    assert "\n" not in str(caught.value)


def test_scores_that_left_the_cache_are_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(project / ".dvc/cache/files")
    message = r"data/eval/glue/bert/CoLA/1 of HEAD: neither in DVC's cache nor in the remote .*; in a checkout"
    with pytest.raises(UserError, match=message) as caught:
        printed(capsys)
    assert "\n" not in str(caught.value)


def test_a_task_with_other_dev_rows_is_left_out_and_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(project, "distilbert", "RTE", lambda row: row < 0.9 * ROWS)
    for cell in (project / "data/eval/imdb").glob("*/IMDb/[0-9]"):
        rewrite(cell / "predictions.parquet", pq.read_table(cell / "predictions.parquet").slice(0, 100))
    text = printed(capsys)
    assert "Left out, since the dev rows at HEAD are others: IMDb." in text
    assert "IMDb" not in rows(text, "DistilBERT")
    for cell in (project / "data/eval").glob("*/*/*/[0-9]"):
        rewrite(cell / "predictions.parquet", pq.read_table(cell / "predictions.parquet").slice(0, 50))
    with pytest.raises(UserError, match="HEAD: all its dev rows are others"):
        printed(capsys)
