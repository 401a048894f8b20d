"""From records of measurements to the table: which count, and what is said where none does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from android_models import write_models
from android_results import result
from hypothesis import given
from hypothesis import strategies as st

from stages.android.agreement import Reference, compare
from stages.android.bench import reason, remaining
from stages.android.collection import collect, row
from stages.android.results import Protocol, Result, RunnerReport, parse_report, read_result, write_result
from stages.core.artifacts import file_sha256
from stages.core.errors import UserError
from stages.measurement.variants import ONNX_MODELS

ROOT = Path(__file__).resolve().parents[1]
HASHES = {name: f"{number:064x}" for number, name in enumerate(ONNX_MODELS)}


def save(folder: Path, *results: Result) -> None:
    for number, each in enumerate(results):
        write_result(each.model_copy(update={"created": f"2026-01-01T00:00:{number:02d}Z"}), folder)


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    found = collect(folder, HASHES)
    return {name: row(name, 2**20, found) for name in ONNX_MODELS}


def test_figures_follow_their_formulas(tmp_path: Path) -> None:
    latencies = [float(value) for value in range(1, 101)]
    save(tmp_path, result(HASHES, latencies=[latencies[:50], latencies[50:]]))
    found = rows(tmp_path)["distilbert_pruned"]
    assert found["status"] == "measured"
    assert found["size_mb"] == 1.0
    assert (found["avg_ms"], found["p50_ms"], found["p90_ms"]) == (mean(latencies), 50.0, 90.0)
    assert found["tokens_per_second"] == round(64 / (mean(latencies) / 1000), 1)
    assert found["peak_memory_mb"] == 100.0
    assert (found["relative_error"], found["top1_agreement"]) == (0.03, 0.98)
    assert (found["device_kind"], found["device"], found["threads"], found["records"]) == (
        "phone",
        "Google Pixel 8",
        1,
        1,
    )


def test_records_of_one_configuration_become_their_median(tmp_path: Path) -> None:
    save(tmp_path, *(result(HASHES, latencies=[[value]]) for value in (5.0, 100.0, 7.0)))
    found = rows(tmp_path)["distilbert_baseline"]
    assert (found["p50_ms"], found["records"]) == (7.0, 3)


def test_the_most_telling_configuration_makes_the_row(tmp_path: Path) -> None:
    def chosen(*results: Result) -> float:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        save(folder, *results)
        return float(rows(folder)["distilbert_baseline"]["p50_ms"])

    phone, emulator = result(HASHES, latencies=[[1.0]]), result(HASHES, kind="emulator", latencies=[[2.0]])
    glibc, quick = (
        result(HASHES, runtime="linux-glibc", latencies=[[3.0]]),
        result(HASHES, protocol="quick", latencies=[[4.0]]),
    )
    newer = result(HASHES, device="Nokia", latencies=[[5.0]])
    threads = result(HASHES, device="Threads", threads=(4, 1), latencies=[[6.0]])
    assert chosen(emulator, phone, emulator) == 1.0
    assert chosen(glibc, phone, glibc) == 1.0
    assert chosen(phone, quick) == 1.0
    assert chosen(quick, emulator) == 4.0
    assert chosen(phone, newer) == 5.0
    save(tmp_path / "threads", phone, threads)
    assert rows(tmp_path / "threads")["distilbert_baseline"]["threads"] == 4


@pytest.mark.parametrize("kind", ["loopback", "host"])
def test_only_android_devices_count(tmp_path: Path, kind: str) -> None:
    save(tmp_path, result(HASHES, kind=kind))
    assert all(found == {"status": "not measured", "size_mb": 1.0} for found in rows(tmp_path).values())
    (reason_given,) = collect(tmp_path, HASHES).skipped
    assert re.search(rf"\.json: measured on a {kind}, which is no Android device", reason_given)


def test_results_of_models_that_were_trained_anew_are_counted_and_named(tmp_path: Path) -> None:
    before = {**HASHES, "distilbert_pruned": "f" * 64}
    save(tmp_path, result(before), result(before))
    found = rows(tmp_path)
    assert found["distilbert_baseline"]["status"] == "measured"
    assert found["distilbert_pruned"] == {"status": "not measured", "size_mb": 1.0, "outdated_results": 2}
    skipped = collect(tmp_path, HASHES).skipped
    assert len(skipped) == 2
    assert all(line.endswith("no longer the exported ones: distilbert_pruned") for line in skipped)


def spoilt(text: str) -> dict[str, str]:
    values = json.loads(text)
    return {
        "truncated": text[: len(text) // 2],
        "empty": "",
        "foreign": '{"hello": "world"}',
        "other version": json.dumps({**values, "schema_version": 2}),
        "unknown key": json.dumps({**values, "more": 1}),
        "no number": text.replace("10.0", "NaN"),
        "text for a number": text.replace('"threads": 1', '"threads": "1"'),
        "kind": text.replace('"phone"', '"toaster"'),
    }


@pytest.mark.parametrize("fault", list(spoilt("{}")))
def test_what_is_no_record_is_named_in_one_line(tmp_path: Path, fault: str) -> None:
    good = write_result(result(HASHES), tmp_path)
    text = spoilt(good.read_text())[fault]
    assert text != good.read_text()
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    with pytest.raises(UserError) as caught:
        collect(tmp_path, HASHES)
    assert str(caught.value).startswith(f"{bad}: not a result of `make android-bench`: ")
    assert "\n" not in str(caught.value)


def test_a_record_reads_back_equal_and_is_never_overwritten(tmp_path: Path) -> None:
    written = result(HASHES, latencies=[[1.25, 2.5], [3.0]])
    path = write_result(written, tmp_path)
    assert path.name == "20260101T000000Z-google-pixel-8.json"
    assert read_result(path) == written
    assert "[ 1.25, 2.5 ]" in path.read_text()
    with pytest.raises(UserError, match="exists already"):
        write_result(written, tmp_path)


def stage(project: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "stages.android_bench_collect"],
        cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def outputs(project: Path) -> dict[str, bytes]:
    folders = (project / "metrics", project / "plots")
    return {str(p.relative_to(project)): p.read_bytes() for folder in folders for p in folder.rglob("*") if p.is_file()}


def test_the_stage_writes_every_row_and_the_figure_the_same_at_every_run(tmp_path: Path) -> None:
    assert "not found; `dvc repro onnx-export` makes it" in stage(tmp_path).stderr
    write_models(tmp_path / "models/onnx")
    done = stage(tmp_path)
    assert done.returncode == 0, done.stderr
    empty = outputs(tmp_path)
    assert {Path(name).stem for name in empty if name.startswith("metrics/android")} == set(ONNX_MODELS)
    assert {Path(name).name for name in empty if name.startswith("plots/android-bench-collect")} == {
        "latency.png",
    }
    assert json.loads(empty["metrics/android/distilbert_pruned.json"])["status"] == "not measured"

    hashes = {name: file_sha256(tmp_path / f"models/onnx/{name}.onnx") for name in ONNX_MODELS}
    save(
        tmp_path / "android/results",
        result(hashes),
        result({**hashes, "distilbert_pruned": "f" * 64}),
        result(hashes, kind="host"),
    )
    done = stage(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "7 measurements count, 2 skipped"
    assert "no longer the exported ones: distilbert_pruned" in done.stdout
    first = outputs(tmp_path)
    assert json.loads(first["metrics/android/distilbert_pruned.json"])["status"] == "measured"
    assert stage(tmp_path).returncode == 0
    assert outputs(tmp_path) == first

    (tmp_path / "android/results/foreign.json").write_text("[]")
    done = stage(tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert outputs(tmp_path) == first


def report(**changes: Any) -> dict[str, Any]:
    return {
        "schema_version": 1, "model_sha256": "0" * 64, "library_sha256": "1" * 64, "ort_version": "1.32.0",
        "threads": 1, "batch": 1, "length": 64, "warmup": 8, "load_ms": 1.0, "cold_start_ms": 1.0,
        "rss_before_load_kib": 1,
        "vm_hwm_kib": 2, "logits_shape": [1, 64, 97], "latencies_ms": [1.0], **changes,
    }  # fmt: skip


def test_the_runner_s_report_is_checked() -> None:
    assert parse_report(json.dumps(report()).encode(), "pixel").threads == 1
    for spoilt_report in (b"{", b"", b"{}", json.dumps(report(schema_version=2)).encode(), b"\xff"):
        with pytest.raises(UserError, match=r"^pixel: the runner's report is damaged: "):
            parse_report(spoilt_report, "pixel")


@given(rounds=st.integers(1, 6), runs=st.integers(1, 2000), seconds=st.floats(0, 100), latency=st.floats(0.1, 500))
def test_the_rounds_together_keep_the_protocol(rounds: int, runs: int, seconds: float, latency: float) -> None:
    """MLPerf's rule holds for the sum of the rounds, whichever of runs and seconds comes last in each of them."""
    protocol = Protocol(name="mlperf", rounds=rounds, warmup=0, runs=runs, seconds=seconds, batch=1, length=64)
    reports: list[RunnerReport] = []
    for number in range(rounds):
        more, longer = remaining(protocol, reports)
        measured = latency * (1 + number % 2)  # a device that slows down and recovers
        count = max(more, int(-(-1000 * longer // measured)), 1)
        reports.append(RunnerReport.model_validate(report(latencies_ms=[measured] * count)))
    latencies = [value for each in reports for value in each.latencies_ms]
    assert len(latencies) >= runs
    assert sum(latencies) >= 1000 * seconds * (1 - 1e-9)


def test_agreement_is_relative_error_and_share_of_equal_best_tokens() -> None:
    expected = np.array([[[3.0, 4.0], [1.0, 0.0]]], dtype=np.float32)
    wanted = Reference("tiny", Path("tiny.onnx"), "0" * 64, b"", expected)
    assert compare(expected.tobytes(), [1, 2, 2], wanted).model_dump() == {
        "relative_error": 0.0, "max_abs_error": 0.0, "top1_agreement": 1.0,
    }  # fmt: skip
    found = np.array([[[3.0, 2.0], [1.0, 0.0]]], dtype=np.float32)
    agreement = compare(found.tobytes(), [1, 2, 2], wanted)
    assert agreement.relative_error == pytest.approx(2 / 26**0.5)
    assert (agreement.max_abs_error, agreement.top1_agreement) == (2.0, 0.5)
    with pytest.raises(UserError, match="the device gave 4 logits"):
        compare(found.tobytes(), [1, 4, 1], wanted)
    with pytest.raises(UserError, match="not all finite"):
        compare(np.full(4, np.nan, dtype=np.float32).tobytes(), [1, 2, 2], wanted)


def test_exit_statuses_are_explained() -> None:
    assert reason(4) == "exit status 4 (ONNX Runtime rejects the model)"
    assert reason(137).startswith("killed")
    assert reason(139) == "ended by signal 11"
    assert reason(99) == "exit status 99"
