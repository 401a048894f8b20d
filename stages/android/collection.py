"""From the records in `android/results` to one row a model: which ones count, and medians over those that do.

Only a phone or an emulator counts, and only a model file that is still the exported one. Where records of several
configurations count, the row shows the most telling one: a phone before an emulator, Android's own ONNX Runtime before
glibc's, MLPerf's rule before a quick look, then the newest record's, with the thread count it names first.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from stages.android.results import ModelResult, Result, read_result
from stages.measurement.sizes import MIB
from stages.measurement.timing import percentile

MEASURED, NOT_MEASURED = "measured", "not measured"
ANDROID = ("phone", "emulator")  # the better one first, as in the next two
RUNTIMES = ("android-aar", "linux-glibc", "host")
PROTOCOLS = ("mlperf", "quick")
DIGITS = {
    "tokens_per_second": 1,
    "peak_memory_mb": 1,
    "relative_error": 6,
    "top1_agreement": 4,
    "float32_relative_error": 6,
    "float32_top1_agreement": 4,
}


@dataclass(frozen=True)
class Configuration:
    """What has to be equal for figures to be comparable."""

    device_kind: str
    device: str
    runtime_build: str
    onnxruntime: str
    protocol: str
    threads: int
    batch: int
    length: int
    taskset: str

    @property
    def label(self) -> str:
        """A line for people, which begins with what kind of device it is."""
        pinned = f", cores {self.taskset}" if self.taskset else ""
        quick = ", quick look" if self.protocol == "quick" else ""
        return (
            f"{self.device_kind}: {self.device}, {self.runtime_build}, {self.threads} thread"
            f"{'s' if self.threads > 1 else ''}, {self.length} tokens{pinned}{quick}"
        )


@dataclass(frozen=True)
class Entry:
    """One model of one record that counts."""

    configuration: Configuration
    created: str
    order: int  # of the thread count within the record
    found: ModelResult


@dataclass(frozen=True)
class Collection:
    """What counts, by configuration, the most telling first, then by model; and why the rest does not."""

    configurations: dict[Configuration, dict[str, list[Entry]]]
    skipped: list[str]
    outdated: dict[str, int]  # model -> results of an earlier file of that name


def collect(folder: Path, hashes: Mapping[str, str]) -> Collection:
    """Read every record of a folder against the SHA-256 of the exported models by name.

    Raises UserError, naming the file, for one that is truncated or no record.
    """
    entries: list[Entry] = []
    skipped: list[str] = []
    outdated = dict.fromkeys(hashes, 0)
    for path in sorted(folder.glob("*.json")):
        result = read_result(path)
        if result.device_kind not in ANDROID:
            skipped.append(f"{path}: measured on a {result.device_kind}, which is no Android device: functional only")
            continue
        fresh = [model for model in result.models if hashes.get(model.name) == model.sha256]
        stale = sorted({model.name for model in result.models if model not in fresh})
        if stale:
            skipped.append(f"{path}: of models that are no longer the exported ones: {', '.join(stale)}")
        for name in set(stale) & set(outdated):
            outdated[name] += 1
        entries += _entries(result, fresh)
    return Collection(_by_configuration(entries), skipped, outdated)


def _entries(result: Result, models: Iterable[ModelResult]) -> list[Entry]:
    order = list(dict.fromkeys(model.threads for model in result.models))
    return [
        Entry(_configuration(result, model.threads), result.created, order.index(model.threads), model)
        for model in models
    ]


def _configuration(result: Result, threads: int) -> Configuration:
    how = result.protocol
    return Configuration(
        device_kind=result.device_kind,
        device=result.device_name,
        runtime_build=result.runtime.runtime_build,
        onnxruntime=result.runtime.ort_version,
        protocol=how.name,
        threads=threads,
        batch=how.batch,
        length=how.length,
        taskset=how.taskset or "",
    )


def _by_configuration(entries: Sequence[Entry]) -> dict[Configuration, dict[str, list[Entry]]]:
    newest_first = sorted(sorted(entries, key=lambda entry: entry.order), key=lambda entry: entry.created, reverse=True)
    found: dict[Configuration, dict[str, list[Entry]]] = {}
    for entry in sorted(newest_first, key=lambda entry: _rank(entry.configuration)):
        found.setdefault(entry.configuration, {}).setdefault(entry.found.name, []).append(entry)
    return found


def _rank(configuration: Configuration) -> tuple[int, int, int]:
    return (
        ANDROID.index(configuration.device_kind),
        RUNTIMES.index(configuration.runtime_build),
        PROTOCOLS.index(configuration.protocol),
    )


def row(name: str, size: int, collection: Collection) -> dict[str, Any]:
    """Return a model's metrics: its size in MiB and, if measured, its figures in the most telling configuration."""
    facts: dict[str, Any] = {"size_mb": round(size / MIB, 2)}
    if collection.outdated[name]:
        facts["outdated_results"] = collection.outdated[name]
    for configuration, models in collection.configurations.items():
        if name in models:
            return {"status": MEASURED, **facts, **described(configuration, models[name])}
    return {"status": NOT_MEASURED, **facts}


def described(configuration: Configuration, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return a model's figures in one configuration, rounded, and the configuration."""
    settings = {key: value for key, value in vars(configuration).items() if value != ""}
    figures = {key: round(value, DIGITS.get(key, 2)) for key, value in medians(configuration, entries).items()}
    return {**figures, **settings, "records": len(entries)}


def medians(configuration: Configuration, entries: Sequence[Entry]) -> dict[str, float]:
    """Return the medians of a model's figures over the records of one configuration."""
    each = [_figures(entry.found, configuration.batch * configuration.length) for entry in entries]
    return {key: median(found[key] for found in each) for key in each[0]}


def _figures(result: ModelResult, tokens: int) -> dict[str, float]:
    """Figures of one record, whose runs take `tokens` tokens each.

    Latency is over all recorded runs, loading and memory are medians of the rounds. Peak memory is the growth of
    resident memory over the process before it loaded the model.
    """
    latencies = [latency for found in result.rounds for latency in found.latencies_ms]
    figures = {
        "avg_ms": mean(latencies),
        "p50_ms": percentile(latencies, 0.5),
        "p90_ms": percentile(latencies, 0.9),
        "tokens_per_second": 1000 * tokens / mean(latencies),
        "load_ms": median(found.load_ms for found in result.rounds),
        "cold_start_ms": median(found.cold_start_ms for found in result.rounds),
        "peak_memory_mb": median((found.vm_hwm_kib - found.rss_before_load_kib) / 1024 for found in result.rounds),
        "relative_error": result.agreement.relative_error,
        "top1_agreement": result.agreement.top1_agreement,
    }
    if result.float32_agreement is not None:
        figures["float32_relative_error"] = result.float32_agreement.relative_error
        figures["float32_top1_agreement"] = result.float32_agreement.top1_agreement
    return figures
