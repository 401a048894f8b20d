"""What INT8, pruning and both bring, and whether the one is independent of the other, beside what was published."""

from collections.abc import Mapping
from dataclasses import dataclass

from stages.reporting.compressed import CORPUS, TITLES, Measurements
from stages.reporting.labels import listed, percent
from stages.reporting.markdown import DASH, Footnotes, markdown_table
from stages.reporting.published import gains as published_gains
from stages.reporting.published import load_published
from stages.reporting.verdicts import SAME, agreement, gain, rounds_words, size_words, speed_words

NO_QUALITY = "The weights are random, so that the losses say nothing about quality."
INT8, PRUNED, BOTH = "INT8", "pruning", "both together"
FILES = {INT8: "onnx_baseline_int8", PRUNED: "onnx_pruned", BOTH: "onnx_pruned_int8"}
ADDITIVE = 0.25  # relative difference below which two effects on the loss count as the same


def gains(found: Measurements) -> str:
    """Say what each brings to the ONNX file, then every variant beside the student in the same runtime."""
    brought = {name: _brought(found, file) for name, file in FILES.items()}
    verdict = "; ".join(
        f"{name} {'bring' if name == BOTH else 'brings'} {listed(what) or 'neither size nor speed that is shown'}"
        for name, what in brought.items()
    )
    files = "; ".join(f"{name}: {_words(found, file)}" for name, file in FILES.items())
    note = (
        f"Speed is from {rounds_words(found)}; a dash: no difference shown. The table has what was published: rows a "
        "second in PyTorch, the median latency in ONNX, there on an emulator. Differences of sizes are in points."
    )
    parts = [f"**{verdict[0].upper()}{verdict[1:]}.** In ONNX, beside fp32: {files}.", _published(found), note]
    return "\n\n".join([*parts, _table(found)])


def _base(name: str) -> str:
    """Return what a variant is compared with."""
    return "onnx_baseline" if name.startswith("onnx") else "baseline"


def _brought(found: Measurements, name: str) -> list[str]:
    speed = gain(found, name, _base(name))
    return ["size"] * (found.ratio(name, _base(name)) < 1 - SAME) + ["speed"] * (speed is not None and speed > 1)


def _words(found: Measurements, name: str) -> str:
    words = [size_words(found.ratio(name, _base(name))), speed_words(gain(found, name, _base(name)))]
    if not found.making.random:
        change, interval = found.loss_change(name)
        shown = f"{change:+.3f} MLM loss" if not interval.holds(0.0) else "no change of MLM loss that is shown"
        words.append(shown)
    return listed(words)


def _published(found: Measurements) -> str:
    """Compare size and speed of INT8 with what was published, in either runtime."""
    theirs, parts = published_gains(), []
    for name, place in (("onnx_baseline_int8", "ONNX on an emulator"), ("quantized", "PyTorch")):
        pair = theirs[name]
        size = agreement(found.ratio(name, _base(name)), pair["size"])
        ours = _speed(found, name)
        speed = "no difference shown here" if ours is None else agreement(ours, pair["speed"])
        parts.append(
            f"in {place} {100 * pair['size']:.0f} % of the size ({size}) and {pair['speed']:.1f}x as fast ({speed})"
        )
    return f"Published for INT8: {listed(parts)}; pruning brought neither there."


def _speed(found: Measurements, name: str) -> float | None:
    """Return the gain in the figure that was published: rows a second in PyTorch, latency in ONNX; None: not shown."""
    return gain(found, name, _base(name), "latency" if name.startswith("onnx") else "throughput")


def _table(found: Measurements) -> str:
    notes, header = Footnotes(), ["Variant", "of the size", "published", "difference"]
    header += ["speed", "published", "difference"]
    if not found.making.random:
        mark = notes.mark("held-out text", found.notes[CORPUS])
        header += [f"MLM loss{mark}", f"95 % interval{mark}"]
    header += ["published"] if found.comparable_losses else []
    names = [name for name in found.compression if name != _base(name)]
    table = markdown_table(header, [_row(found, name) for name in names])
    return "\n\n".join(part for part in (table, notes.text()) if part)


