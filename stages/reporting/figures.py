"""Figures of the report: size against latency with the loss as colour, and latency by length."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from stages.drawing import INK, PAPER, saved
from stages.reporting.compressed import TITLES, Measurements

SIZE = (8.0, 5.0)  # inches
RING = 2.5  # points
Point = tuple[float, ...]
MARKERS = {"torch": "o", "onnx": "s"}
COLOURS = {"torch": "C1", "onnx": "C0"}


def pareto(found: Measurements, paths: Sequence[Path]) -> None:
    """Draw every variant at its size and latency, coloured by its MLM loss; thick rings: the Pareto front."""
    length = found.middle
    points = {name: point(found, name) for name in found.compression}
    with saved(paths, SIZE, "constrained") as figure:
        axes = figure.subplots()
        best = front(list(points.values()))
        lowest, highest = (f(loss for *_, loss in points.values()) for f in (min, max))
        for runtime, marker in MARKERS.items():
            chosen = [one for name, one in points.items() if name.startswith("onnx") == (runtime == "onnx")]
            chosen.sort(key=lambda one: -one[2])  # the better ones on top and smaller, as some coincide
            areas = np.linspace(330, 70, len(chosen))
            sizes, latencies, losses = zip(*chosen, strict=True)
            rings = [RING if one in best else 0.6 for one in chosen]
            drawn = axes.scatter(
                sizes, latencies, c=losses, vmin=lowest, vmax=highest, cmap="viridis_r", marker=marker, s=areas,
                zorder=3, edgecolors=INK, linewidths=rings,
            )  # fmt: skip
        _annotate(axes, {TITLES[name]: (one[0], one[1]) for name, one in points.items()})
        figure.colorbar(drawn, label="MLM loss (lower is better)")
        axes.set(
            xlabel="size on disk, MiB",
            ylabel=f"latency at {length} tokens, ms (median)",
            ylim=(0, 1.08 * max(one[1] for one in points.values())),
        )
        axes.set_xlim(0, 1.3 * max(one[0] for one in points.values()))
        title = "Size, latency and loss; thick rings: nothing else is as good in all three;"
        axes.set_title(f"{title}\nof marks that coincide the better one lies on top", fontsize=10)


def point(found: Measurements, name: str) -> Point:
    """Return a variant's size, latency and MLM loss, without the digits that say nothing of two models."""
    return round(found.compression[name]["size_mb"], 1), found.latency(name), round(found.quality[name]["mlm_loss"], 3)


def front(points: Sequence[Point]) -> set[Point]:
    """Return the points that no other point is at most equal to in every coordinate."""
    return {
        point
        for point in points
        if not any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points)
    }


def _annotate(axes: Axes, points: dict[str, tuple[float, float]]) -> None:
    """Label points; labels of points that (nearly) coincide are joined, so that they stay readable.

    A label stands on the right of its point, or on the left where another point is in the way.
    """
    width, height = (max(point[i] for point in points.values()) for i in (0, 1))
    groups: list[tuple[tuple[float, float], list[str]]] = []
    for label, point in sorted(points.items(), key=lambda item: (item[1][1], item[1][0])):
        for other, labels in groups:
            if abs(other[0] - point[0]) < 0.12 * width and abs(other[1] - point[1]) < 0.05 * height:
                labels.append(label)
                break
        else:
            groups.append((point, [label]))
    for point, labels in groups:
        hidden = any(
            0 < other[0] - point[0] < 0.35 * width and abs(other[1] - point[1]) < 0.06 * height for other, _ in groups
        )
        axes.annotate(
            "\n".join(reversed(labels)), point, xytext=(-12 if hidden else 12, 0), textcoords="offset points",
            ha="right" if hidden else "left", va="center", fontsize=9,
        )  # fmt: skip


def latency(found: Measurements, paths: Sequence[Path]) -> None:
    """Draw median latency by input length, a line a variant; bars reach to the 90th percentile.

    Colour tells the runtime, a dashed line INT8, an open marker the pruned model.
    """
    with saved(paths, SIZE, "constrained") as figure:
        axes, handles = figure.subplots(), []
        for name, row in found.compression.items():
            lengths = [int(length) for length in row["latency_ms"]]
            middle = [values["p50"] for values in row["latency_ms"].values()]
            upper = [values["p90"] - values["p50"] for values in row["latency_ms"].values()]
            runtime = "onnx" if name.startswith("onnx") else "torch"
            bars = axes.errorbar(
                lengths, middle, yerr=[[0.0] * len(upper), upper], capsize=3,
                marker=MARKERS[runtime], color=COLOURS[runtime],
                linestyle="--" if name.endswith(("int8", "quantized", "combined")) else "-",
                markerfacecolor=PAPER if "pruned" in name or name == "combined" else COLOURS[runtime],
            )  # fmt: skip
            handles.append(bars[0])  # the legend needs no bars
        axes.set(xlabel="tokens", ylabel="latency, ms (median; bar to the 90th percentile)", ylim=(0, None))
        axes.set_xticks(lengths)
        axes.legend(handles, [TITLES[name] for name in found.compression], fontsize=9, handlelength=3.5)
