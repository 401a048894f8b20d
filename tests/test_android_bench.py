"""The whole measurement over adb and a real adbd, and what it says and leaves behind when something goes wrong."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from android_loopback import DEBIAN, INSTALL, QEMU, ROOT, SERIAL, Loopback, loopback, require
from android_models import write_model, write_models

from stages.android.results import Result, read_result
from stages.core.artifacts import file_sha256
from stages.measurement.variants import ONNX_MODELS

EMULATOR = """case "$1" in
  ro.product.cpu.abilist) echo arm64-v8a,x86_64 ;;
  ro.build.fingerprint) echo google/sdk_gphone64_x86_64/emu64x:14/UE1A.230829/1:userdebug/dev-keys ;;
  ro.kernel.qemu) echo 1 ;;
  ro.product.manufacturer) echo Google ;;
  ro.product.model) echo sdk_gphone64 ;;
  ro.build.version.sdk) echo 34 ;;
esac"""


def build(kind: str, folder: Path) -> Path:
    require("cmake", "make", "g++")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [ROOT / "android/build", kind, folder], env=environment, capture_output=True, text=True, check=False
    )
    if "not found; install" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runner for this machine, which is what the loopback device runs too."""
    return build("host", tmp_path_factory.mktemp("bundle") / "host")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("onnx"))


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Loopback]:
    with loopback(tmp_path) as started:
        yield started


