"""The table of Android devices: what was measured on them, and what was published."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.artifacts import read_json
from stages.measurement.variants import ONNX_MODELS
from stages.reporting.labels import number
from stages.reporting.markdown import DASH, markdown_table
from stages.reporting.published import FOLDER, REPRODUCTION, load_published

TITLES = dict(zip(ONNX_MODELS, ("fp32", "INT8", "pruned", "pruned, INT8"), strict=True))
MEASURED = "measured"
HOW = (
    "Not measured: no result of the models exported last is in `android/results`. With a phone at hand, "
    "`make android-bench` and `dvc repro` fill this table; `android/README.md` says how."
)
AGREEMENT = (
    "Agreement: of the most probable tokens with the same file's on the computer that the phone was attached to."
)


def load_devices(metrics: Path) -> dict[str, Any]:
    """Read the rows of the exported models; UserError if one is missing or damaged."""
    return {name: read_json(metrics / "android" / f"{name}.json") for name in ONNX_MODELS}


def render(rows: Mapping[str, Mapping[str, Any]], folder: Path = FOLDER) -> str:
    """Write the section of tables.md; published rows are marked as such and stand below ours."""
    measured = [row for row in rows.values() if row["status"] == MEASURED]
    header = ["Model", "MiB", "average ms", "p50 ms", "p90 ms", "tokens/s", "peak MiB", "agreement"]
    devices = sorted({_device(row) for row in measured})
    body = [_row(TITLES[name], row, len(devices) > 1) for name, row in rows.items()]
    body += _published(load_published("reproduction", folder)["android"])
    note = f"{'; '.join(devices)}. {AGREEMENT}" if devices else HOW
    return f"### On Android\n\n{note}\n\n{markdown_table(header, body)}"


def _device(row: Mapping[str, Any]) -> str:
    quick = ", a quick look" if row["protocol"] == "quick" else ""
    threads = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"
    return (
        f"{row['device_kind'].capitalize()}: {row['device']}, ONNX Runtime {row['onnxruntime']} "
        f"({row['runtime_build']}), {threads}, {row['batch']} x {row['length']} tokens{quick}"
    )


def _row(title: str, row: Mapping[str, Any], mixed: bool) -> list[str]:
    """Lay out a row; where not all rows are of one device and setting, it names its own."""
    if row["status"] != MEASURED:
        return [title, number(row["size_mb"], 2), "not measured", *[DASH] * 5]
    figures = [number(row[key], 2) for key in ("size_mb", "avg_ms", "p50_ms", "p90_ms")]
    rest = [
        number(row["tokens_per_second"], 0),
        number(row["peak_memory_mb"], 1),
        f"{100 * row['top1_agreement']:.1f} %",
    ]
    return [f"{title}. {_device(row)}" if mixed else title, *figures, *rest]


def _published(models: Mapping[str, Mapping[str, float]]) -> Sequence[list[str]]:
    return [
        [
            f"{TITLES[name]}, published: {REPRODUCTION}, emulator",
            *(number(row[key], 2) for key in ("size_mb", "avg_ms", "p50_ms", "p90_ms")),
            *[DASH] * 3,
        ]
        for name, row in models.items()
    ]
