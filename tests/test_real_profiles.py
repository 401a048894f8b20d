"""The profiles for real data, dry: every stage on a few rows of it, with a random teacher of BERT-base's size."""

from collections.abc import Callable
from pathlib import Path

import pytest
from clone import Project, copy_tree

from stages import profile
from stages.core.params import PARAMS_FILE

BERT_BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
REVISION = "0" * 40
TASKS = {"CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI"}


@pytest.mark.long
@pytest.mark.parametrize("name", ["reproduction", "paper"])
def test_a_dry_run_passes_every_stage(name: str, tmp_path: Path, mirror: Callable[..., str]) -> None:
    folder = tmp_path / name
    copy_tree(folder)
    (folder / PARAMS_FILE).write_text(profile.render([name, "dry"]))
    project = Project(folder, HF_ENDPOINT=mirror(), HF_HOME=str(tmp_path / "hub"))
    corpus = {"repository": "local/gutenberg", "config": "default", "revision": REVISION, "text_column": "text"}
    if name == "paper":  # which wants text beside Wikipedia's: here files of one's own
        (folder / "book.txt").write_text("\n".join(f"It was paragraph {number} of the book." for number in range(300)))
        files = {"train": ["book.txt"], "dev": ["book.txt"]}
        further = {**corpus, "max_train_rows": 5, "max_dev_rows": 5, "files": files}
        corpus = {**corpus, "and_also": [further]}
    project.params(
        download={"corpus": corpus},
        teacher={"init": "config", "revision": None, "config": BERT_BASE},
    )
    tasks = TASKS
    if name == "paper":  # whose other tasks differ from the reproduction's in nothing that matters here
        tasks = {"CoLA", "MNLI", "STS-B"}
        project.tasks(glue={task: {} for task in tasks})
    project.commit()
    project.run("dvc", "repro")
    assert project.json("metrics/distill.json")["parameters"] == 66_985_530
    assert project.json("metrics/distill.json")["updates"] == 1
    for model in ("bert", "distilbert"):
        assert set(project.json(f"metrics/glue/{model}.json")) >= tasks
        assert project.json(f"metrics/speed/{model}.json")["inference_seconds"] > 0
    assert project.run("dvc", "status").strip().endswith("Data and pipelines are up to date.")