@pytest.fixture
def wrapped(bundle: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A bundle whose runner is started by a script; in it, `"$@"` is the runner with its options."""

    def make(script: str) -> Path:
        folder = tmp_path / "wrapped"
        shutil.copytree(bundle, folder)
        (folder / "wrapper").write_text(f"#!/bin/sh\n{script}\n")
        description = json.loads((folder / "bundle.json").read_text())
        (folder / "bundle.json").write_text(json.dumps({**description, "launch": "./wrapper ./runner"}))
        return folder

    return make


def only_result(folder: Path) -> Result:
    (path,) = folder.iterdir()
    return read_result(path)


def assert_failed(done: "subprocess.CompletedProcess[str]", *messages: str) -> None:
    """One line on standard error, after the progress bar, and exit status 1."""
    lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line]
    assert done.returncode == 1, done.stderr
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    for message in messages:
        assert message in lines[0]


def test_the_whole_bench_over_adb(device: Loopback, bundle: Path, models: Path, tmp_path: Path) -> None:
    done = device.run(*device.bench(bundle, models, tmp_path / "results", "--threads", "1", "2", "1", "--taskset", "3"))
    assert done.returncode == 0, done.stderr
    assert device.left() == []
    found = only_result(tmp_path / "results")
    assert found.device_kind == "loopback"
    write_models(tmp_path / "models/onnx")  # equal bytes, so the record is of the exported models, but of no phone
    shutil.copytree(tmp_path / "results", tmp_path / "android/results")
    assert {row["status"] for row in collected(tmp_path).values()} == {"not measured"}
    assert found.device.memory_mib > 0
    assert found.runtime.sha256["runner"] == file_sha256(bundle / "runner")
    assert found.runtime.sha256["libonnxruntime.so"] == file_sha256(bundle / "libonnxruntime.so")
    assert [(model.name, model.threads) for model in found.models] == [(n, t) for t in (1, 2) for n in ONNX_MODELS]
    for model in found.models:
        assert model.sha256 == file_sha256(models / f"{model.name}.onnx")
        assert model.agreement.relative_error < 1e-6
        assert model.agreement.top1_agreement == 1.0
        if model.name.endswith("_int8"):
            assert model.float32_agreement is not None
            assert 0.0 < model.float32_agreement.relative_error < 0.05
        else:
            assert model.float32_agreement is None
        assert len(model.rounds) == found.protocol.rounds == 2
        assert sum(len(each.latencies_ms) for each in model.rounds) == found.protocol.runs == 32


def collected(project: Path) -> dict[str, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "stages.android_bench_collect"],
        cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {path.stem: json.loads(path.read_text()) for path in (project / "metrics/android").iterdir()}


def test_what_names_itself_an_emulator_is_collected_as_one(device: Loopback, bundle: Path, tmp_path: Path) -> None:
    write_models(tmp_path / "models/onnx")
    device.tool("getprop", EMULATOR)
    done = device.run(*device.bench(bundle, tmp_path / "models/onnx", tmp_path / "android/results"))
    assert done.returncode == 0, done.stderr
    found = only_result(tmp_path / "android/results")
    assert (found.device_kind, found.device_name, found.device.api_level) == ("emulator", "Google sdk_gphone64", 34)
    table = collected(tmp_path)
    assert set(table) == set(ONNX_MODELS)
    for name, row in table.items():
        assert ("float32_relative_error" in row) == name.endswith("_int8")
        assert row["status"] == "measured"
        assert row["device_kind"] == "emulator"
        assert row["protocol"] == "quick"


@pytest.mark.long
def test_the_arm64_runner_with_its_own_glibc_over_adb(device: Loopback, models: Path, tmp_path: Path) -> None:
    require("aarch64-linux-gnu-g++")
    if not (QEMU.is_file() and (DEBIAN.parent / "wheel").is_dir()):
        pytest.skip(f"no emulator or no ONNX Runtime for ARM64 in {DEBIAN.parent}; {INSTALL}")
    folder = build("linux-glibc", tmp_path / "linux-glibc")
    description = json.loads((folder / "bundle.json").read_text())
    # The emulated part of the device: its kernel would start the loader by itself.
    emulated = {**description, "launch": f"{QEMU} {description['launch']}"}
    (folder / "bundle.json").write_text(json.dumps(emulated))
    done = device.run(*device.bench(folder, models, tmp_path / "results"))
    assert done.returncode == 0, done.stderr
    found = only_result(tmp_path / "results")
    assert found.device_kind == "loopback"
    write_models(tmp_path / "models/onnx")  # the bytes that were measured: only the device keeps the record out
    shutil.copytree(tmp_path / "results", tmp_path / "android/results")
    assert {row["status"] for row in collected(tmp_path).values()} == {"not measured"}
    assert found.runtime.runtime_build == "linux-glibc"
    assert found.device.abis[0] == "arm64-v8a"
    assert all(model.agreement.relative_error < 0.02 for model in found.models)
    assert all(model.agreement.top1_agreement > 0.95 for model in found.models)  # random weights: some near ties
    assert device.left() == []


def test_this_machine_without_adb(bundle: Path, models: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "stages.android_bench", "--host", f"--bundle={bundle}", f"--models={models}", "--quick",
        f"--results={tmp_path}/results", f"--folder={tmp_path}",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert only_result(tmp_path / "results").device_kind == "host"
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


FAULTS = {
    "status": ("echo no thanks >&2; exit 7", [f"{SERIAL}: distilbert_baseline, 1 thread", "exit status 7", "thanks"]),
    "model": ("echo junk >distilbert_baseline.onnx; exec $@", ["exit status 4", "rejects the model", "Protobuf"]),
    "truncated": ("$@ && head -c 300 report.json >cut && mv cut report.json", ["report is damaged", "EOF"]),
}  # fmt: skip
MORE_FAULTS = {
    "killed": ("kill -9 $$", ["killed, as happens when memory runs out"]),
    "library": ("echo junk >libonnxruntime.so; exec $@", ["exit status 3", "ONNX Runtime cannot be loaded"]),
    "foreign": ("$@ && echo '{\"ok\": true}' >report.json", ["report is damaged", "schema_version"]),
    "other model": ("cp distilbert_pruned.onnx distilbert_baseline.onnx && $@", ["other files than were pushed"]),
    "logits": ("$@ && truncate -s 8 logits", ["the device gave 2 logits of shape"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", [*FAULTS, *(pytest.param(name, marks=pytest.mark.long) for name in MORE_FAULTS)])
def test_faults_of_a_run_are_one_line_and_leave_nothing(
    device: Loopback, wrapped: Callable[[str], Path], models: Path, tmp_path: Path, fault: str
) -> None:
    script, messages = {**FAULTS, **MORE_FAULTS}[fault]
    done = device.run(*device.bench(wrapped(script), models, tmp_path / "results"))
    assert_failed(done, *messages)
    assert not (tmp_path / "results").exists()
    assert device.left() == []
    assert device.running() == ""


def test_a_run_past_its_time_limit(
    device: Loopback, wrapped: Callable[[str], Path], models: Path, tmp_path: Path
) -> None:
    done = device.run(*device.bench(wrapped("sleep 60"), models, tmp_path / "results", "--timeout", "1"))
    assert_failed(done, "distilbert_baseline, 1 thread: still running after 1 s; --timeout gives a process more time")
    assert device.left() == []
    assert device.running() == ""


def test_a_full_device(device: Loopback, bundle: Path, models: Path, tmp_path: Path) -> None:
    device.run("fallocate", "-l", "390M", str(device.storage / "photos"))
    assert_failed(device.run(*device.bench(bundle, models, tmp_path / "results")), "push of", "No space left on device")
    assert device.left() == ["photos"]
    assert not (tmp_path / "results").exists()


def test_a_folder_that_cannot_be_made(device: Loopback, bundle: Path, models: Path, tmp_path: Path) -> None:
    command = device.bench(bundle, models, tmp_path / "results", "--folder", "/nowhere")
    assert_failed(device.run(*command), "/nowhere/distilbert-bench-", "--folder names another place")


def test_a_file_that_is_altered_in_transit(device: Loopback, bundle: Path, models: Path, tmp_path: Path) -> None:
    """A stand-in for adb spoils what it is given to push, and leaves the rest to the real one."""
    real = shutil.which("adb")
    stand_in = tmp_path / "bin" / "adb"
    stand_in.parent.mkdir()
    stand_in.write_text(
        '#!/bin/sh\ncase "$3 $4" in "push "*_pruned.onnx) cat "$4" - >"$0.spoilt" <"$0"; '
        f'exec {real} "$1" "$2" push "$0.spoilt" "$5" ;; esac\nexec {real} "$@"\n'
    )
    stand_in.chmod(0o755)
    device.path = f"{stand_in.parent}:{device.path}"
    done = device.run(*device.bench(bundle, models, tmp_path / "results"))
    assert_failed(done, "distilbert_pruned.onnx: altered in transit")
    assert device.left() == []


def started(device: Loopback, command: list[str]) -> "subprocess.Popen[str]":
    """Start a bench and wait until its runner runs; the process id in the namespace is in the file `bench.pid`."""
    process = device.enter("sh", "-c", f'echo $$ >{device.folder}/bench.pid; exec "$@"', "sh", *command)
    for _ in range(300):
        if device.running() or process.poll() is not None:
            break
        time.sleep(0.1)
    assert device.running()
    return process


def test_a_connection_that_breaks_in_the_middle(
    device: Loopback, bundle: Path, wrapped: Callable[[str], Path], models: Path, tmp_path: Path
) -> None:
    with started(device, device.bench(wrapped("sleep 60"), models, tmp_path / "results")) as process:
        device.unplug()
        output, errors = process.communicate(timeout=100)
    done = subprocess.CompletedProcess("", process.returncode, output, errors)
    assert_failed(done, SERIAL, "the connection broke", "stayed on the device, the next run there removes it")
    assert not (tmp_path / "results").exists()

    device.plug_in()
    done = device.run(*device.bench(bundle, models, tmp_path / "results"))
    assert done.returncode == 0, done.stderr
    assert device.left() == []


@pytest.mark.parametrize("signal", ["INT", pytest.param("TERM", marks=pytest.mark.long)])
def test_an_interrupt_cleans_the_device(
    device: Loopback, wrapped: Callable[[str], Path], models: Path, tmp_path: Path, signal: str
) -> None:
    with started(device, device.bench(wrapped("sleep 60"), models, tmp_path / "results")) as process:
        device.run("kill", f"-{signal}", (tmp_path / "bench.pid").read_text().strip())
        errors = process.communicate(timeout=100)[1]
    assert process.returncode == 1
    assert "interrupted; nothing was recorded, and the device is clean" in errors
    assert "Traceback" not in errors
    assert device.left() == []
    assert device.running() == ""
    assert not (tmp_path / "results").exists()


def test_a_model_that_is_missing_or_no_language_model(
    device: Loopback, bundle: Path, models: Path, tmp_path: Path
) -> None:
    done = device.run(*device.bench(bundle, tmp_path / "no", tmp_path / "results"))
    assert_failed(done, "distilbert_baseline.onnx: not found", "dvc repro onnx-export")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/distilbert_baseline.onnx").write_bytes(b"junk")
    assert_failed(device.run(*device.bench(bundle, tmp_path / "other", tmp_path / "results")), "damaged")
    assert device.left() == []


def test_a_runner_for_another_processor(device: Loopback, bundle: Path, models: Path, tmp_path: Path) -> None:
    device.tool("getprop", 'case "$1" in ro.product.cpu.abilist) echo armeabi-v7a ;; esac')
    done = device.run(*device.bench(bundle, models, tmp_path / "results"))
    assert_failed(done, f"{SERIAL}: runs armeabi-v7a, but {bundle} is built for")


def test_a_bundle_that_is_not_built(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stages.android_bench", f"--bundle={tmp_path}/android-aar"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert_failed(done, "no runner there; `android/build android-aar` makes one")


def test_a_model_of_another_shape_is_told(tmp_path: Path) -> None:
    import onnx

    from stages.android.agreement import reference
    from stages.core.errors import UserError

    path = write_model(tmp_path / "tiny.onnx")
    model = onnx.load(path)
    model.graph.output.pop(0)
    onnx.save(model, path)
    with pytest.raises(UserError, match="gives logits"):
        reference(path, 1, 8)