def _row(found: Measurements, name: str) -> list[str]:
    theirs, size, speed = published_gains()[name], found.ratio(name, _base(name)), _speed(found, name)
    row = [TITLES[name], percent(size), percent(theirs["size"]), f"{100 * (size - theirs['size']):+z.1f}"]
    row += [DASH if speed is None else f"{speed:.2f}x", f"{theirs['speed']:.2f}x"]
    row += [DASH if speed is None else f"{speed - theirs['speed']:+z.2f}x"]
    if found.making.random:
        return row
    change, interval = found.loss_change(name)
    row += [f"{change:+.3f}", f"{interval.low:+z.3f} to {interval.high:+z.3f}"]
    if not found.comparable_losses:
        return row
    losses = load_published("reproduction")["quality"]
    return [*row, f"{losses[name]['mlm_loss'] - losses['baseline']['mlm_loss']:+.3f}" if name in losses else DASH]


@dataclass(frozen=True)
class Losses:
    """How much each of the two, and both, raise the MLM loss of the student."""

    quantized: float
    pruned: float
    both: float

    @classmethod
    def of(cls, rows: Mapping[str, Mapping[str, float]]) -> "Losses":
        """Read them from the rows of the variants in PyTorch."""
        first = rows["baseline"]["mlm_loss"]
        return cls(*(rows[name]["mlm_loss"] - first for name in ("quantized", "pruned", "combined")))

    @property
    def independent(self) -> bool:
        """Whether the larger effect is the same with and without the other: what both do beyond it is the smaller's."""
        larger = max(abs(self.quantized), abs(self.pruned))
        return abs(self.both - self.quantized - self.pruned) <= ADDITIVE * larger

    def text(self) -> str:
        """Give the figures."""
        return (
            f"INT8 {self.quantized:+.3f}, pruning {self.pruned:+.3f}, both {self.both:+.3f} where the sum would be "
            f"{self.quantized + self.pruned:+.3f}"
        )


def orthogonal(found: Measurements) -> str:
    """Say whether pruning does the same with and without INT8: to size, to speed and to the loss."""
    alone, beside = (found.ratio(*pair) for pair in (("pruned", "baseline"), ("combined", "quantized")))
    fast = [gain(found, *pair) or 1.0 for pair in (("pruned", "baseline"), ("combined", "quantized"))]
    same = {"size": _equal(alone, beside), "speed": _equal(*fast)}
    losses = Losses.of(found.quality)
    if not found.making.random:
        same["quality"] = losses.independent
    parts = [
        _verdict(same, _equal(alone, 1.0) and _equal(fast[0], 1.0)),
        f"Size: pruning leaves {percent(alone)} of the file in fp32 and {percent(beside)} in INT8.",
        f"Speed: {speed_words(gain(found, 'pruned', 'baseline'))} in fp32, "
        f"{speed_words(gain(found, 'combined', 'quantized'))} in INT8 ({rounds_words(found)}).",
        NO_QUALITY if found.making.random else _quality(losses),
    ]
    return f"{' '.join(parts)}{'' if found.making.random else _published_sum(found, losses)}"


def _equal(one: float, other: float) -> bool:
    return abs(one / other - 1) < SAME


def _verdict(same: Mapping[str, bool], nothing: bool) -> str:
    differ = [name for name, equal in same.items() if not equal]
    if differ:
        kept = [name for name in same if name not in differ]
        rest = f"; in {listed(kept)} it does the same with and without" if kept else ""
        return f"**No: in {listed(differ)} pruning does something else with INT8 than without{rest}.**"
    empty = ", though in size and speed only because it is not shown to change either" if nothing else ""
    return f"**Yes: in {listed(list(same))} pruning does the same with INT8 as without{empty}.**"


def _quality(losses: Losses) -> str:
    return f"Quality, by what each adds to the MLM loss: {losses.text()}; these {_sum(losses)}."


def _published_sum(found: Measurements, ours: Losses) -> str:
    """Compare whether the effects add up, which holds between models; how large they are does not."""
    theirs = Losses.of(load_published("reproduction")["quality"])
    agrees = "agrees" if theirs.independent == ours.independent else "contradicts it"
    other = "" if found.comparable_losses else " (another model on other text: only whether they add up compares)"
    return f"\n\nPublished{other}: {theirs.text()}; those {_sum(theirs)}, ours {agrees}."


def _sum(losses: Losses) -> str:
    return "add up" if losses.independent else "do not add up"
