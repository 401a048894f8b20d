"""Training in two processes gives what one gives, up to rounding; resuming may change their number."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tiny_checkpoints import save_bert
from tiny_distillation import ROOT, make_project, write_params
from transformers import TrainingArguments

from stages.core import processes
from stages.core.errors import UserError
from stages.core.params import validate
from stages.distillation import distilling
from stages.finetuning import trainer as fine_tuning

SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 2, "distill__dropout": 0.0}
TWO = {"processes": 2}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DISTILBERT_WARM": "0"}
    environment.pop("OMP_NUM_THREADS", None)
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def run(folder: Path, *arguments: str, status: int = 0) -> str:
    process = start(folder, *arguments)
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == status, shown
    return shown


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that one process distilled."""
    folder = tmp_path_factory.mktemp("alone")
    make_project(folder, **SETTINGS)
    run(folder, "stages.distill")
    return folder


@pytest.fixture
def pair(alone: Path, tmp_path: Path) -> Path:
    """The same before distillation, for two processes."""
    for part in ("data/corpus", "models/bert"):
        shutil.copytree(alone / part, tmp_path / part)
    write_params(tmp_path, **SETTINGS, resources={"distill": TWO, "glue-eval": TWO})
    return tmp_path


def student(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "models/distilbert/model.safetensors")


def is_like(folder: Path, alone: Path) -> None:
    ours, theirs = (json.loads((place / "metrics/distill.json").read_text()) for place in (folder, alone))
    assert ours.pop("teacher_layers") == theirs.pop("teacher_layers")
    assert ours == {name: pytest.approx(value, rel=1e-4, abs=1e-5) for name, value in theirs.items()}
    for name, expected in student(alone).items():
        torch.testing.assert_close(student(folder)[name], expected, rtol=1e-3, atol=1e-4)
    assert training_losses(folder) == pytest.approx(training_losses(alone), rel=1e-4)


def training_losses(folder: Path) -> list[float]:
    words = (folder / "plots/distill/plots/metrics/train/loss.tsv").read_text().split()
    return [float(word) for word in words[2:]]


def test_distillation_in_two_processes_is_that_of_one(pair: Path, alone: Path) -> None:
    shown = run(pair, "stages.distill")
    assert "Warning" not in shown
    is_like(pair, alone)


