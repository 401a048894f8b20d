"""What speed-bench refuses before it measures anything, and that nothing is left of a run that failed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from stages import speed_bench
from stages.core.errors import UserError
from stages.core.params import load_params
from stages.measurement.variants import VARIANTS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with parameters, pairs and files that look like checkpoints but are none."""
    shutil.copy(ROOT / "profiles/tiny.yaml", tmp_path / "params.yaml")
    for folder in ("models/bert", *(str(variant.checkpoint) for variant in VARIANTS)):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
        (tmp_path / folder / "model.safetensors").write_bytes(b"damaged")
    (tmp_path / "models/onnx").mkdir()
    for variant in VARIANTS:
        if variant.runtime == "onnx":
            (tmp_path / variant.path).write_bytes(b"damaged")
    (tmp_path / "data/glue/STS-B").mkdir(parents=True)
    rows = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [1.0, 2.0]}
    pq.write_table(pa.table(rows), tmp_path / "data/glue/STS-B/dev.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(project: Path, **changes: Any) -> None:
    values = YAML(typ="safe").load(project / "params.yaml")
    for section, settings in changes.items():
        values[section].update(settings)
    YAML().dump(values, project / "params.yaml")


def test_a_missing_onnx_file_is_named_with_its_stage(project: Path) -> None:
    (project / "models/onnx/distilbert_pruned.onnx").unlink()
    with pytest.raises(UserError, match=r"distilbert_pruned.onnx: not found; `dvc repro onnx-export` makes it"):
        speed_bench.main()


def test_sizes_that_are_not_there_are_named_before_anything_is_measured(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.measurement.processes.measured", lambda *_: pytest.fail("was measured"))
    with pytest.raises(UserError, match=r"data/eval/size/sizes\.json: not found; `dvc repro` makes it"):
        speed_bench.bench_variants(load_params())


def test_a_row_without_a_checkpoint_is_refused_before_anything_is_measured(project: Path) -> None:
    change(project, models={"released": "models/released"})
    with pytest.raises(UserError, match="models/released: holds no checkpoint"):
        speed_bench.main()


def test_inputs_longer_than_the_models_are_refused(project: Path) -> None:
    for variant in VARIANTS:
        (project / variant.checkpoint / "config.json").write_text(json.dumps({"max_position_embeddings": 100}))
    with pytest.raises(UserError, match="128 tokens exceed the model's 100 positions"):
        speed_bench.main()


def test_a_configuration_without_positions_is_told_in_one_line(project: Path) -> None:
    (project / "models/pruned/config.json").write_text(json.dumps({"model_type": "distilbert"}))
    with pytest.raises(UserError, match=r"models/pruned/config.json: max_position_embeddings: missing; delete"):
        speed_bench.main()


def test_a_damaged_checkpoint_ends_the_stage_with_nothing_written(project: Path) -> None:
    with pytest.raises(UserError, match="models/bert: no readable checkpoint"):
        speed_bench.main()
    assert not (project / "metrics").exists()
    assert not (project / "data/eval").exists()
    assert list(project.rglob("*.tmp")) == []
