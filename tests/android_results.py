"""Records of measurements that were never made."""

from collections.abc import Mapping, Sequence

from stages.android.results import (
    Agreement,
    DeviceFacts,
    DeviceState,
    ModelResult,
    Protocol,
    Result,
    Round,
    Runtime,
)


def result(
    hashes: Mapping[str, str],
    kind: str = "phone",
    device: str = "Google Pixel 8",
    runtime: str = "android-aar",
    protocol: str = "mlperf",
    threads: Sequence[int] = (1,),
    latencies: Sequence[list[float]] = ((10.0, 11.0),),  # type: ignore[assignment]
) -> Result:
    state = DeviceState(battery={"level": "80"}, thermal_zones_celsius={}, governors=["schedutil"])
    facts = DeviceFacts(properties={}, abis=["arm64-v8a"], api_level=34, memory_mib=8000, cpu_features="asimddp")
    agreement = Agreement(relative_error=0.03, max_abs_error=0.5, top1_agreement=0.98)
    rounds = [
        Round(
            load_ms=100.0, cold_start_ms=20.0, rss_before_load_kib=1024, vm_hwm_kib=101 * 1024, latencies_ms=list(each)
        )
        for each in latencies
    ]
    return Result(
        schema_version=1,
        created="2026-01-01T00:00:00Z",
        device_kind=kind,  # type: ignore[arg-type]
        device_name=device,
        device=facts,
        before=state,
        after=state,
        runtime=Runtime(runtime_build=runtime, ort_version="1.32.0", sha256={"runner": "a" * 64}),  # type: ignore[arg-type]
        protocol=Protocol(name=protocol, rounds=4, warmup=8, runs=1024, seconds=60.0, batch=1, length=64),  # type: ignore[arg-type]
        host={"system": "Linux x86_64", "onnxruntime": "1.32.0"},
        models=[
            ModelResult(name=name, sha256=sha256, threads=count, agreement=agreement, rounds=rounds)
            for count in threads
            for name, sha256 in hashes.items()
        ],
    )
