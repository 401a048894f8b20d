"""The whole pipeline, on a cut small enough for a test: from a clone to the tables, and what a change re-runs."""

import re
import sys
from pathlib import Path
from statistics import median

import pytest
from clone import TASKS, Project, small_project
from ruamel.yaml import YAML

from stages.finetuning.tasks import headline

EXPORTED = {f"onnx-eval@{model}-{task}" for model in ("distilbert", "pruned") for task in ("CoLA", "SQuAD")}
BENCHES = ("size-bench", "speed-bench")
COMPRESSED = {"prune", "quantize", "onnx-export", *EXPORTED, "quality-eval", *BENCHES, "android-bench-collect"}
VARIANTS = ("baseline", "quantized", "pruned", "combined")
ONNX = ("baseline", "baseline_int8", "pruned", "pruned_int8")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return small_project(tmp_path_factory.mktemp("clone"))


def cells(*models: str, seeds: tuple[int, ...] = (42,), tasks: tuple[str, ...] = TASKS) -> set[str]:
    glue = {f"glue-eval@{model}-{task}-{seed}" for model in models for task in tasks for seed in seeds}
    others = {(suite, task) for suite, task in (("imdb-eval", "IMDb"), ("squad-eval", "SQuAD"))}
    return glue | {f"{suite}@{model}-{task}-{seed}" for suite, task in others for model in models for seed in seeds}


def test_a_clone_becomes_tables_and_the_second_run_does_nothing(project: Project) -> None:
    first = project.repro()
    assert set(first) == {"download", "teacher", "distill", "report"} | cells("bert", "distilbert") | COMPRESSED
    assert set(project.json("metrics/glue/bert.json")) == set(TASKS)
    assert set(project.json("metrics/squad/distilbert.json")) == {"exact_match", "f1"}
    assert set(project.json("metrics/imdb/distilbert.json")) == {"accuracy"}
    assert {"mlm_loss", "distill_loss", "cosine_loss"} <= set(project.json("metrics/distill.json"))
    for name in VARIANTS:
        assert {"size_mb", "latency_ms", "peak_memory_mb"} <= set(project.json(f"metrics/compression/{name}.json"))
        assert {"mlm_loss", "distill_loss", "cosine_loss"} <= set(project.json(f"metrics/quality/{name}.json"))
    for name in ONNX:
        assert (project.folder / f"models/onnx/distilbert_{name}.onnx").is_file()
        assert project.json(f"metrics/onnx/distilbert_{name}.json")
    assert set(project.json("metrics/speed/bert.json")) == {"parameters", "inference_seconds", "samples"}
    tables = (project.folder / "plots/report/tables.md").read_text()
    assert "| DistilBERT" in tables
    changed = project.shell("git status --porcelain").splitlines()
    assert [line for line in changed if line.startswith("??")] == ["?? dvc.lock"]  # all else is ignored or tracked
    assert project.repro() == []
    assert "Running" not in project.shell('make repro TARGETS="quality-eval speed-bench report"')


def test_dvc_shows_the_pictures(project: Project) -> None:
    project.run("dvc", "plots", "show")
    page = (project.folder / "dvc_plots/index.html").read_text()
    for name in ("tasks", "losses", "latency", "pareto"):
        (source,) = re.findall(rf'src="([^"]*_report_{name}\.png)"', page)
        assert (project.folder / "dvc_plots" / source).is_file()


def test_checkpoints_load_with_transformers(project: Project) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    for name, kind in (("bert", "BertForMaskedLM"), ("distilbert", "DistilBertForMaskedLM")):
        folder = project.folder / "models" / name
        assert type(AutoModelForMaskedLM.from_pretrained(folder)).__name__ == kind
        assert AutoTokenizer.from_pretrained(folder)("people").input_ids
        assert not list(folder.rglob("*.bin"))


def test_the_examples_of_the_cards_run(project: Project) -> None:
    for name in ("bert", "distilbert", "pruned", "quantized", "combined"):
        card = (project.folder / "models" / name / "README.md").read_text()
        example = card.partition("```python\n")[2].partition("```")[0]
        assert f'"models/{name}"' in example
        project.run(sys.executable, "-c", example)


