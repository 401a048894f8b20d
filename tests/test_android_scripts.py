"""The scripts that fetch ONNX Runtime and build the runner, with stand-ins for Maven Central and the NDK."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from android_loopback import HEADERS, INSTALL, ROOT, require

VERSION = "9.9.9"
LIBRARY = b"no library"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder laid out as Maven Central lays its files out, with one small AAR."""
    require("curl")
    folder = tmp_path / "maven/com/microsoft/onnxruntime/onnxruntime-android" / VERSION
    folder.mkdir(parents=True)
    archive = folder / f"onnxruntime-android-{VERSION}.aar"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("jni/arm64-v8a/libonnxruntime.so", LIBRARY)
        for name in ("onnxruntime_c_api.h", "onnxruntime_ep_c_api.h"):
            if (HEADERS / name).is_file():
                packed.write(HEADERS / name, f"headers/{name}")
    digest = hashlib.sha1(archive.read_bytes(), usedforsecurity=False).hexdigest()
    (folder / f"{archive.name}.sha1").write_text(digest)
    return tmp_path / "maven"


def script(name: str, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [ROOT / "android" / name, *map(str, arguments)],
        env={**os.environ, "PATH": path, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def fetch(repository: Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    return script("fetch-onnxruntime", "aar", folder, MAVEN=repository.as_uri(), ORT_VERSION=VERSION)


def test_the_aar_is_unpacked_once(repository: Path, tmp_path: Path) -> None:
    done = fetch(repository, tmp_path / "aar")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "aar/jni/arm64-v8a/libonnxruntime.so").read_bytes() == LIBRARY
    assert fetch(tmp_path / "gone", tmp_path / "aar").returncode == 0  # it is there already


def test_an_altered_or_missing_aar_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    (archive,) = repository.rglob("*.aar")
    archive.write_bytes(archive.read_bytes() + b"x")
    done = fetch(repository, tmp_path / "aar")
    assert done.returncode == 1
    assert "altered on its way" in done.stderr
    done = fetch(tmp_path / "gone", tmp_path / "aar")
    assert done.returncode == 1
    assert "ORT_VERSION=… names another version" in done.stderr
    assert not (tmp_path / "aar").exists()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    require("cmake")
    for arguments in ((), ("toaster", tmp_path / "x")):
        done = script("build", *arguments)
        assert done.returncode == 1
        assert "usage: android/build" in done.stderr
    done = script("build", "android-aar", tmp_path / "x", ANDROID_NDK_HOME=str(tmp_path))
    assert done.returncode == 1
    assert f"error: ANDROID_NDK_HOME={tmp_path}: no NDK there" in done.stderr
    assert "usage" in script("fetch-onnxruntime", "tarball").stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_the_ndk_way_with_a_stand_in_for_the_ndk(repository: Path, tmp_path: Path) -> None:
    """The stand-in cross-compiles for Linux: this tests the script, not the NDK."""
    require("cmake", "make", "aarch64-linux-gnu-g++")
    if not HEADERS.is_dir():
        pytest.skip(f"no ONNX Runtime headers in {HEADERS}; {INSTALL}")
    toolchain = tmp_path / "ndk/build/cmake/android.toolchain.cmake"
    toolchain.parent.mkdir(parents=True)
    toolchain.write_text(f'include("{ROOT}/android/runner/toolchains/aarch64-linux-gnu.cmake")\n')
    environment = {"ANDROID_NDK_HOME": str(tmp_path / "ndk"), "MAVEN": repository.as_uri(), "ORT_VERSION": VERSION}
    environment["CACHE"] = str(tmp_path / "cache")
    done = script("build", "android-aar", tmp_path / "built", **environment)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "built").iterdir()) == [
        "bundle.json",
        "libonnxruntime.so",
        "runner",
    ]
    description = json.loads((tmp_path / "built/bundle.json").read_text())
    assert description == {"runtime_build": "android-aar", "abi": "arm64-v8a", "launch": "./runner"}