@pytest.mark.long
@pytest.mark.parametrize("then", [1, 2])
def test_a_killed_pair_is_resumed_by_as_many_as_there_are_then(pair: Path, alone: Path, then: int) -> None:
    write_params(pair, **SETTINGS, distill__save_minutes=0.001, resources={"distill": TWO})
    process = start(pair, "stages.distill")
    give_up = time.monotonic() + 120
    while not list(pair.glob(".cache/checkpoints/distill/*/*/complete.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < give_up
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    write_params(pair, **SETTINGS, resources={"distill": {"processes": then}})
    run(pair, "stages.distill")
    is_like(pair, alone)


@pytest.mark.long
def test_torchrun_starts_the_same_even_where_a_process_has_nothing_to_evaluate(pair: Path, alone: Path) -> None:
    write_params(pair, **SETTINGS)  # which asks for one process, and has three held-out batches; torchrun decides
    run(pair, "torch.distributed.run", "--standalone", "--nproc-per-node=4", "-m", "stages.distill")
    is_like(pair, alone)


@pytest.mark.parametrize(("gpus", "steps", "used"), [(0, 1, 1), (2, 1, 1), (3, 4, 2), (4, 4, 4), (8, 4, 4), (8, 6, 6)])
def test_as_many_gpus_are_taken_as_divide_a_batch(
    gpus: int, steps: int, used: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: max(2, gpus))  # it counts what a driver is too old for, too
    assert processes._wanted("distill", validate(write_params(tmp_path)), steps) == used


def test_more_processes_than_gpus_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = validate(write_params(tmp_path, **SETTINGS, resources={"distill": TWO}))
    assert processes._wanted("distill", params, 4) == 2  # of CPUs any number
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"params.yaml: resources.distill.processes: 2, but only 1 GPU can be seen"):
        processes._wanted("distill", params, 4)


def test_a_process_trains_on_one_device_however_many_gpus_it_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def see_three(arguments: TrainingArguments) -> torch.device:
        arguments._n_gpu, arguments.distributed_state = 3, None
        return torch.device("cpu")

    monkeypatch.setattr(TrainingArguments, "_setup_devices", property(see_three))
    params = validate(write_params(tmp_path))
    for arguments in (
        distilling._schedule(params, 16, False, "distill", "distill.learning_rate").arguments(tmp_path),
        fine_tuning._arguments(str(tmp_path), 16, params.finetune, 1, False),
    ):
        assert arguments.n_gpu == 1
        assert arguments.train_batch_size == arguments.per_device_train_batch_size


@pytest.mark.long
def test_an_error_of_all_is_told_once(pair: Path) -> None:
    write_params(pair, **SETTINGS, distill__learning_rate=1e30, resources={"distill": TWO})
    shown = run(pair, "stages.distill", status=1)
    assert shown.count("error: distill: the loss is not a number") == 1
    assert "Traceback" not in shown
    write_params(pair, **SETTINGS | {"batch_size": 8}, resources={"distill": TWO})
    assert "is no multiple of batch_size 8 times 2 processes" in run(pair, "stages.distill", status=1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("deed", "status", "told"),
    [
        ("os.kill(os.getpid(), 9)", 137, "process 1 was killed (signal 9)"),
        ("raise ValueError('a defect')", 1, "ValueError: a defect"),
        ("os.kill(os.getppid(), 2)", 130, "interrupted"),
    ],
)
def test_a_process_that_fails_ends_the_others(tmp_path: Path, deed: str, status: int, told: str) -> None:
    """Of two, the second does it while the first waits, as it would for a GPU, and heeds no signal but SIGKILL."""
    write_params(tmp_path, **SETTINGS, resources={"distill": TWO})
    (tmp_path / "group.py").write_text(f"""
import os, signal, time
from stages.core import entry, processes
from stages.core.params import load_params

def main():
    if processes.spread("group", "distill", load_params(), 4):
        return
    if os.environ["RANK"] == "0":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(200)
    time.sleep(1)
    {deed}
    time.sleep(200)

if __name__ == "__main__":
    entry.run(main)
""")
    assert told in run(tmp_path, "group", status=status)


@pytest.mark.long
def test_fine_tuning_in_two_processes_is_that_of_one(tmp_path: Path) -> None:
    save_bert(tmp_path / "models/bert")
    draw = np.random.default_rng(0)
    rows = [{"sentence": f"good word{n % 7}" if label else f"bad word{n % 5}", "label": int(label)}
            for n, label in enumerate(draw.integers(0, 2, 37))]  # whose last batch has one row  # fmt: skip
    for split in ("train", "dev"):
        (tmp_path / "data/glue/SST-2").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"data/glue/SST-2/{split}.parquet")
    (tmp_path / "data/glue/SST-2/dataset.json").write_text('{"name": "SST-2", "source": "files", "note": "made up"}')
    found = {}
    for resources in ({}, {"glue-eval": TWO}):
        write_params(
            tmp_path, finetune__batch_size=4, finetune__epochs=2.0, finetune__max_length=32, resources=resources,
            squad__tasks={}, onnx_export__tasks={},
        )  # fmt: skip
        run(tmp_path, "stages.glue_eval", "--model=bert", "--task=SST-2", "--seed=42")
        cell = tmp_path / "data/eval/glue/bert/SST-2/42"
        found[bool(resources)] = (
            pq.read_table(cell / "predictions.parquet"),
            json.loads((cell / "result.json").read_text()),
        )
    assert found[True][1] == found[False][1]
    for name in found[False][0].column_names:
        one, two = (np.stack(found[kind][0][name].to_pylist()) for kind in (False, True))
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-4)