def test_a_clone_with_the_remote_s_files_has_nothing_to_run(project: Project, tmp_path: Path) -> None:
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "results")
    away = tmp_path / "remote"
    project.run("dvc", "remote", "add", "--force", "--default", "storage", str(away))
    other = Project(tmp_path / "other")
    project.run("git", "clone", "-q", str(project.folder), str(other.folder))
    other.run("dvc", "remote", "add", "--force", "--default", "storage", str(away))
    assert "do not exist neither locally nor on remote" in other.run("dvc", "pull", "--run-cache", check=False)
    project.run("dvc", "push", "--run-cache")
    other.run("dvc", "pull", "--run-cache")
    assert other.repro() == []
    checkpoint = "models/distilbert/model.safetensors"
    assert (other.folder / checkpoint).read_bytes() == (project.folder / checkpoint).read_bytes()
    project.run("git", "checkout", "-q", ".dvc/config")


def test_a_change_re_runs_what_depends_on_it_and_nothing_before(project: Project) -> None:
    values = (project.folder / "params.yaml").read_text()
    for changes, stages in (
        ({"epochs": 3}, {"distill", "prune"}),  # and what its new student changes, as the experiment below shows
        (
            {"glue": {"tasks": {"CoLA": {"learning_rate": 3e-5}}}},
            {f"glue-eval@{m}-CoLA-42" for m in ("bert", "distilbert")},
        ),
        ({"seeds": [42, 43]}, cells("bert", "distilbert", seeds=(43,))),
        ({"finetune": {"learning_rate": 3e-5}}, cells("bert", "distilbert") | EXPORTED),
        ({"prune": {"amount": 0.7}}, {"prune"}),
        ({"speed_bench": {"repeats": 3}}, {"speed-bench"}),
        ({"seed": 7}, {"teacher", "distill", "prune", *EXPORTED, "quality-eval"}),
    ):
        project.params(**changes)
        assert project.would_run() - {"report"} == stages - {"report"}
        (project.folder / "params.yaml").write_text(values)
    assert project.would_run() == set()


def test_experiments_run_and_compare(project: Project) -> None:
    before = project.json("metrics/distill.json")
    out = project.run("dvc", "exp", "run", "-S", "epochs=3")
    assert set(re.findall(r"Running stage '([^']+)'", out)) == {"distill", "report"} | cells("distilbert") | COMPRESSED
    assert project.json("metrics/distill.json") != before
    assert "distill_loss" in project.run("dvc", "metrics", "diff", "--targets", "metrics/distill.json")
    shown = project.run("dvc", "metrics", "show", "metrics/glue/bert.json", "metrics/glue/distilbert.json", "--md")
    assert all(name in shown for name in ("bert.json", "distilbert.json", *TASKS))
    project.run("git", "checkout", "-q", "params.yaml")
    project.run("dvc", "repro")


def test_adding_and_removing_rows(project: Project) -> None:
    alone, tables = project.json("metrics/glue/bert.json"), project.folder / "plots/report/tables.md"
    values = (project.folder / "params.yaml").read_text()
    project.params(seeds=[42, 43, 44])
    assert set(project.repro()) - {"report"} == cells("bert", "distilbert", seeds=(43, 44))
    assert "42, 43, 44" in tables.read_text()
    for task, shown in project.json("metrics/glue/bert.json").items():
        results = [project.json(f"data/eval/glue/bert/{task}/{seed}/result.json") for seed in (42, 43, 44)]
        assert shown == pytest.approx(median(headline(task, result["scores"]) for result in results), abs=1e-4)
    (project.folder / "params.yaml").write_text(values)
    assert project.repro() in ([], ["report"])
    assert project.json("metrics/glue/bert.json") == alone
    assert "42, 43, 44" not in tables.read_text()
    loaded = YAML(typ="safe").load(values)
    del loaded["models"]["distilbert"]
    YAML().dump(loaded, project.folder / "params.yaml")
    project.repro()
    assert sorted(p.name for p in (project.folder / "metrics/glue").iterdir()) == ["bert.json"]
    (project.folder / "params.yaml").write_text(values)
    project.repro()


def test_empty_grids(project: Project) -> None:
    values = (project.folder / "params.yaml").read_text()
    project.tasks(glue={}, imdb={}, squad={})
    assert project.repro() == ["report"]
    (project.folder / "params.yaml").write_text(values)
    project.repro()
