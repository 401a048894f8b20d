"""Which variant to ship: from the Pareto front of size, latency and loss, without those that are shown to be worse."""

from collections.abc import Sequence

from stages.reporting.compressed import TITLES, Measurements
from stages.reporting.exported import Exported
from stages.reporting.figures import front, point
from stages.reporting.labels import listed
from stages.reporting.published import load_published
from stages.reporting.verdicts import gain, rounds_words

TOLERATED = 0.1  # of MLM loss: a perplexity 11 % higher


def choice(found: Measurements) -> str:
    """Name one variant, why it is the one, and what the figures cannot tell."""
    if found.making.random:
        return (
            f"**{TITLES[choose(found, list(found.compression))]}, if size and speed were all.** The weights are "
            "random, so that quality says nothing; a profile that trains answers this."
        )
    good = [name for name in found.compression if found.loss_change(name)[1].low <= TOLERATED]
    best = [name for name in good if point(found, name) in front([point(found, other) for other in good])]
    chosen = choose(found, best)
    parts = [_verdict(found, chosen), _candidates(found, good, best), _reason(found, chosen, best)]
    return f"{' '.join(parts)}\n\n{_tasks(found, chosen)} A task of your own may see it otherwise."


def choose(found: Measurements, candidates: Sequence[str]) -> str:
    """Take the fastest; of those that are not shown to be slower an ONNX file before others, then the smallest.

    Then one whose loss is not shown to be higher, then one that is not pruned, which is the simpler to make.
    """
    fastest = min(candidates, key=found.latency)
    equal = [name for name in candidates if gain(found, name, fastest) is None]
    return min(
        equal,
        key=lambda name: (
            not name.startswith("onnx"),
            found.compression[name]["size_mb"],
            not found.making.random and not found.loss_change(name)[1].holds(0.0),
            "pruned" in name or name == "combined",
        ),
    )


def _smallest(found: Measurements, names: Sequence[str]) -> str:
    return min(names, key=lambda name: (found.compression[name]["size_mb"], found.latency(name)))


def _verdict(found: Measurements, chosen: str) -> str:
    row = found.compression[chosen]
    return (
        f"**{TITLES[chosen]}**: {row['size_mb']:.1f} MiB and {found.latency(chosen):.1f} ms for {found.middle} tokens "
        f"({rounds_words(found)})."
    )


def _candidates(found: Measurements, good: Sequence[str], best: Sequence[str]) -> str:
    worse = [name for name in found.compression if name not in good]
    out = f"{listed([f'*{TITLES[name]}*' for name in worse])} {_are(worse)}" if worse else "No variant is"
    unsure = [name for name in best if found.loss_change(name)[1].high > TOLERATED]
    names = listed([TITLES[name] for name in unsure])
    more = f" These tokens do not tell whether {names} {_are(unsure)} within it; more `quality_eval.blocks` would."
    return (
        f"{out} shown to have an MLM loss more than {TOLERATED:g} above the student's (95 % interval, paired, "
        f"{found.masked_tokens:,} masked tokens). Of the other variants, nothing is as good in size, latency and loss "
        f"at once as {listed([f'*{TITLES[name]}*' for name in best])}.{more if unsure else ''}"
    )


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _reason(found: Measurements, chosen: str, best: Sequence[str]) -> str:
    change, interval = found.loss_change(chosen)
    equal = [name for name in best if name != chosen and gain(found, name, chosen) is None]
    if chosen == "baseline":
        loss = "It is the student itself."
    elif interval.holds(0.0):
        loss = "In loss it cannot be told apart from the student."
    else:
        loss = f"Its loss is {change:+.3f} ({interval.low:+.3f} to {interval.high:+.3f}) beside the student's."
    speed = f" In speed it cannot be told apart from {listed([TITLES[name] for name in equal])}." if equal else ""
    phone = (
        " It is an ONNX file, which ONNX Runtime takes on a phone as it is."
        if chosen.startswith("onnx")
        else f" A phone needs an ONNX file, such as *{TITLES[_phone(found, best)]}*."
    )
    fastest = min(best, key=found.latency) == chosen
    first = "It is the fastest of these." if fastest else "None of these is shown to be faster."
    return f"{first} {loss}{speed}{phone}"


def _phone(found: Measurements, best: Sequence[str]) -> str:
    """Name the ONNX file that comes nearest."""
    files = [name for name in best if name.startswith("onnx")]
    return _smallest(found, files or [name for name in found.compression if name.startswith("onnx")])


def _tasks(found: Measurements, chosen: str) -> str:
    """Cite what INT8 changes in the fine-tuned models, beside what was published for DistilBERT."""
    if not chosen.endswith("int8"):
        return ""
    published = load_published("peers")["int8_onnxruntime_xeon"]
    theirs = {"SST-2": published["sst2"], "SQuAD": published["squad_f1"]}
    checkpoint, parts, lost = chosen.removeprefix("onnx_").removesuffix("_int8"), [], []
    for task, figures in theirs.items():
        row = found.onnx.get(Exported(task, checkpoint, int8=True), {})
        if "difference" in row:
            unit = 100 if task == "SST-2" else 1
            low, high = (unit * row[f"difference_{end}"] for end in ("low", "high"))
            told = "no difference shown" if low <= 0 <= high else "a difference that is shown"
            lost += [task] if high < 0 else []
            parts.append(
                f"{task} {low:+z.1f} to {high:+z.1f} points, {told} "
                f"(published: {figures['int8'] - figures['fp32']:+.1f})"
            )
    if not parts:
        return ""
    better = f" For tasks like {listed(lost)} the fp32 file is the better one." if lost else ""
    return f"In fine-tuned models INT8 changes {listed(parts)}; these intervals are paired, too.{better}"
