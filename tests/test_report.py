"""The report stage on synthetic cells: metrics, tables and what happens when parameters or cells change."""

import copy
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from report_project import DISTILL, GENERATED, GLUE, MODELS, ROOT, SEEDS, make_project, run, score, scores, write_cell
from ruamel.yaml import YAML

from stages.core.errors import UserError
from stages.core.params import validate
from stages.reporting.cautions import cautions
from stages.reporting.cells import Results, load_results
from stages.reporting.comparison import terminal
from stages.reporting.compressed import Making, Measurements, load_measurements
from stages.reporting.exported import Exported
from stages.reporting.folding import unfold
from stages.reporting.paired import Pair, compare
from stages.reporting.statistics import Interval
from stages.reporting.summary import mean_retained, retained, standing
from stages.reporting.tables import introduction, render
from stages.sources.output import describe


def measured() -> Measurements:
    making = Making("embedded", "all", False, "fp32")
    return load_measurements(Path("metrics"), Path("data"), MODELS, ("SST-2",), making)


@pytest.fixture
def values() -> dict:
    """The default parameters with three seeds."""
    loaded = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
    loaded["seeds"] = list(SEEDS)
    return loaded


@pytest.fixture
def project(tmp_path: Path, values: dict, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all cells, in which the stage can run."""
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def gather(values: dict) -> Results:
    return load_results(validate(values))


def tables(values: dict, note: str = GENERATED) -> str:
    results = gather(values)
    standings = {key: standing(results, *key) for key in results.cells}
    text = render(results, standings, compare(results, standings), DISTILL, note)
    return f"{introduction(results)}\n\n{text}"


def metric(project: Path, name: str) -> dict[str, float]:
    return json.loads((project / "metrics" / f"{name}.json").read_text())


def row(text: str, section: str, first: str) -> list[str]:
    """The cells of a table's row, found by its section and the start of its first cell."""
    block = text.split(f"### {section}\n")[1].split("\n### ")[0]
    line = next(line for line in block.splitlines() if line.startswith(f"| {first}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def header(text: str, section: str, first: str = "Model") -> list[str]:
    return row(text, section, first)


def test_the_stage_writes_medians_in_both_conventions(values, project):
    run(values, project)
    for model in MODELS:
        own, paper = metric(project, f"glue/{model}"), metric(project, f"glue_paper/{model}")
        assert list(own) == list(paper) == [*GLUE, "average"]
        middle = {task: scores(model, task, 2 if task == "WNLI" else 1) for task in GLUE}
        keys = {"CoLA": "matthews", "STS-B": "pearson"}
        expected = {task: middle[task][keys.get(task, "accuracy")] for task in GLUE}
        assert own == pytest.approx(expected | {"average": fmean(expected.values())}, abs=5.1e-5)
        for task in ("MRPC", "QQP"):
            expected[task] = (middle[task]["accuracy"] + middle[task]["f1"]) / 2
        expected["STS-B"] = (middle["STS-B"]["pearson"] + middle["STS-B"]["spearman"]) / 2
        percent = {task: 100 * value for task, value in expected.items()}
        assert paper == pytest.approx(percent | {"average": fmean(percent.values())}, abs=5.1e-3)
        assert metric(project, f"imdb/{model}") == pytest.approx({"accuracy": score(model, "IMDb", 1)}, abs=5e-5)
        squad = 100 * score(model, "SQuAD", 1)
        assert metric(project, f"squad/{model}") == pytest.approx({"exact_match": squad - 10, "f1": squad}, abs=5e-3)


def test_two_runs_write_the_same_bytes(values, project):
    run(values, project)
    files = sorted(path for path in project.rglob("*") if path.suffix in (".json", ".md") and "data" not in path.parts)
    before = [path.read_bytes() for path in files]
    run(values, project)
    assert [path.read_bytes() for path in files] == before


def test_show_prints_the_comparison_within_100_columns_and_writes_nothing(values, project):
    printed = run(values, project, "--show")
    assert not (project / "metrics/glue").exists()
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 100
    assert {"BERT", "DistilBERT", "retained"} <= set(next(line for line in lines if line.startswith("Task")).split())
    assert {line.split()[0] for line in lines if line} >= {*GLUE, "IMDb", "SQuAD", "average"}


def test_a_model_seed_or_task_that_is_taken_out_leaves_the_tables_though_its_cells_stay(values, project):
    run(values, project)
    full = tables(values)

    fewer_seeds = copy.deepcopy(values) | {"seeds": [2]}
    run(fewer_seeds, project)
    assert metric(project, "glue/bert")["RTE"] == pytest.approx(score("bert", "RTE", 2), abs=5e-5)
    assert " to " in row(full, "GLUE", "BERT")[2]
    assert " to " not in row(tables(fewer_seeds), "GLUE", "BERT")[2]

    fewer_models = copy.deepcopy(values)
    del fewer_models["models"]["distilbert"]
    run(fewer_models, project)
    assert [path.name for path in (project / "metrics/glue").iterdir()] == ["bert.json"]
    assert "DistilBERT" not in (project / "plots/report/tables.md").read_text()

    fewer_tasks = copy.deepcopy(values)
    del fewer_tasks["glue"]["tasks"]["RTE"]
    run(fewer_tasks, project)
    assert {"RTE", "average"}.isdisjoint(metric(project, "glue/bert"))
    assert "RTE" not in (project / "plots/report/tables.md").read_text()


def test_empty_grids_leave_empty_rows_that_git_keeps(values, project):
    for suite in ("glue", "imdb", "squad"):
        shutil.rmtree(project / "data/eval" / suite)
        values[suite]["tasks"] = {}
    values["onnx_export"]["tasks"] = {}
    run(values, project)
    for name in ("glue/bert", "glue_paper/distilbert", "imdb/bert", "squad/bert", "onnx_tasks/pruned_int8"):
        assert metric(project, name) == {}
    assert "GLUE" not in (project / "plots/report/tables.md").read_text()
    assert "nothing to compare" in run(values, project, "--show")


@pytest.mark.parametrize(
    ("missing", "command"),
    [("glue/distilbert/RTE/2", "glue-eval@distilbert-RTE-2"), ("squad/bert/SQuAD/3", "squad-eval@bert-SQuAD-3")],
)
def test_a_missing_cell_is_named_with_the_command_that_makes_it(values, project, missing, command):
    shutil.rmtree(project / "data/eval" / missing)
    with pytest.raises(UserError, match=f"{missing}/result.json.*dvc repro {command}"):
        gather(values)


def test_a_cell_without_a_key_is_an_error_that_names_it(values, project):
    path = project / "data/eval/glue/bert/RTE/1/result.json"
    result = json.loads(path.read_text())
    del result["dev_rows"]
    path.write_text(json.dumps(result))
    with pytest.raises(UserError, match=r"RTE/1/result\.json.*dev_rows"):
        gather(values)


def test_retention_is_corrected_for_chance_and_skips_what_the_teacher_cannot_do(values, project):
    results = gather(values)
    pairs = {task: [standing(results, task, model) for model in ("distilbert", "bert")] for task in results.all_tasks()}
    kept = {task: retained(*pair) for task, pair in pairs.items()}
    student, teacher = score("distilbert", "RTE", 1), score("bert", "RTE", 1)
    assert kept["RTE"].corrected == pytest.approx((student - 0.5) / (teacher - 0.5))
    assert kept["RTE"].ratio == pytest.approx(student / teacher)
    assert kept["STS-B"].corrected == pytest.approx(kept["STS-B"].ratio)  # chance is 0
    assert kept["WNLI"] is None
    numbers = [value.corrected for value in kept.values() if value]
    assert len(numbers) == 10
    assert mean_retained(list(kept.values())).corrected == pytest.approx(fmean(numbers))
    text = tables(values)
    shown = row(text, "What DistilBERT retains", "RTE")
    assert [shown[-3], shown[-1]] == [f"{100 * kept['RTE'].corrected:.1f} %", f"{100 * kept['RTE'].ratio:.1f} %"]
    assert row(text, "What DistilBERT retains", "WNLI")[-1] == "\N{EN DASH}"
    assert row(text, "What DistilBERT retains", "average")[-3] == f"{100 * fmean(numbers):.1f} %"
    assert "Chance is not beaten by BERT on WNLI, DistilBERT on WNLI." in text


def test_a_further_model_is_compared_with_the_teacher_too(values, project):
    for suite, tasks in {"glue": GLUE, "imdb": ["IMDb"], "squad": ["SQuAD"]}.items():
        for task in tasks:
            for seed in SEEDS:
                write_cell(project, suite, "released", task, seed)
    values["models"]["released"] = "models/released"
    assert row(tables(values), "What released retains", "average")
    results = gather(values)
    text = terminal(results, {key: standing(results, *key) for key in results.cells})
    assert text.splitlines()[2].split()[-4:] == ["DistilBERT", "retained", "released", "retained"]
    assert max(map(len, text.splitlines())) <= 100


def test_scores_of_the_generated_world_stand_alone(values, project):
    text = tables(values)
    assert "do not compare with published scores" in text
    assert ", published" not in text
    assert "only the ratios compare" in text.split("### Retention of DistilBERT beside the published")[1]


def test_published_rows_appear_for_hub_data_and_in_their_own_convention_only(values, project):
    shutil.rmtree(project / "data")
    for model in MODELS:
        for seed in SEEDS:
            write_cell(project, "glue", model, "RTE", seed, "hub", "")
            write_cell(project, "glue", model, "CoLA", seed, "files", "files of one's own")
            write_cell(project, "glue", model, "MNLI", seed, "hub", "cut: 1,000 of 392,702 training rows")
    values["glue"]["tasks"] = {"RTE": {}, "CoLA": {}, "MNLI": {}}
    values["imdb"]["tasks"] = values["squad"]["tasks"] = {}
    text = tables(values)
    assert "do not compare" not in text
    assert "helps its MNLI, QQP and QNLI scores" in text  # the default teacher saw such pairs
    own = row(text, "GLUE", "DistilBERT, published: reproduction, all samples, median of 5 seeds")
    assert own[2:] == [
        "\N{EN DASH}",
        "0.8145",
        "\N{EN DASH}",
        "0.5776",
    ]  # CoLA is someone's own; MNLI-mm was not published
    ours = float(row(text, "GLUE", "DistilBERT")[-1].split()[0])
    difference = row(text, "GLUE", "DistilBERT here minus published: reproduction, all samples, median of 5 seeds")
    assert difference[2] == difference[4] == "\N{EN DASH}"
    assert difference[-1] == f"{ours - 0.5776:+.4f}"
    assert row(text, "GLUE in the paper's convention", "BERT-base, published: Sanh et al. 2019")[-1] == "69.3"
    assert "Sanh" not in text.split("### GLUE\n")[1].split("\n### ")[0]
    assert header(text, "GLUE")[2:] == ["CoLA\u00b9", "MNLI\u00b2", "MNLI-mm\u00b2", "RTE"]
    assert "\u00b9 CoLA: files of one's own." in text
    assert "\u00b2 MNLI: cut: 1,000 of 392,702 training rows." in text
    assert "MNLI\u00b2" in text.split("### What DistilBERT retains")[1]


def test_every_table_marks_generated_or_incomplete_data(values, project):
    text = tables(values)
    for section in text.split("\n### ")[1:]:
        assert f"{GENERATED}." in section, section
    assert row(text, "Distillation", "masked language")[0] == "masked language modelling loss\u00b9"
    assert row(text, "Distillation", "updates")[0] == "updates"
    assert row(text, "Retention of DistilBERT beside the published", "RTE")[0] == "RTE\u00b9"


def test_official_text_is_not_marked(values, project):
    assert row(tables(values, note=""), "Distillation", "masked language")[0] == "masked language modelling loss"


def test_held_out_losses_are_shown(values, project):
    text = tables(values)
    assert row(text, "Distillation", "masked language modelling loss")[1] == "2.5000"
    assert row(text, "Distillation", "updates")[1] == "12,345"
    assert row(text, "Distillation", "teacher layers")[1] == "0,1,3,5"


def retained_row(text: str, task: str) -> list[str]:
    """Difference, its interval, retained share, its interval and ratio."""
    return row(text, "What DistilBERT retains", task)[-5:]


def test_what_the_dev_rows_cannot_tell_apart_is_marked(values, project):
    text = tables(values)
    assert retained_row(text, "WNLI")[:2] == ["+0.0000\u2248", "+0.0000 to +0.0000"]
    difference, interval, *_ = retained_row(text, "RTE")
    assert difference == "-0.1000"
    low, high = map(float, interval.split(" to "))
    half = 1.96 * (0.1 * 0.9 / 200) ** 0.5  # the models differ on a tenth of 200 rows
    assert (low, high) == pytest.approx((-0.1 - half, -0.1 + half), abs=0.1 * half)
    assert "cannot be told apart from BERT (WNLI)" in text


def test_only_the_matched_rows_of_mnli_count(values, project):
    assert retained_row(tables(values), "MNLI")[0] == "-0.1000"


def test_a_share_above_all_of_it_and_one_that_says_nothing_are_named(values, project):
    results = gather(values)
    standings = {key: standing(results, *key) for key in results.cells}
    pairs = compare(results, standings)
    better = Pair(0.02, Interval(-0.01, 0.05), np.array([0.9, 1.2]))
    vague = Pair(-0.02, Interval(-0.05, 0.01), np.array([-0.3, 1.2]))
    found = measured()
    lines = cautions(results, {**pairs, ("CoLA", "distilbert"): better, ("RTE", "distilbert"): vague}, found)
    above = next(line for line in lines if "more than all of BERT's score" in line)
    assert "CoLA (91 to 119 %)" in above
    assert "RTE" not in above
    assert "RTE (-26 to 116 %)" in next(line for line in lines if "anything from none to all" in line)
    assert "CoLA, RTE and WNLI" in next(line for line in lines if "cannot be told apart" in line)


def test_published_scores_of_another_teacher_and_other_data_are_for_orientation(values, project):
    results = gather(values)
    pairs = compare(results, {key: standing(results, *key) for key in results.cells})
    found = measured()

    def told(source: str, note: str, parameters: int) -> list[str]:
        changed = {
            key: tuple(replace(cell, source=source, note=note, model_parameters=parameters) for cell in cells)
            for key, cells in results.cells.items()
        }
        lines = cautions(replace(results, cells=changed), pairs, found)
        return [line for line in lines if line.startswith("Published scores")]

    assert told("embedded", "generated", 22_700_000) == []  # where none stand beside ours
    assert told("hub", "", 109_483_778) == []
    assert told("hub", "cut: 1,000 of 3,668 training rows", 109_483_778) == []  # as the published reproduction cut them
    splits = {"train": {"rows": 10, "available": 10, "official": 20}}
    (line,) = told("hub", describe("SST-2", {"source": "hub"}, splits)["note"], 22_700_000)
    assert (
        "Ours are of a teacher of 22.7 million parameters instead of 110 million and other or fewer data (CoLA" in line
    )


def test_int8_models_whose_score_differs_are_named(values, project):
    results = gather(values)
    pairs = compare(results, {key: standing(results, *key) for key in results.cells})
    found = measured()
    assert not any("INT8 changes" in line for line in cautions(results, pairs, found))
    apart, alike = ({"difference": 2.0, "difference_low": low, "difference_high": 4.0} for low in (0.1, -0.1))
    told = {("SQuAD", "baseline"): apart, ("SQuAD", "pruned"): alike, ("SST-2", "pruned"): apart}
    onnx = {**found.onnx, **{Exported(*model, True): row for model, row in told.items()}}
    (line,) = (line for line in cautions(results, pairs, replace(found, onnx=onnx)) if "INT8 changes" in line)
    assert "some task models (SST-2, pruned; SQuAD): " in line


def test_retention_stands_beside_what_was_published_in_each_convention(values, project):
    text = tables(values)
    section = "Retention of DistilBERT beside the published"
    shown = row(text, section, "MRPC")
    model, teacher = (scores(name, "MRPC", 1) for name in ("distilbert", "bert"))
    paper = (model["accuracy"] + model["f1"]) / (teacher["accuracy"] + teacher["f1"])
    ratio = model["accuracy"] / teacher["accuracy"]
    assert shown[1:4] == [f"{100 * paper:.1f} %", "98.8 %", f"{100 * (paper - 87.5 / 88.6):+.1f}"]
    assert shown[4:] == [f"{100 * ratio:.1f} %", "92.2 %", f"{100 * (ratio - 0.6985 / 0.7574):+.1f}"]
    assert row(text, section, "GLUE average")[2] == "96.9 %"  # the paper says 97
    assert row(text, section, "SQuAD")[2] == "96.9 %"


def test_the_important_tables_come_first_and_the_others_are_folded(values, project):
    run(values, project)
    document = (project / "plots/report/tables.md").read_text()
    assert re.findall("^### (.+)$", document, flags=re.MULTILINE) == [
        "GLUE", "IMDb", "SQuAD 1.1", "What DistilBERT retains", "Size", "Speed of teacher and student",
        "Speed and memory",
    ]  # fmt: skip
    hidden = re.findall("<details>\n<summary>(.+)</summary>\n\n(?:.|\n)+?\n\n</details>", document)
    assert hidden[0] == "GLUE in the paper's convention"
    assert {"Quality", "Against chance", "On Android", "Distillation"} <= set(hidden)
    assert list(unfold(document))[7:] == hidden


def test_the_report_imports_no_deep_learning_library():
    code = "import stages.report, sys; print(*{'torch', 'transformers', 'datasets', 'evaluate'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
