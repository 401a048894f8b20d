"""A measurement: the models go to the device, take turns there in fresh processes, and their reports come back."""

import math
import shlex
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from stages.android.agreement import Reference, compare
from stages.android.bundle import LIBRARY, Bundle
from stages.android.device import Device, TimeLimitError, pull_verified, push_verified
from stages.android.results import Agreement, ModelResult, Protocol, Round, RunnerReport, parse_report
from stages.core.errors import UserError
from stages.measurement.rounds import interleaved

REASONS = {
    2: "it does not know an option; build runner and driver from the same commit",
    3: "ONNX Runtime cannot be loaded",
    4: "ONNX Runtime rejects the model",
    5: "the inference fails",
    6: "a file cannot be read or written",
}
SIGNALS = 128  # a shell's exit status for a program that a signal ended is this and the signal's number
KILL = 9


@dataclass
class Contender:
    """A model with a number of threads, and what was found of it so far."""

    reference: Reference
    threads: int
    reports: list[RunnerReport] = field(default_factory=list)
    agreement: Agreement | None = None
    float32_agreement: Agreement | None = None

    @property
    def label(self) -> str:
        """Model and threads, for messages."""
        return f"{self.reference.name}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def result(self) -> ModelResult:
        """Everything that was measured."""
        assert self.agreement is not None
        rounds = [Round(**report.model_dump(include=set(Round.model_fields))) for report in self.reports]
        return ModelResult(
            name=self.reference.name, sha256=self.reference.sha256, threads=self.threads, agreement=self.agreement,
            float32_agreement=self.float32_agreement, rounds=rounds,
        )  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A folder on a device with an installed bundle, how runs are done there, and their time limit in seconds."""

    device: Device
    folder: str
    bundle: Bundle
    library_sha256: str
    protocol: Protocol
    timeout: float


def measure(place: Place, references: Sequence[Reference], threads: Sequence[int]) -> list[Contender]:
    """Push the models, then measure each with each number of threads, in turns over the rounds."""
    for model in tqdm(references, desc=f"{place.device.label}: copying", unit="model", leave=False):
        push_verified(place.device, model.path, f"{place.folder}/{model.name}.onnx")
        _push_input(place, model)
    contenders = [Contender(model, count) for count in threads for model in references]

    def run(order: Sequence[Contender]) -> Generator[dict[str, Any], None, None]:
        for contender in order:
            _run(place, contender)
            yield {}

    interleaved(contenders, place.protocol.rounds, run, lambda contender: contender.label, place.device.label)
    return contenders


def _push_input(place: Place, model: Reference) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "input")
        path.write_bytes(model.input)
        push_verified(place.device, path, f"{place.folder}/{model.name}.input")


def _run(place: Place, contender: Contender) -> None:
    """Run one process and take its report, and in the first round its logits."""
    runs, seconds = remaining(place.protocol, contender.reports)
    label = f"{place.device.label}: {contender.label}"
    limit = place.timeout + seconds
    try:
        answer = place.device.shell(_script(place, contender, runs, seconds), limit)
    except TimeLimitError as error:
        raise UserError(f"{label}: still running after {limit:g} s; --timeout gives a process more time") from error
    if answer.status:
        raise UserError(f"{label}: the runner failed, {reason(answer.status)}: {answer.last_words}")
    with tempfile.TemporaryDirectory() as folder:
        pull_verified(place.device, f"{place.folder}/report.json", Path(folder, "report.json"))
        report = parse_report(Path(folder, "report.json").read_bytes(), label)
        if (report.model_sha256, report.library_sha256) != (contender.reference.sha256, place.library_sha256):
            raise UserError(f"{label}: the runner measured other files than were pushed")
        if contender.agreement is None:
            pull_verified(place.device, f"{place.folder}/logits", Path(folder, "logits"))
            _compare(contender, Path(folder, "logits").read_bytes(), report.logits_shape)
    contender.reports.append(report)


def _compare(contender: Contender, logits: bytes, shape: list[int]) -> None:
    contender.agreement = compare(logits, shape, contender.reference)
    if contender.reference.float32 is not None:
        contender.float32_agreement = compare(logits, shape, contender.reference.float32)


def remaining(protocol: Protocol, reports: Sequence[RunnerReport]) -> tuple[int, float]:
    """Return the next round's recorded runs and seconds: its share of the totals, less what earlier ones overdid."""
    share = (len(reports) + 1) / protocol.rounds
    latencies = [latency for report in reports for latency in report.latencies_ms]
    runs = math.ceil(share * protocol.runs) - len(latencies)
    return max(1, runs), max(0.0, share * protocol.seconds - sum(latencies) / 1000)


def _script(place: Place, contender: Contender, runs: int, seconds: float) -> str:
    """Shell lines that start the runner in place of a shell whose process id is on file, to be ended by it."""
    name, protocol = contender.reference.name, place.protocol
    options = {
        "library": f"./{LIBRARY}",
        "model": f"{name}.onnx",
        "input": f"{name}.input",
        "output": "report.json",
        "logits": "logits",
        "batch": protocol.batch,
        "length": protocol.length,
        "threads": contender.threads,
        "warmup": protocol.warmup,
        "iterations": runs,
        "seconds": seconds,
    }
    arguments = " ".join(f"--{key} {shlex.quote(str(value))}" for key, value in options.items())
    pinned = f"taskset {shlex.quote(protocol.taskset)} " if protocol.taskset else ""
    command = f"{pinned}{place.bundle.about.launch} {arguments}"
    return (
        f"cd {shlex.quote(place.folder)} && rm -f report.json logits && sh -c 'echo $$ >pid; exec \"$@\"' sh {command}"
    )


def reason(status: int) -> str:
    """Say what an exit status of the runner, or of the shell that started it, means."""
    if status == SIGNALS + KILL:
        return "killed, as happens when memory runs out"
    if status > SIGNALS:
        return f"ended by signal {status - SIGNALS}"
    return f"exit status {status}" + (f" ({REASONS[status]})" if status in REASONS else "")
