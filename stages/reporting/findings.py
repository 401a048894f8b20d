"""What the figures amount to: the headline, and the extension's research questions answered from them.

Every sentence is made from the measured rows, so that it also tells when they contradict what was published.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.reporting.choice import choice
from stages.reporting.compressed import Measurements
from stages.reporting.compression_answers import gains, orthogonal
from stages.reporting.devices import FIRST, MEASURED, faster
from stages.reporting.labels import listed, percent, percent_range, times
from stages.reporting.published import gains as published_gains
from stages.reporting.published import load_published
from stages.reporting.statistics import Interval
from stages.reporting.summary import TEACHER, Retained
from stages.reporting.verdicts import agreement, rounds_words

STUDENT = "distilbert"
SMALLEST = "onnx_baseline_int8"
PHONE_SMALLEST = "distilbert_baseline_int8"
# What an app is taken to afford: a download of Google Play's base module, an answer that feels immediate, and memory.
BUDGETS = {"size": (200.0, "MiB"), "latency": (100.0, "ms"), "memory": (512.0, "MiB")}


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


@dataclass(frozen=True)
class Kept:
    """What the student keeps of the teacher on average, its interval, and over how many tasks and seeds."""

    share: Retained
    interval: Interval
    tasks: int
    seeds: int


def headlines(found: Measurements, kept: Kept | None) -> list[Headline]:
    """Name retained quality, size and speed, as few figures as can be remembered; `kept` is None without a teacher."""
    lines = []
    if kept is not None:
        seeds = "one fine-tuning seed" if kept.seeds == 1 else f"{kept.seeds} fine-tuning seeds"
        span = percent_range(kept.interval.low, kept.interval.high)
        label = f"averaged over {kept.tasks} tasks ({seeds}; 95 % interval over the dev rows {span})"
        lines.append(
            Headline(percent(kept.share.corrected), f"of BERT's margin over chance kept by DistilBERT, {label}")
        )
    if {TEACHER, STUDENT} <= found.speed.keys():
        teacher, own = (found.speed[name] for name in (TEACHER, STUDENT))
        lines.append(
            Headline(percent(own["parameters"] / teacher["parameters"]), "of BERT's parameters are DistilBERT's")
        )
        pace = times(teacher["inference_seconds"], own["inference_seconds"])
        lines.append(Headline(pace, "as fast as BERT: DistilBERT, both in PyTorch"))
    share = percent(found.ratio(SMALLEST, "baseline"))
    lines.append(Headline(share, "of the size of DistilBERT's PyTorch checkpoint: its ONNX file in INT8"))
    pace = times(found.latency("baseline"), found.latency(SMALLEST))
    lines.append(Headline(pace, f"as fast: DistilBERT in ONNX INT8 beside PyTorch fp32 ({rounds_words(found)})"))
    return lines


def answers(found: Measurements, android: Mapping[str, Mapping[str, Any]]) -> list[Answer]:
    """Answer the questions of the extension to edge devices, each with a verdict first."""
    return [
        Answer("Does the student run well on the edge?", _edge(found, android)),
        Answer("What are the bottlenecks: size, latency or memory?", _bottlenecks(found)),
        Answer("What do quantization, pruning and both bring?", gains(found)),
        Answer("Is pruning orthogonal to quantization?", orthogonal(found)),
        Answer("Which model to ship?", choice(found)),
    ]


def _edge(found: Measurements, android: Mapping[str, Mapping[str, Any]]) -> str:
    small = found.compression[SMALLEST]
    here = (
        f"As ONNX in INT8 it takes {small['size_mb']:.1f} MiB on disk, {small['peak_memory_mb']:.0f} MiB of memory at "
        f"its peak and {found.latency(SMALLEST):.1f} ms for {found.middle} tokens with "
        f"{found.summary['machine']['threads']} of the {found.summary['machine']['cores']} cores of this machine."
    )
    measured = [row for row in android.values() if row["status"] == MEASURED]
    if not measured:
        first = "**Not known yet: on a phone it was not measured.** What this machine shows is what to expect, no more."
        pace = found.latency("onnx_baseline") / found.latency(SMALLEST)
        return f"{first} {here}\n\n{_published_edge(pace, 'here')}"
    fastest = min(measured, key=lambda row: float(row["p50_ms"]))
    limit = BUDGETS["latency"][0]
    verdict = "Yes" if fastest["p50_ms"] <= limit else "Not at an interactive pace"
    kind = "" if fastest["device_kind"] == "phone" else f", which is no phone but an {fastest['device_kind']}"
    there = (
        f"**{verdict}:** on {fastest['device']}{kind} the fastest model takes {fastest['p50_ms']:.1f} ms for "
        f"{fastest['length']} tokens (what feels immediate: {limit:.0f} ms) and {fastest['peak_memory_mb']:.0f} MiB, "
        f"and agrees with the computer on {percent(fastest['top1_agreement'])} of the most probable tokens."
    )
    ratio = faster(android, PHONE_SMALLEST)
    return f"{there}\n\n{here}\n\n{_published_edge(ratio, 'on this device') if ratio else ''}".rstrip()


def _published_edge(ratio: float, place: str) -> str:
    """Set the gain from INT8 in ONNX Runtime beside the published one on an emulator."""
    rows, theirs = load_published("reproduction")["android"], published_gains()[SMALLEST]["speed"]
    return (
        f"Published: on an emulator INT8 took the median from {rows[FIRST]['p50_ms']:.0f} to "
        f"{rows[PHONE_SMALLEST]['p50_ms']:.0f} ms, {theirs:.1f}x as fast; {place} it is {ratio:.1f}x: "
        f"{agreement(ratio, theirs)}."
    )


def _bottlenecks(found: Measurements) -> str:
    length = list(found.compression["onnx_baseline"]["latency_ms"])[-1]
    fp32, int8 = _uses(found, "onnx_baseline", length), _uses(found, SMALLEST, length)
    limits = ", ".join(f"{name} {limit:.0f} {unit}" for name, (limit, unit) in BUDGETS.items())
    verdict = listed(_over(fp32)).capitalize() or f"None, {_worst(fp32)} comes nearest"
    still = "still " if _worst(int8) == _worst(fp32) else ""
    return (
        f"**{verdict}**: of what an app is taken to afford ({limits}) the student in fp32 ONNX needs {_shares(fp32)}, "
        f"for {length} tokens on this machine. In INT8 {_worst(int8)} is {still}the largest share: {_shares(int8)}. "
        f"{_growth(found)}\n\n{_published_bottleneck(found, fp32)}"
    )


def _uses(found: Measurements, name: str, length: str) -> dict[str, float]:
    """Return the share of each budget that a variant takes, its latency at the longest input."""
    row = found.compression[name]
    needs = {"size": row["size_mb"], "latency": row["latency_ms"][length]["p50"], "memory": row["peak_memory_mb"]}
    return {name: need / BUDGETS[name][0] for name, need in needs.items()}


def _worst(uses: Mapping[str, float]) -> str:
    return max(uses, key=lambda name: uses[name])


def _over(uses: Mapping[str, float]) -> list[str]:
    return [name for name, share in uses.items() if share > 1]


def _shares(uses: Mapping[str, float]) -> str:
    return ", ".join(f"{100 * share:.0f} % of the {name}" for name, share in uses.items())


def _growth(found: Measurements) -> str:
    row = found.compression["onnx_baseline"]
    lengths = list(row["latency_ms"])
    short, long = (row["latency_ms"][length]["p50"] for length in (lengths[0], lengths[-1]))
    return (
        f"{int(lengths[-1]) / int(lengths[0]):.0f} times the tokens take {long / short:.1f} times as long, and loading "
        f"the fp32 file as long as {row['load_ms'] / found.latency('onnx_baseline'):.0f} inferences of {found.middle} "
        "tokens, so that it should be loaded once and kept."
    )


def _published_bottleneck(found: Measurements, ours: Mapping[str, float]) -> str:
    """Judge the published fp32 file by the same budgets; its memory on a device was not published."""
    row = load_published("reproduction")["android"][FIRST]
    uses = {"size": row["size_mb"] / BUDGETS["size"][0], "latency": row["p50_ms"] / BUDGETS["latency"][0]}
    theirs = (
        f"Published, on an emulator: {row['size_mb']:.0f} MiB and {row['p50_ms']:.0f} ms in fp32, {_shares(uses)}, so "
        f"that {listed(_over(uses)) or 'neither'} stood in the way"
    )
    here = _over(ours)
    same = [name for name in here if name in uses] == _over(uses)
    verdict = "ours agrees" if same else f"here {listed(here) or 'none'} {'do' if len(here) > 1 else 'does'}"
    return f"{theirs}; {verdict}, on another machine{'' if found.published_size else ' and for another model'}."
