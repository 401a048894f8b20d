"""What a figure was taken on: the device's own description, and its battery, heat and clocks before and after."""

from collections.abc import Iterable

from stages.android.device import SHORT, Device
from stages.android.results import DeviceFacts, DeviceKind, DeviceState
from stages.core.errors import UserError

PROPERTIES = (
    "ro.build.fingerprint",
    "ro.product.manufacturer",
    "ro.product.model",
    "ro.product.cpu.abilist",
    "ro.build.version.release",
    "ro.build.version.sdk",
    "ro.soc.manufacturer",
    "ro.soc.model",
    "ro.board.platform",
    "ro.hardware",
    "ro.kernel.qemu",
    "ro.boot.qemu",
)
FACTS = f"""
for name in {" ".join(PROPERTIES)}; do echo "property $name=$(getprop $name 2>/dev/null)"; done
echo "machine $(uname -m)"
grep MemTotal: /proc/meminfo
grep -m 1 -E '^(Features|flags)' /proc/cpuinfo
"""
STATE = """
dumpsys battery 2>/dev/null | sed -n 's/^ *\\([A-Za-z ]*\\): \\([A-Za-z0-9-]*\\)$/battery \\1=\\2/p'
dumpsys thermalservice 2>/dev/null | sed -n 's/^Thermal Status: */status /p'
for zone in /sys/class/thermal/thermal_zone*; do
  [ -r "$zone/temp" ] && echo "zone $(cat "$zone/type" 2>/dev/null)=$(cat "$zone/temp" 2>/dev/null)"
done
for file in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor; do
  [ -r "$file" ] && echo "governor $(cat "$file")"
done
:
"""
BATTERY = ("AC powered", "USB powered", "level", "status", "temperature")
# Words in the properties of the SDK's emulator, Cuttlefish, Genymotion, VirtualBox, BlueStacks, Waydroid and WSA.
EMULATORS = (
    "goldfish",
    "ranchu",
    "cutf",
    "sdk_gphone",
    "generic/",
    "genymotion",
    "vbox",
    "bluestacks",
    "waydroid",
    "subsystem for android",
)
TOLD_BY = ("ro.build.fingerprint", "ro.hardware", "ro.product.manufacturer", "ro.product.model", "ro.board.platform")
ARCHITECTURES = {"aarch64": "arm64-v8a"}  # what the kernel calls it -> what Android does


def device_facts(device: Device) -> DeviceFacts:
    """Ask a device what it is; UserError if it does not even know its memory."""
    lines = device.shell(FACTS, SHORT).output.splitlines()
    properties = {name: value for name, value in _pairs(lines, "property ") if value}
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "MemTotal" not in fields:
        raise UserError(f"{device.label}: /proc/meminfo is not readable there; is its shell a POSIX one?")
    machine = next((line.split()[-1] for line in lines if line.startswith("machine ")), "")
    abis = properties.get("ro.product.cpu.abilist") or ARCHITECTURES.get(machine, machine)
    api = properties.get("ro.build.version.sdk", "")
    return DeviceFacts(
        properties=properties,
        abis=abis.split(","),
        memory_mib=int(fields["MemTotal"].split()[0]) // 1024,
        cpu_features=fields.get("Features") or fields.get("flags") or "",
        **({"api_level": int(api)} if api.isdecimal() else {}),
    )


def device_state(device: Device) -> DeviceState:
    """Ask a device for its battery, heat and clock governors; what it does not tell is left out."""
    lines = device.shell(STATE, SHORT).output.splitlines()
    status = next((line.split()[-1] for line in lines if line.startswith("status ") and line[7:]), None)
    zones = {name: float(value) for name, value in _pairs(lines, "zone ") if value.lstrip("-").isdecimal()}
    return DeviceState(
        battery={name: value for name, value in _pairs(lines, "battery ") if name in BATTERY},
        thermal_status=status,
        # The kernel counts in thousandths of a degree.
        thermal_zones_celsius={name: value / 1000 for name, value in zones.items()},
        governors=[line.split()[-1] for line in lines if line.startswith("governor ")],
    )


def device_kind(facts: DeviceFacts, is_this_machine: bool) -> DeviceKind:
    """Tell a phone from what must never be published as one.

    Android names its build in `ro.build.fingerprint`; an emulator says so by `ro.kernel.qemu` (or `ro.boot.qemu`), by
    what it calls itself, or by a processor that phones do not have. What answers adb without being Android is a
    loopback.
    """
    if is_this_machine:
        return "host"
    known = facts.properties
    if not known.get("ro.build.fingerprint"):
        return "loopback"
    emulated = "1" in (known.get("ro.kernel.qemu"), known.get("ro.boot.qemu"))
    told = " ".join(known.get(name, "") for name in TOLD_BY).lower()
    named = any(word in told for word in EMULATORS)
    return "emulator" if emulated or named or facts.abis[0].startswith("x86") else "phone"


def device_name(facts: DeviceFacts, fallback: str) -> str:
    """Manufacturer and model, for people."""
    words = [facts.properties.get(f"ro.product.{key}", "") for key in ("manufacturer", "model")]
    return " ".join(filter(None, words)) or fallback


def _pairs(lines: Iterable[str], prefix: str) -> list[tuple[str, str]]:
    """Split the lines `<prefix><name>=<value>` into names and values."""
    found = [line.removeprefix(prefix).partition("=") for line in lines if line.startswith(prefix)]
    return [(name.strip(), value.strip()) for name, _, value in found]
