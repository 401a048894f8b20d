"""The record of a measurement on a device: its schema, and how it is written and read back."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.core.artifacts import atomic_path
from stages.core.errors import UserError

RuntimeBuild = Literal["android-aar", "linux-glibc", "host"]
DeviceKind = Literal["phone", "emulator", "loopback", "host"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Milliseconds = Annotated[float, Field(ge=0.0)]
Kibibytes = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """A part of a result: unknown keys and silent type conversions are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DeviceFacts(Record):
    """What the device is. The serial number, which names a person's phone, is not part of it."""

    properties: dict[str, str] = Field(description="what getprop says of build, model, processor and emulation")
    abis: list[str] = Field(description="instruction sets, the preferred one first")
    api_level: int | None = None
    memory_mib: int
    cpu_features: str = Field(description="as /proc/cpuinfo names them; asimddp and i8mm speed INT8 up")


class DeviceState(Record):
    """What can change during a measurement; what the device does not tell is empty."""

    battery: dict[str, str] = Field(description="of `dumpsys battery`; temperature in tenths of a degree Celsius")
    thermal_status: str | None = Field(default=None, description="Android's level, 0 (none) to 6 (shutdown)")
    thermal_zones_celsius: dict[str, float]
    governors: list[str] = Field(description="of each core's clock")


class Runtime(Record):
    """What ran the models."""

    runtime_build: RuntimeBuild
    ort_version: str
    sha256: dict[str, Sha256] = Field(description="of the runner and of every library beside it")


class Protocol(Record):
    """How it was measured."""

    name: Literal["mlperf", "quick"] = Field(description="mlperf: MLPerf Mobile's rule for a single stream")
    rounds: int = Field(ge=1, description="fresh processes a model and thread count; they take turns")
    warmup: int = Field(ge=0, description="runs of a process that are not recorded")
    runs: int = Field(ge=1, description="recorded runs at least, over all rounds")
    seconds: float = Field(ge=0.0, description="seconds at least that the recorded runs take together")
    batch: int = Field(ge=1, description="rows")
    length: int = Field(ge=1, description="tokens a row")
    taskset: str | None = Field(default=None, description="hexadecimal mask of the cores")


class RunnerReport(Record):
    """What the runner writes; the runner's own schema version comes first."""

    schema_version: Literal[1]
    model_sha256: Sha256
    library_sha256: Sha256
    ort_version: str
    threads: int
    batch: int
    length: int
    warmup: int
    load_ms: Milliseconds
    cold_start_ms: Milliseconds
    rss_before_load_kib: Kibibytes
    vm_hwm_kib: Kibibytes
    logits_shape: list[int]
    latencies_ms: list[Milliseconds] = Field(min_length=1)


class Round(Record):
    """A fresh process: loading, the first run, the recorded runs, resident memory before loading and at its highest."""

    load_ms: Milliseconds
    cold_start_ms: Milliseconds
    rss_before_load_kib: Kibibytes
    vm_hwm_kib: Kibibytes
    latencies_ms: list[Milliseconds] = Field(min_length=1)


class Agreement(Record):
    """How near the device's logits come to those of this machine, on the same input."""

    relative_error: float = Field(ge=0.0, description="norm of the difference over the norm of this machine's")
    max_abs_error: float = Field(ge=0.0)
    top1_agreement: float = Field(ge=0.0, le=1.0, description="share of positions with the same most probable token")


class ModelResult(Record):
    """One model with one number of threads."""

    name: str
    sha256: Sha256
    threads: int = Field(ge=1)
    agreement: Agreement
    float32_agreement: Agreement | None = Field(default=None, description="of an INT8 model, with its float32 original")
    rounds: list[Round] = Field(min_length=1)


class Result(Record):
    """One measurement of some models on one device."""

    schema_version: Literal[1]
    created: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", description="UTC")
    device_kind: DeviceKind
    device_name: str
    device: DeviceFacts
    before: DeviceState
    after: DeviceState
    runtime: Runtime
    protocol: Protocol
    host: dict[str, str] = Field(description="system and ONNX Runtime version of the machine that gave the reference")
    models: list[ModelResult] = Field(min_length=1)


def write_result(result: Result, folder: Path) -> Path:
    """Write a result under a name made of time and device, and return its path."""
    slug = re.sub(r"[^a-z0-9]+", "-", result.device_name.lower()).strip("-") or "device"
    path = folder / f"{re.sub('[^0-9TZ]', '', result.created)}-{slug}.json"
    if path.exists():
        raise UserError(f"{path}: exists already; two measurements ended in the same second")
    text = result.model_dump_json(indent=1, exclude_none=True)
    with atomic_path(path) as temporary:
        temporary.write_text(_numbers_on_a_line(text) + "\n", encoding="utf-8")
    return path


def _numbers_on_a_line(text: str) -> str:
    """Join the lines of lists of numbers, thousands of which would each have one to themselves."""
    return re.sub(r"\[\s+[-+.\deE,\s]+\]", lambda found: " ".join(found[0].split()), text)


def read_result(path: Path) -> Result:
    """Read a result; UserError, naming the file, if it is truncated or not a result."""
    try:
        return Result.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{path}: not a result of `make android-bench`: {_first(error)}; remove the file") from error


def parse_report(text: bytes, label: str) -> RunnerReport:
    """Check what the runner wrote; UserError if it is truncated or of another version."""
    try:
        return RunnerReport.model_validate_json(text)
    except ValidationError as error:
        raise UserError(f"{label}: the runner's report is damaged: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    details = error.errors()[0]
    place = ".".join(str(part) for part in details["loc"])
    return f"{place}: {details['msg']}" if place else details["msg"]
