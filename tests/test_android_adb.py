"""Which device adb is asked to use, with a stand-in for adb where no real device shows the fault."""

from pathlib import Path

import pytest

from stages.android.adb import AdbDevice, choose
from stages.android.device import Answer, ThisMachine, work_folder
from stages.android.facts import device_facts, device_kind, device_state
from stages.core.errors import UserError


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for adb that `devices` makes list what is given."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    return tmp_path / "adb"


def devices(adb: Path, *rows: str, status: int = 0) -> None:
    listed = "\\n".join(("* daemon started successfully", "List of devices attached", *rows, ""))
    adb.write_text(f"#!/bin/sh\nprintf '{listed}\\n'\nexit {status}\n")
    adb.chmod(0o755)


def test_no_adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"^adb: not found on PATH; install Android's platform-tools"):
        choose(None)


@pytest.mark.parametrize(
    ("rows", "serial", "message"),
    [
        ([], None, "^no device: plug in a phone"),
        ([], "pixel", "^no device: plug in a phone"),
        (["pixel\\tdevice", "emulator-5554\\tdevice"], None, "^2 devices: emulator-5554, pixel; choose with SERIAL="),
        (["pixel\\tdevice"], "nokia", "^nokia: no such device; attached: pixel$"),
        (["pixel\\tunauthorized"], None, "^pixel: unauthorized: unlock the device"),
        (["pixel\\toffline"], None, "^pixel: offline: unplug it"),
        (["pixel\\tno permissions (user in plugdev group; are your udev rules wrong?); see [url]"], None, "udev rules"),
        (["pixel\\trecovery"], None, "^pixel: recovery: not ready"),
    ],
)
def test_a_device_that_cannot_be_used(adb: Path, rows: list[str], serial: str | None, message: str) -> None:
    devices(adb, *rows)
    with pytest.raises(UserError, match=message) as caught:
        choose(serial)
    assert "\n" not in str(caught.value)


def test_the_only_the_named_or_the_environment_s_device(adb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices(adb, "pixel\\tdevice")
    assert choose(None).label == "pixel"
    devices(adb, "pixel\\tdevice", "nokia\\tdevice", "old\\toffline")
    assert choose("nokia").label == "nokia"
    monkeypatch.setenv("ANDROID_SERIAL", "")
    with pytest.raises(UserError, match=r"^3 devices"):
        choose(None)
    monkeypatch.setenv("ANDROID_SERIAL", "pixel")
    assert choose(None).label == "pixel"
    assert choose("nokia").label == "nokia"


def test_an_adb_that_fails(adb: Path) -> None:
    adb.write_text("#!/bin/sh\necho '* failed to start daemon' >&2\nexit 1\n")
    adb.chmod(0o755)
    with pytest.raises(UserError, match=r"^adb devices: failed: \* failed to start daemon$"):
        choose(None)


def test_an_old_device_s_shell_passes_no_exit_status_on(adb: Path) -> None:
    """Before Android 7, `adb shell` is 0 whatever happens, merges the streams and ends lines with CR LF."""
    adb.write_text('#!/bin/sh\nshift 3\nsh -c "$@" 2>&1 | sed "s/$/\\r/"\nexit 0\n')
    adb.chmod(0o755)
    answer = AdbDevice(str(adb), "old").shell("echo hello; exit 5", 10)
    assert (answer.status, answer.output) == (5, "hello\n")


def test_an_answer_that_breaks_off_is_no_answer(adb: Path) -> None:
    adb.write_text("#!/bin/sh\necho half; echo 'error: closed' >&2; exit 1\n")
    adb.chmod(0o755)
    with pytest.raises(UserError, match=r"^pixel: the connection broke \(error: closed\)"):
        AdbDevice(str(adb), "pixel").shell("echo half; echo whole", 10)


class Scripted:
    """A device that gives one answer."""

    label = "scripted"

    def __init__(self, output: str) -> None:
        self.output = output

    def shell(self, script: str, timeout: float) -> Answer:
        return Answer(0, self.output, "")

    def push(self, source: Path, target: str) -> None:
        raise AssertionError

    pull = push  # type: ignore[assignment]


PIXEL = """property ro.build.fingerprint=google/shiba/shiba:14/UD1A.230803.041/1:user/release-keys
property ro.product.manufacturer=Google
property ro.product.model=Pixel 8
property ro.product.cpu.abilist=arm64-v8a,armeabi-v7a,armeabi
property ro.build.version.sdk=34
property ro.hardware=shiba
property ro.kernel.qemu=
machine aarch64
MemTotal:        7735160 kB
Features\t: fp asimd asimddp i8mm bf16
"""


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (("", ""), "phone"),
        (("ro.kernel.qemu=", "ro.kernel.qemu=1"), "emulator"),
        (("ro.kernel.qemu=", "ro.boot.qemu=1"), "emulator"),
        (("ro.hardware=shiba", "ro.hardware=ranchu"), "emulator"),
        (("Google\n", "Genymotion\n"), "emulator"),
        (("Pixel 8", "WayDroid x86_64 Device"), "emulator"),
        (("=google/shiba", "=generic/vbox86p"), "emulator"),
        (("ro.build.fingerprint", "ro.none"), "loopback"),
    ],
)
def test_what_a_device_is(change: tuple[str, str], kind: str) -> None:
    facts = device_facts(Scripted(PIXEL.replace(*change)))
    assert device_kind(facts, is_this_machine=False) == kind
    assert device_kind(facts, is_this_machine=True) == "host"
    assert facts.abis == ["arm64-v8a", "armeabi-v7a", "armeabi"]
    assert (facts.memory_mib, facts.api_level) == (7553, 34)
    assert "asimddp i8mm" in facts.cpu_features


