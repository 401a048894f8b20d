"""`make compare`: scores beside those of another commit, and whether the dev rows tell them apart."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_project import ROOT, make_project
from ruamel.yaml import YAML

from stages.core.errors import UserError
from stages.core.params import load_params
from stages.reporting import revisions
from stages.reporting.cells import load_results
from stages.reporting.paired import compare as beside_teacher
from stages.reporting.paired import mean_share
from stages.reporting.summary import standing


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose cells DVC and git know of."""
    folder = tmp_path_factory.mktemp("committed")
    make_project(folder)
    values = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
    values["seeds"] = [1, 2, 3]
    YAML().dump(values, folder / "params.yaml")
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "init", "-q")
    cells = [str(cell.relative_to(folder)) for cell in sorted(folder.glob("data/eval/*/*/*/*"))]
    YAML().dump({"stages": {"cells": {"cmd": "exit 1", "outs": cells}}}, folder / "dvc.yaml")
    run(folder, "dvc", "commit", "--force")
    run(folder, "git", "add", "params.yaml", "dvc.yaml", "dvc.lock", ".dvc")
    run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@t.org", "commit", "-qm", "scores")
    return folder


@pytest.fixture
def project(committed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to change, as the current folder."""
    shutil.copytree(committed, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def run(folder: Path, *command: str) -> None:
    program = Path(sys.executable).parent / command[0]
    named = (str(program), *command[1:]) if program.exists() else command
    subprocess.run(named, cwd=folder, check=True, capture_output=True)


def printed(capsys: pytest.CaptureFixture[str], revision: str = "HEAD") -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["revisions", revision])
        revisions.main()
    return capsys.readouterr().out


def rows(text: str, model: str) -> dict[str, list[str]]:
    """A model's table: the cells of each line by its first one."""
    (table,) = (part for part in re.split(r"\n\n(?=\S+, medians)", text) if part.startswith(f"{model}, "))
    return {line.split()[0]: re.split(r"\s{2,}", line) for line in table.splitlines() if line}


def change(project: Path, suite: str, model: str, task: str, score: str, right: float) -> None:
    """Give all seeds of a cell this score and so many right predictions."""
    for folder in (project / "data/eval" / suite / model / task).glob("[0-9]"):
        for name in ("result.json", "predictions.parquet"):
            content = (folder / name).read_bytes()
            (folder / name).unlink()  # perhaps a link into DVC's cache
            (folder / name).write_bytes(content)
        result = json.loads((folder / "result.json").read_text())
        result["scores"][score] = right
        (folder / "result.json").write_text(json.dumps(result))
        table = pq.read_table(folder / "predictions.parquet")
        labels = table["label"].to_numpy()
        guesses = np.where(np.arange(len(labels)) < len(labels) * right, labels, 1 - labels)
        pq.write_table(pa.table({"label": labels, "prediction": guesses}), folder / "predictions.parquet")


def test_without_a_change_all_is_the_same(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys)
    for model in ("BERT", "DistilBERT"):
        assert f"{model}, medians of 3 seeds: the same predictions at HEAD and here" in text
    assert "difference" not in text.split("Retained")[0]


def test_a_change_is_told_with_its_interval(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(project, "glue", "distilbert", "SST-2", "accuracy", 0.9)
    text = printed(capsys)
    assert "BERT, medians of 3 seeds: the same predictions" in text
    table = rows(text, "DistilBERT")
    _, metric, there, here, difference, interval = table["SST-2"]
    assert (metric, there, here, difference) == ("accuracy", "0.7100", "0.9000", "+0.1900")
    low, high = map(float, interval.split(" to "))
    # The rows that differ are 38 of 200, and all in one direction: a binomial share.
    error = 1.96 * np.sqrt(0.19 * 0.81 / 200)
    assert (low, high) == (pytest.approx(0.19 - error, abs=0.01), pytest.approx(0.19 + error, abs=0.01))
    assert table["RTE"][-2:] == ["+0.0000≈", "+0.0000 to +0.0000"]


def test_a_difference_within_the_luck_of_the_rows_is_marked(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(project, "glue", "distilbert", "RTE", "accuracy", 0.7)
    for folder in (project / "data/eval/glue/distilbert/RTE").glob("[0-9]"):
        table = pq.read_table(folder / "predictions.parquet")
        luck = np.random.default_rng(0).permutation(np.arange(len(table)) < 142)  # as good as before, on other rows
        labels = table["label"].to_numpy()
        guesses = np.where(luck, labels, 1 - labels)
        pq.write_table(pa.table({"label": labels, "prediction": guesses}), folder / "predictions.parquet")
    difference, interval = rows(printed(capsys), "DistilBERT")["RTE"][-2:]
    assert difference.endswith("≈")
    low, high = map(float, interval.split(" to "))
    assert low < 0 < high


def test_what_is_retained_is_that_of_the_report(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(project, "glue", "distilbert", "SST-2", "accuracy", 0.75)
    _, what, there, here, difference, _ = rows(printed(capsys), "DistilBERT")["average"]
    results = load_results(load_params())
    standings = {(t, m): standing(results, t, m) for t in results.all_tasks() for m in results.models}
    kept = mean_share(list(beside_teacher(results, standings).values()))
    assert kept is not None
    assert what == "retained"
    assert kept.low < float(here.removesuffix(" %")) / 100 < kept.high
    assert float(difference.rstrip("≈")) == pytest.approx(float(here[:-2]) - float(there[:-2]), abs=0.11)


def test_only_seeds_models_and_tasks_of_both_count(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    update(seeds=[1, 9])
    with pytest.raises(UserError, match="glue/bert/CoLA/9"):  # one that is missing here is still missing
        load_results(load_params())
    values = update(seeds=[1, 2])
    values["glue"]["tasks"] = {"RTE": values["glue"]["tasks"]["RTE"]}
    update(**values)
    change(project, "glue", "distilbert", "RTE", "accuracy", 0.9)
    text = printed(capsys)
    assert "DistilBERT, medians of 2 seeds" in text
    assert "SST-2" not in text


def update(**changes: Any) -> Any:
    values = YAML(typ="safe").load(Path("params.yaml")) | changes
    YAML().dump(values, Path("params.yaml"))
    return values


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


def test_seeds_that_only_this_workspace_has_are_nothing_to_compare(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    update(seeds=[7])
    with pytest.raises(UserError, match="HEAD: has no model, task and seed in common"):
        printed(capsys)


def test_scores_that_left_the_cache_are_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(project / ".dvc/cache/files")
    message = r"data/eval/glue/bert/CoLA/1 of HEAD: neither in DVC's cache nor in the remote; `make repro`"
    with pytest.raises(UserError, match=message):
        printed(capsys)


def test_other_dev_rows_do_not_compare(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for cell in (project / "data/eval/imdb").glob("*/IMDb/[0-9]"):
        table = pq.read_table(cell / "predictions.parquet").slice(0, 100)
        (cell / "predictions.parquet").unlink()
        pq.write_table(table, cell / "predictions.parquet")
    with pytest.raises(UserError, match="HEAD: IMDb has other dev rows there"):
        printed(capsys)
