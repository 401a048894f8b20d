"""quality-eval and speed-bench over real files of every variant, and with one of them damaged."""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from tiny_checkpoints import save_bert
from tiny_onnx import ROOT, make_project

from stages import onnx_export, quality_eval, quantize, size_bench, speed_bench
from stages.core.artifacts import digest
from stages.core.errors import UserError
from stages.measurement.variants import VARIANTS

NAMES = sorted(variant.name for variant in VARIANTS)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder, with every variant and the metrics of both stages."""
    root = tmp_path_factory.mktemp("project")
    make_project(root)
    save_bert(root / "models/bert")
    (root / "data/glue/STS-B").mkdir(parents=True)
    rows = {"sentence1": ["a cat", "a dog"], "sentence2": ["the mat", "the dog"], "label": [1.0, 4.0]}
    pq.write_table(pa.table(rows), root / "data/glue/STS-B/dev.parquet")
    yaml = YAML(typ="safe")
    params = yaml.load(root / "params.yaml")
    params["onnx_export"]["tasks"] = {}
    params["speed_bench"] |= {"rounds": 1, "lengths": [8, 16], "repeats": 2, "throughput_length": 16, "stsb_samples": 2}
    yaml.dump(params, root / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("PYTHONPATH", str(ROOT))  # the measured processes find the stages with it
        for stage in (onnx_export, quantize, quality_eval, size_bench, speed_bench):
            stage.main()
        yield root


def rows(project: Path, name: str) -> dict[str, dict[str, object]]:
    return {path.stem: json.loads(path.read_text()) for path in (project / "metrics" / name).iterdir()}


def test_every_variant_has_its_losses_and_its_measurements(project: Path) -> None:
    losses, measured = rows(project, "quality"), rows(project, "compression")
    assert sorted(losses) == sorted(measured) == NAMES
    for name in NAMES:
        assert {"mlm_loss", "distill_loss", "cosine_loss", "accuracy"} <= losses[name].keys()
        positive = ("size_mb", "peak_memory_mb", "load_ms", "cold_start_ms", "throughput")
        assert all(float(str(measured[name][key])) > 0 for key in positive)
    assert sorted(rows(project, "speed")) == ["bert", "distilbert"]


def test_every_timed_figure_keeps_its_spread(project: Path) -> None:
    summary = json.loads((project / "data/eval/speed/summary.json").read_text())
    timed = {"load_ms", "cold_start_ms", "throughput"}
    timed |= {f"latency_ms.{length}.{share}" for length in (8, 16) for share in ("p50", "p90")}
    for name in NAMES:
        assert summary["compression"][name].keys() == timed
    for figures in (*summary["compression"].values(), summary["speed"]):
        for figure in figures.values():
            assert figure["low"] <= figure["median"] <= figure["high"]


def test_the_same_graph_has_the_same_losses_in_both_runtimes(project: Path) -> None:
    losses = rows(project, "quality")
    for name in ("baseline", "pruned"):
        for key in ("mlm_loss", "distill_loss", "cosine_loss", "accuracy"):
            assert losses[f"onnx_{name}"][key] == pytest.approx(losses[name][key], rel=1e-4)
        assert losses[f"onnx_{name}"] != losses[f"onnx_{name}_int8"]
    assert losses["onnx_baseline"]["mlm_loss_difference"] == pytest.approx(0.0, abs=1e-4)


DAMAGED = {
    "onnx/distilbert_pruned_int8.onnx": "distilbert_pruned_int8.onnx: damaged .*`dvc repro onnx-export`",
    "combined/model.safetensors": "models/combined: no readable checkpoint .*`dvc repro quantize`",
    "quantized/model.safetensors": "models/quantized: no readable checkpoint .*`dvc repro quantize`",
    "pruned/model.safetensors": "models/pruned: no readable checkpoint .*`dvc repro prune`",
    "distilbert/model.safetensors": "models/distilbert: no readable checkpoint .*`dvc repro distill`",
    "bert/model.safetensors": "models/bert: no readable checkpoint .*`dvc repro teacher`",
}


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        *((stage, name) for stage in (quality_eval, speed_bench) for name in DAMAGED),
        *((size_bench, name) for name in DAMAGED if not name.startswith("bert")),
    ],
)
def test_a_truncated_file_is_named_and_the_last_metrics_stay(project: Path, stage: ModuleType, name: str) -> None:
    before = digest(project / "metrics", project / "data/eval")
    path = project / "models" / name
    whole = path.read_bytes()
    os.truncate(path, len(whole) // 2)
    try:
        with pytest.raises(UserError, match=DAMAGED[name]) as caught:
            stage.main()
    finally:
        path.write_bytes(whole)
    assert "\n" not in str(caught.value)
    assert digest(project / "metrics", project / "data/eval") == before
    assert list(project.rglob("*.tmp")) == []


def workers(kind: str) -> list[psutil.Process]:
    """Processes that measure for this one."""
    command = ["-m", "stages.measurement.worker", kind]
    return [child for child in psutil.Process().children() if command_of(child)[-3:] == command]


def command_of(process: psutil.Process) -> list[str]:
    """Return a process's command line; nothing of one that has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("kind", ["torch", "onnx"])
@pytest.mark.parametrize("stage", [size_bench, speed_bench])
def test_a_measured_process_that_is_killed_ends_the_stage_in_one_line(
    project: Path, stage: ModuleType, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.measurement.variants.VARIANTS", VARIANTS[3:5])  # one of each kind
    outputs = [project / "metrics", project / "data/eval"]
    before, killed = digest(*outputs), threading.Event()

    def kill_the_first() -> None:
        while not killed.wait(0.01):
            for worker in workers(kind):
                worker.kill()
                killed.set()

    killer = threading.Thread(target=kill_the_first, daemon=True)
    killer.start()
    try:
        with pytest.raises(
            UserError, match=r"(combined|onnx_baseline): the measurement failed: .* \(signal 9\)"
        ) as caught:
            stage.main()
    finally:
        killed.set()
        killer.join()
    assert "\n" not in str(caught.value)
    assert digest(*outputs) == before
    assert list(project.rglob("*.tmp")) == []
    give_up = time.monotonic() + 30
    while left := [*workers("torch"), *workers("onnx"), *forks()]:
        assert time.monotonic() < give_up, left
        time.sleep(0.1)


def forks() -> list[psutil.Process]:
    """Forks of the process that has imported the libraries, which measure here for their clients."""
    servers = [
        process for process in psutil.process_iter() if "stages.core.warm" in command_of(process) and is_here(process)
    ]
    return [fork for server in servers for fork in server.children(recursive=True)]


def is_here(process: psutil.Process) -> bool:
    try:
        return process.cwd() == os.getcwd()
    except psutil.Error:
        return False
