"""The table of Android devices: what was measured on them, and what was published."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core.artifacts import read_json
from stages.measurement.variants import ONNX_MODELS
from stages.reporting.beside import Beside
from stages.reporting.labels import number
from stages.reporting.markdown import DASH, Footnotes, markdown_table
from stages.reporting.published import FOLDER, REPRODUCTION, PublishedRow, load_published

Rows = Mapping[str, Mapping[str, Any]]
TITLES = dict(zip(ONNX_MODELS, ("fp32", "INT8", "pruned", "pruned, INT8"), strict=True))
FIRST = ONNX_MODELS[0]
MEASURED = "measured"
HOW = (
    "Not measured: no result of the models exported last is in `android/results`. With a phone at hand, "
    "`make android-bench` and `dvc repro` fill this table; `android/README.md` says how."
)
AGREEMENT = (
    "Agreement: of the most probable tokens with the same file's on the computer that the phone was attached to."
)
FIGURES = {"MiB": "size_mb", "average ms": "avg_ms", "p50 ms": "p50_ms", "p90 ms": "p90_ms"}
SIZE, SPEED = "of fp32's MiB", "times fp32's speed"


def load_devices(metrics: Path) -> dict[str, Any]:
    """Read the rows of the exported models; UserError if one is missing or damaged."""
    return {name: read_json(metrics / "android" / f"{name}.json") for name in ONNX_MODELS}


def render(rows: Rows, published_size: bool, folder: Path = FOLDER) -> str:
    """Write the section of tables.md; published rows are marked as such and stand below ours.

    Unless ours are of the `published_size`, only ratios do.
    """
    devices = sorted({device(row) for row in rows.values() if row["status"] == MEASURED})
    columns, notes = [*FIGURES, SIZE, SPEED, "tokens/s", "peak MiB", "agreement"], Footnotes()
    body = [_row(name, rows, len(devices) > 1) for name in rows]
    absolute = FIGURES if published_size else ()
    beside = Beside(columns, _ours(rows), TITLES.__getitem__, absolute, (SIZE, SPEED), {SPEED: "x"})
    body += beside.lines(_published(load_published("reproduction", folder)["android"]), notes)
    note = f"{'; '.join(devices)}. {AGREEMENT}" if devices else HOW
    parts = ["### On Android", note, markdown_table(["Model", *columns], body), notes.text()]
    return "\n\n".join(part for part in parts if part)


def device(row: Mapping[str, Any]) -> str:
    """Say what a row was measured on and how."""
    quick = ", a quick look" if row["protocol"] == "quick" else ""
    threads = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"
    return (
        f"{row['device_kind'].capitalize()}: {row['device']}, ONNX Runtime {row['onnxruntime']} "
        f"({row['runtime_build']}), {threads}, {row['batch']} x {row['length']} tokens{quick}"
    )


def faster(rows: Rows, name: str) -> float | None:
    """Return how many times as fast as fp32 a model is; None unless both were measured in the same way."""
    row, first = rows[name], rows[FIRST]
    if name == FIRST or row["status"] != MEASURED or first["status"] != MEASURED or device(row) != device(first):
        return None
    return float(first["p50_ms"] / row["p50_ms"])


def _row(name: str, rows: Rows, mixed: bool) -> list[str]:
    """Lay out a row; where not all rows are of one device and setting, it names its own."""
    row, share = rows[name], number(rows[name]["size_mb"] / rows[FIRST]["size_mb"], 2)
    if row["status"] != MEASURED:
        return [TITLES[name], number(row["size_mb"], 2), "not measured", DASH, DASH, share, *[DASH] * 4]
    speed = faster(rows, name)
    rest = [
        number(row["tokens_per_second"], 0),
        number(row["peak_memory_mb"], 1),
        f"{100 * row['top1_agreement']:.1f} %",
    ]
    figures = [number(row[key], 2) for key in FIGURES.values()]
    label = f"{TITLES[name]}. {device(row)}" if mixed else TITLES[name]
    return [label, *figures, share, DASH if speed is None else f"{speed:.2f}x", *rest]


def _ours(rows: Rows) -> dict[str, dict[str, float]]:
    ours = {name: {title: row[key] for title, key in FIGURES.items() if key in row} for name, row in rows.items()}
    for name in ours:
        speed, size = faster(rows, name), rows[name]["size_mb"] / rows[FIRST]["size_mb"]
        ours[name] |= {SIZE: size} | ({} if speed is None else {SPEED: speed})
    return ours


def _published(models: Mapping[str, Mapping[str, float]]) -> list[PublishedRow]:
    first, made = models[FIRST], []
    for name, row in models.items():
        ratios = {SIZE: row["size_mb"] / first["size_mb"], SPEED: first["p50_ms"] / row["p50_ms"]}
        figures = {title: row[key] for title, key in FIGURES.items()} | ({} if name == FIRST else ratios)
        made.append(PublishedRow(name, f"{REPRODUCTION}, emulator", figures, 2, "", TITLES[name]))
    return made
