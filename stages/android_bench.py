"""Command `make android-bench`: measures the exported models on an attached device, and writes one record of it.

It is no stage of the pipeline, which runs without a device; the stage `android-bench-collect` reads the records.
"""

import argparse
import platform
import re
import signal
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from stages.android.adb import choose
from stages.android.agreement import references
from stages.android.bench import Place, measure
from stages.android.bundle import LIBRARY, Bundle, install, open_bundle
from stages.android.device import Device, ThisMachine, work_folder
from stages.android.facts import device_facts, device_kind, device_name, device_state
from stages.android.results import Protocol, Result, Runtime, write_result
from stages.core.entry import run
from stages.core.errors import UserError
from stages.measurement.variants import ONNX_MODELS

ON_A_PHONE = "/data/local/tmp"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m stages.android_bench", description=__doc__)
    add = parser.add_argument
    add("--serial", help="device, if several are attached")
    add("--host", action="store_true", help="run on this machine instead, without adb, to try the runner")
    add("--bundle", type=Path, default=Path("build/android/android-aar"), help="folder that android/build made")
    add("--models", type=Path, default=Path("models/onnx"), help="folder of the ONNX files")
    add("--results", type=Path, default=Path("android/results"), help="folder for the record")
    add("--folder", help=f"place on the device that may run programs ({ON_A_PHONE})")
    add("--threads", type=_count, nargs="+", default=[1], help="thread counts to measure, the first for the table (1)")
    add("--length", type=_count, default=64, help="tokens (64)")
    add("--taskset", type=_mask, help="hexadecimal mask of the cores to run on, for example f0")
    add("--quick", action="store_true", help="32 runs a model rather than 1,024 and 60 s, to try it out")
    add("--timeout", type=_count, default=600, help="seconds for one process beyond its recorded runs' (600)")
    return parser.parse_args()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: want a whole number from 1")
    return int(text)


def _mask(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]+", text):
        raise argparse.ArgumentTypeError(f"{text}: want hexadecimal digits without 0x")
    return text


def protocol(options: argparse.Namespace) -> Protocol:
    """MLPerf Mobile's single stream, at least 1,024 runs and 60 s, or a quick look."""
    shared = {"batch": 1, "length": options.length, "taskset": options.taskset}
    if options.quick:
        return Protocol(name="quick", rounds=2, warmup=2, runs=32, seconds=0.0, **shared)
    return Protocol(name="mlperf", rounds=4, warmup=8, runs=1024, seconds=60.0, **shared)


def main() -> None:
    """Measure, write the record and say where it is."""
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tidy up the device then too
    try:
        path = write_result(bench(options), options.results)
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing was recorded, and the device is clean")
    print(f"{path}: written; `dvc repro android-bench-collect` brings it into the table")


def bench(options: argparse.Namespace) -> Result:
    """Measure the four models on the chosen device."""
    bundle = open_bundle(options.bundle)
    device: Device = ThisMachine() if options.host else choose(options.serial)
    facts = device_facts(device)
    _require_abi(bundle, device, facts.abis)
    how = protocol(options)
    models = references([options.models / f"{name}.onnx" for name in ONNX_MODELS], how.batch, how.length)
    with work_folder(device, options.folder or ("/tmp" if options.host else ON_A_PHONE)) as folder:
        hashes = install(bundle, device, folder)
        before = device_state(device)
        place = Place(device, folder, bundle, hashes[LIBRARY], how, options.timeout)
        found = measure(place, models, list(dict.fromkeys(options.threads)))
        after = device_state(device)
    return Result(
        schema_version=1,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        device_kind=device_kind(facts, is_this_machine=options.host),
        device_name=device_name(facts, platform.machine() if options.host else "adb device"),
        device=facts,
        before=before,
        after=after,
        runtime=Runtime(
            runtime_build=bundle.about.runtime_build, ort_version=found[0].reports[0].ort_version, sha256=hashes
        ),
        protocol=how,
        host={"system": f"{platform.system()} {platform.machine()}", "onnxruntime": version("onnxruntime")},
        models=[contender.result() for contender in found],
    )


def _require_abi(bundle: Bundle, device: Device, abis: list[str]) -> None:
    if bundle.about.abi not in abis:
        raise UserError(f"{device.label}: runs {', '.join(abis)}, but {bundle.folder} is built for {bundle.about.abi}")


if __name__ == "__main__":
    run(main)
