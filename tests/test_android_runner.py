"""The C++ runner: its own tests, and its logits beside those of Python's ONNX Runtime."""

import json
import os
import subprocess
from importlib.metadata import files, version
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from android_loopback import DEBIAN, HEADERS, INSTALL, QEMU, ROOT, require
from android_models import VOCABULARY, write_int8, write_model

from stages.android.agreement import compare, reference
from stages.core.artifacts import file_sha256

SYSROOT = "/usr/aarch64-linux-gnu"
LENGTH = 8


def headers() -> Path:
    places = [Path(os.environ.get("ONNXRUNTIME_INCLUDE", "/usr/include/onnxruntime")), HEADERS]
    for place in places:
        if (place / "onnxruntime_c_api.h").is_file():
            return place
    pytest.skip(f"no onnxruntime_c_api.h in {' or '.join(map(str, places))}; {INSTALL}")


def build(folder: Path, *options: str) -> Path:
    """Compile the runner and run its tests."""
    require("cmake", "make")
    configure = ["cmake", "-S", str(ROOT / "android/runner"), "-B", str(folder), f"-DONNXRUNTIME_INCLUDE={headers()}"]
    for command in ([*configure, *options], ["cmake", "--build", str(folder)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr
    tests = ["ctest", "--test-dir", str(folder), "--output-on-failure", "--no-tests=error"]
    done = subprocess.run(tests, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return folder / "runner"


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Command of the runner for this machine."""
    require("g++")
    library = next(
        (str(file.locate()) for file in files("onnxruntime") or [] if "libonnxruntime.so" in file.name), None
    )
    if library is None:
        pytest.skip("this system's onnxruntime package has no libonnxruntime.so")
    return [str(build(tmp_path_factory.mktemp("native"))), "--library", library]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Command of the runner for ARM64, in the emulator."""
    require("aarch64-linux-gnu-g++")
    libraries = list((DEBIAN.parent / "wheel/onnxruntime/capi").glob("libonnxruntime.so.*"))
    if not (QEMU.is_file() and libraries):
        pytest.skip(f"no emulator or no ONNX Runtime for ARM64 in {DEBIAN.parent}; {INSTALL}")
    runner = build(
        tmp_path_factory.mktemp("aarch64"),
        f"-DCMAKE_TOOLCHAIN_FILE={ROOT}/android/runner/toolchains/aarch64-linux-gnu.cmake",
        f"-DCMAKE_CROSSCOMPILING_EMULATOR={QEMU};-L;{SYSROOT}",
    )
    return [str(QEMU), "-L", SYSROOT, str(runner), "--library", str(libraries[0])]


def run(command: list[str], folder: Path, model: Path, **options: object) -> "subprocess.CompletedProcess[str]":
    given = {
        "model": model, "input": folder / "input", "output": folder / "report.json", "logits": folder / "logits",
        "length": LENGTH, "iterations": 3, "seconds": 0, "warmup": 1, **options,
    }  # fmt: skip
    words = [str(word) for key, value in given.items() for word in (f"--{key}", value)]
    return subprocess.run([*command, *words], capture_output=True, text=True, check=False, timeout=300)


def check_parity(command: list[str], folder: Path) -> None:
    model = write_model(folder / "tiny.onnx")
    for path, tolerance in ((model, 1e-6), (write_int8(model), 0.02)):  # INT8 kernels round differently by processor
        expected = reference(path, 1, LENGTH)
        (folder / "input").write_bytes(expected.input)
        done = run(command, folder, path)
        assert done.returncode == 0, done.stderr
        report = json.loads((folder / "report.json").read_text())
        agreement = compare((folder / "logits").read_bytes(), report["logits_shape"], expected)
        assert agreement.relative_error <= tolerance
        assert agreement.top1_agreement == 1.0
        assert report["logits_shape"] == [1, LENGTH, VOCABULARY]
        assert report["model_sha256"] == file_sha256(path)
        assert report["library_sha256"] == file_sha256(Path(command[command.index("--library") + 1]))
        assert report["ort_version"] == version("onnxruntime")
        assert len(report["latencies_ms"]) == 3
        assert report["load_ms"] > 0
        assert report["vm_hwm_kib"] >= report["rss_before_load_kib"] > 0


def test_native_runner_gives_python_s_logits(native: list[str], tmp_path: Path) -> None:
    check_parity(native, tmp_path)


@pytest.mark.long
def test_arm64_runner_gives_python_s_logits(emulated: list[str], tmp_path: Path) -> None:
    check_parity(emulated, tmp_path)


def test_the_reference_is_what_a_session_computes(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.onnx")
    found = reference(path, 2, LENGTH)
    ids, mask = np.frombuffer(found.input, dtype="<i8").reshape(2, 2, LENGTH)
    assert mask.all()
    assert len(set(ids[0].tolist())) == LENGTH
    session = onnxruntime.InferenceSession(path)
    (logits,) = session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
    np.testing.assert_array_equal(found.logits, logits)


@pytest.mark.parametrize(
    ("options", "content", "status", "message"),
    [
        ({"model": "no.onnx"}, 16, 6, "no.onnx: cannot be read"),
        ({"library": "/nowhere/libonnxruntime.so"}, 16, 6, "/nowhere/libonnxruntime.so: cannot be read"),
        ({"length": 0}, 16, 2, "--length 0: want a whole number"),
        ({}, 15, 6, "want exactly 128 bytes"),
        ({}, 17, 6, "want exactly 128 bytes"),
        ({"output": "/nowhere/report.json"}, 16, 6, "/nowhere/report.json: cannot be written"),
    ],
)
def test_faults_are_one_line_and_a_status(
    native: list[str], tmp_path: Path, options: dict[str, object], content: int, status: int, message: str
) -> None:
    model = write_model(tmp_path / "tiny.onnx")
    (tmp_path / "input").write_bytes(np.ones(content, dtype="<i8").tobytes())
    done = run(native, tmp_path, **{"model": model, **options})  # type: ignore[arg-type]
    assert done.returncode == status
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_damaged_model_and_a_foreign_library_are_told_apart(native: list[str], tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(np.ones(2 * LENGTH, dtype="<i8").tobytes())
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    assert run(native, tmp_path, tmp_path / "damaged.onnx").returncode == 4
    done = run([native[0], "--library", str(tmp_path / "damaged.onnx")], tmp_path, tmp_path / "damaged.onnx")
    assert done.returncode == 3
    (tmp_path / "input").write_bytes((np.ones(2 * LENGTH, dtype="<i8") * VOCABULARY).tobytes())  # no such token
    done = run(native, tmp_path, write_model(tmp_path / "tiny.onnx"))
    assert done.returncode == 5
    assert not (tmp_path / "report.json").exists()
