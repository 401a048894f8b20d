"""What the figures amount to: the headline, and the extension's research questions answered from them.

Every sentence is made from the measured rows, so that it also tells when they contradict what was published.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.reporting.cells import Results
from stages.reporting.compressed import TITLES, Measurements
from stages.reporting.devices import MEASURED
from stages.reporting.labels import percent
from stages.reporting.markdown import markdown_table
from stages.reporting.summary import TEACHER, Retained

STUDENT = "distilbert"
SMALLEST = "onnx_baseline_int8"
TOLERATED = 0.01  # share of the masked tokens that a shipped model may predict worse than the student
NEGLIGIBLE = 0.1  # share of the larger effect below which the smaller one says nothing of their sum
ADDITIVE = 0.25  # relative difference below which two effects count as adding up
FEW_ROWS = 1000


@dataclass(frozen=True)
class Headline:
    """A figure in large type: its value and what it is."""

    value: str
    label: str


@dataclass(frozen=True)
class Answer:
    """A question and what the figures say, in Markdown."""

    question: str
    text: str


def headlines(found: Measurements, share: Retained | None) -> list[Headline]:
    """Name retained quality, size and speed, as few figures as can be remembered; `share` is None without a teacher."""
    student, small = found.compression["baseline"], found.compression[SMALLEST]
    lines = []
    if share is not None:
        lines.append(Headline(percent(share.corrected), "of BERT's margin over chance, averaged over the tasks"))
    if {TEACHER, STUDENT} <= found.speed.keys():
        teacher, own = (found.speed[name] for name in (TEACHER, STUDENT))
        lines.append(Headline(percent(own["parameters"] / teacher["parameters"]), "of BERT's parameters"))
        lines.append(Headline(_times(teacher["inference_seconds"], own["inference_seconds"]), "as fast as BERT"))
    lines.append(Headline(percent(small["size_mb"] / student["size_mb"]), "of its size as ONNX in INT8"))
    pace = _times(_latency(found, "baseline"), _latency(found, SMALLEST))
    lines.append(Headline(pace, "as fast in ONNX INT8 as in PyTorch fp32"))
    return lines


def _times(larger: float, smaller: float) -> str:
    return f"{larger / smaller:.1f}x"


def _latency(found: Measurements, name: str) -> float:
    return float(found.compression[name]["latency_ms"][found.middle]["p50"])


def answers(found: Measurements, android: Mapping[str, Mapping[str, Any]]) -> list[Answer]:
    """Answer the questions of the extension to edge devices."""
    return [
        Answer("Does the student run well on the edge?", _edge(found, android)),
        Answer("What are the bottlenecks: size, latency or memory?", _bottlenecks(found)),
        Answer("What do quantization, pruning and both bring?", _gains(found)),
        Answer("Is pruning orthogonal to quantization?", _orthogonal(found)),
        Answer("Which model to ship?", _choice(found)),
    ]


def _edge(found: Measurements, android: Mapping[str, Mapping[str, Any]]) -> str:
    small = found.compression[SMALLEST]
    here = (
        f"As ONNX in INT8 it takes {small['size_mb']:.1f} MiB on disk, {small['peak_memory_mb']:.0f} MiB of memory at "
        f"its peak and {_latency(found, SMALLEST):.1f} ms for {found.middle} tokens, measured with "
        f"{found.summary['machine']['threads']} of the {found.summary['machine']['cores']} cores of this machine."
    )
    measured = [row for row in android.values() if row["status"] == MEASURED]
    if not measured:
        return f"{here} On a phone it was not measured yet, so that this says what to expect and no more."
    fastest = min(measured, key=lambda row: float(row["p50_ms"]))
    return (
        f"{here} On {fastest['device']} ({fastest['device_kind']}) the fastest model takes {fastest['p50_ms']:.1f} ms "
        f"and {fastest['peak_memory_mb']:.0f} MiB, and agrees with the computer on "
        f"{percent(fastest['top1_agreement'])} of the most probable tokens."
    )


def _bottlenecks(found: Measurements) -> str:
    row = found.compression["onnx_baseline"]
    lengths = list(row["latency_ms"])
    short, long = (row["latency_ms"][length]["p50"] for length in (lengths[0], lengths[-1]))
    loads = row["load_ms"] / _latency(found, "onnx_baseline")
    growth = f"{int(lengths[-1]) / int(lengths[0]):.0f} times the tokens take {long / short:.1f} times as long"
    return (
        f"In fp32 ONNX, loading takes as long as {loads:.0f} inferences of {found.middle} tokens, {growth}, and peak "
        f"memory is {row['peak_memory_mb'] / row['size_mb']:.1f} times the file. "
        f"The file itself is {row['size_mb']:.0f} MiB, of which compression for a download saves "
        f"{percent(1 - row['compressed_mb'] / row['size_mb'])}."
    )


def _gains(found: Measurements) -> str:
    rows = []
    for base in ("baseline", "onnx_baseline"):
        rows += [_gain(found, name, base) for name in found.compression if _base(name) == base]
    header = ["Variant", "of the size", "speed", "masked tokens right, points"]
    return (
        "Beside the student in the same runtime, in fp32. *Within noise*: the latencies' ranges over the rounds "
        f"overlap.\n\n{markdown_table(header, rows)}"
    )


def _base(name: str) -> str | None:
    """Return what a variant is compared with."""
    if name in ("baseline", "onnx_baseline"):
        return None
    return "onnx_baseline" if name.startswith("onnx") else "baseline"


def _gain(found: Measurements, name: str, base: str) -> list[str]:
    points = 100 * (found.quality[name]["accuracy"] - found.quality[base]["accuracy"])
    key = f"latency_ms.{found.middle}.p50"
    ours, theirs = (found.summary["compression"][variant][key] for variant in (name, base))
    equal = ours["low"] <= theirs["high"] and theirs["low"] <= ours["high"]
    speed = "within noise" if equal else f"{_latency(found, base) / _latency(found, name):.2f}x"
    return [TITLES[name], percent(_ratio(found, name, base)), speed, f"{points:+.1f}"]


def _orthogonal(found: Measurements) -> str:
    loss = {name: found.quality[name]["distill_loss"] for name in ("baseline", "quantized", "pruned", "combined")}
    quantized, pruned, both = (loss[name] - loss["baseline"] for name in ("quantized", "pruned", "combined"))
    download = found.compression["pruned"]["compressed_mb"] / found.compression["baseline"]["compressed_mb"]
    files = [percent(share) for share in (_ratio(found, "pruned", "baseline"), _ratio(found, "combined", "quantized"))]
    return (
        f"Quantization changes the distillation loss by {quantized:+.4f}, pruning by {pruned:+.4f}, both together by "
        f"{both:+.4f}: {_verdict(quantized, pruned, both)}. Pruning leaves {files[0]} of the file in fp32, {files[1]} "
        f"of it in INT8, and {percent(download)} of a compressed download in fp32."
    )


def _verdict(quantized: float, pruned: float, both: float) -> str:
    """Say whether two changes of a loss add up, where both are large enough to tell."""
    less, more = sorted((abs(quantized), abs(pruned)))
    if less < NEGLIGIBLE * more:
        return "one of them does nearly all of it, so that this says little about their sum"
    same = abs(both - quantized - pruned) <= ADDITIVE * max(abs(quantized + pruned), abs(both))
    return "the two effects add up" if same else "the two effects do not simply add up"


def _ratio(found: Measurements, name: str, base: str) -> float:
    return float(found.compression[name]["size_mb"] / found.compression[base]["size_mb"])


def _choice(found: Measurements) -> str:
    needed = found.quality["baseline"]["accuracy"] - TOLERATED
    good = [name for name in found.compression if found.quality[name]["accuracy"] >= needed]
    best = min(good, key=lambda name: _latency(found, name))
    row = found.compression[best]
    return (
        f"{TITLES[best]}: of the {len(good)} variants that predict at most {100 * TOLERATED:.0f} point fewer of the "
        f"masked tokens than the student, it is the fastest, with {_latency(found, best):.1f} ms for {found.middle} "
        f"tokens and {row['size_mb']:.1f} MiB. A task of your own may see it otherwise."
    )


def warnings(results: Results) -> list[str]:
    """Say plainly where the counts make differences meaningless."""
    lines = []
    small = [task for task in results.all_tasks() if results.first(task).dev_rows < FEW_ROWS]
    if small:
        lines.append(
            f"Fewer than {FEW_ROWS:,} dev rows ({', '.join(small)}): differences of a few points there lie within the "
            "95 % intervals and mean nothing."
        )
    if results.all_tasks() and len(results.seeds) == 1:
        lines.append(
            "One fine-tuning seed: what another seed would change is not known; `seeds` in params.yaml takes several."
        )
    return lines
