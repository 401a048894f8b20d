"""The figure of the measured latencies; equal records give equal files."""

from pathlib import Path

from matplotlib.axes import Axes

from stages.android.collection import Collection, Configuration, Entry, medians
from stages.drawing import saved

GROUP = 0.8  # width of a model's bars, of 1


def draw(collection: Collection, names: list[str], path: Path) -> None:
    """Draw median latency by model, a bar a configuration, or that nothing is measured."""
    if collection.configurations:
        with saved([path], (8.0, 5.0), "constrained") as figure:
            _bars(figure.subplots(), collection.configurations, names)
    else:
        with saved([path], (8.0, 1.5), "none") as figure:
            figure.text(0.5, 0.5, "Not measured on an Android device yet: android/README.md", ha="center", va="center")


def _bars(axes: Axes, found: dict[Configuration, dict[str, list[Entry]]], names: list[str]) -> None:
    width = GROUP / len(found)
    for number, (configuration, models) in enumerate(found.items()):
        positions, middle, upper = [], [], []
        for place, name in enumerate(names):
            if name in models:
                figures = medians(configuration, models[name])
                positions.append(place - GROUP / 2 + (number + 0.5) * width)
                middle.append(figures["p50_ms"])
                upper.append(figures["p90_ms"] - figures["p50_ms"])
        bars = axes.bar(
            positions, middle, width, yerr=[[0.0] * len(upper), upper], capsize=3, label=configuration.label
        )
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=9)
    axes.set_xticks(range(len(names)), [name.removeprefix("distilbert_").replace("_", " ") for name in names])
    axes.set(ylabel="latency, ms (median; bar to the 90th percentile)", ylim=(0, None))
    axes.figure.legend(loc="outside lower center", fontsize=9)