def test_the_state_is_read_as_android_prints_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell lines run here, with a stand-in for Android's dumpsys."""
    (tmp_path / "dumpsys").write_text(
        "#!/bin/sh\ncase $1 in\nbattery) printf 'Current Battery state:\\n  AC powered: false\\n  USB powered: true\\n"
        "  level: 81\\n  temperature: 292\\n  technology: Li-ion\\n' ;;\n"
        "thermalservice) printf 'IsStatusOverride: false\\nThermal Status: 1\\n' ;;\nesac\n"
    )
    (tmp_path / "dumpsys").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    state = device_state(ThisMachine())
    assert state.battery == {"AC powered": "false", "USB powered": "true", "level": "81", "temperature": "292"}
    assert state.thermal_status == "1"


def test_a_device_that_tells_nothing() -> None:
    state = device_state(Scripted(""))
    assert (state.battery, state.thermal_status, state.thermal_zones_celsius, state.governors) == ({}, None, {}, [])
    with pytest.raises(UserError, match="/proc/meminfo is not readable"):
        device_facts(Scripted(""))


def test_the_work_folder_is_removed_with_what_earlier_runs_left(tmp_path: Path) -> None:
    stale = tmp_path / "distilbert-bench-0123456789ab"
    (stale / "deeper").mkdir(parents=True)
    other = tmp_path / "photos"
    other.mkdir()
    with work_folder(ThisMachine(), str(tmp_path)) as folder:
        assert not stale.exists()
        Path(folder, "file").write_text("x")
    assert list(tmp_path.iterdir()) == [other]
    with pytest.raises(ValueError, match="broken"), work_folder(ThisMachine(), str(tmp_path)):
        raise ValueError("broken")
    assert list(tmp_path.iterdir()) == [other]


def test_an_android_of_a_desktop_s_processor_is_no_phone() -> None:
    facts = device_facts(Scripted(PIXEL.replace("arm64-v8a,armeabi-v7a,armeabi", "x86_64,arm64-v8a")))
    assert device_kind(facts, is_this_machine=False) == "emulator"
