"""The tables of size, speed, memory and quality of the student's variants, read from metrics/."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts import read_json
from stages.measurement.variants import VARIANTS
from stages.reporting.labels import number, title
from stages.reporting.markdown import DASH, Footnotes, markdown_table
from stages.reporting.published import REPRODUCTION, load_published
from stages.reporting.summary import TEACHER

Rows = Mapping[str, Mapping[str, Any]]
TITLES = {
    "baseline": "PyTorch",
    "quantized": "PyTorch, INT8",
    "pruned": "PyTorch, pruned",
    "combined": "PyTorch, pruned, INT8",
    "onnx_baseline": "ONNX",
    "onnx_baseline_int8": "ONNX, INT8",
    "onnx_pruned": "ONNX, pruned",
    "onnx_pruned_int8": "ONNX, pruned, INT8",
}
PUBLISHED_PARAMETERS = 66_985_530  # of the published compression table: only beside equal ones does it stand


@dataclass(frozen=True)
class Measurements:
    """What the stages after distillation wrote: a mapping from row to figures for each folder of metrics."""

    compression: Rows
    quality: Rows
    onnx: Rows
    speed: Rows
    summary: Mapping[str, Any]
    prune: Mapping[str, Any]

    @property
    def middle(self) -> str:
        """The length, in tokens, that stands for all where a single latency is shown."""
        lengths = [str(length) for length in self.compression["baseline"]["latency_ms"]]
        return lengths[len(lengths) // 2]


def load_measurements(metrics: Path, summary: Path, models: Sequence[str]) -> Measurements:
    """Read the JSON files of the variants and of the given `models`; UserError if one is missing or damaged."""
    names = [variant.name for variant in VARIANTS]
    return Measurements(
        compression={name: read_json(metrics / "compression" / f"{name}.json") for name in names},
        quality={name: read_json(metrics / "quality" / f"{name}.json") for name in names},
        onnx={path.stem: read_json(path) for path in sorted((metrics / "onnx").glob("*.json"))},
        speed={name: read_json(metrics / "speed" / f"{name}.json") for name in models},
        summary=read_json(summary),
        prune=read_json(metrics / "prune.json"),
    )


def render(found: Measurements) -> str:
    """Write the sections of tables.md about compression."""
    return "\n\n".join([_sizes(found), _speeds(found), _quality(found), *_tasks(found), _teacher_speed(found)])


def _pruning(found: Measurements) -> str:
    return f"Pruned: {found.prune['method']}, amount {found.prune['amount']:g}."


def _sizes(found: Measurements) -> str:
    header = ["Variant", "Parameters", "Zeros in Linear weights", "MiB", "of the first", "MiB compressed"]
    first = found.compression["baseline"]["size_mb"]
    rows = [
        [
            TITLES[name],
            f"{row['parameters']:,}",
            f"{100 * row['sparsity']:.1f} %",
            number(row["size_mb"], 2),
            number(row["size_mb"] / first, 2),
            number(row["compressed_mb"], 2),
        ]
        for name, row in found.compression.items()
    ]
    for name, row, size in _published_sizes(found):
        published = f"published: {REPRODUCTION}"
        cells = [number(row["size_mb"], 2), number(row["size_mb"] / size, 2), DASH]
        rows.append([f"{TITLES[name]}, {published}", f"{row['parameters']:,}", DASH, *cells])
        ours = found.compression[name]
        cells = [
            f"{ours['size_mb'] - row['size_mb']:+.2f}",
            f"{(ours['size_mb'] / first - row['size_mb'] / size):+.2f}",
            DASH,
        ]
        rows.append(
            [f"{TITLES[name]} here minus {published}", f"{ours['parameters'] - row['parameters']:+,}", DASH, *cells]
        )
    note = (
        f"{_pruning(found)} Zeros: of the Linear weights without the vocabulary projection, which is the embedding's "
        "matrix. Compressed as a download is (DEFLATE)."
    )
    return f"### Size\n\n{note}\n\n{markdown_table(header, rows)}"


def _published_sizes(found: Measurements) -> list[tuple[str, Mapping[str, Any], float]]:
    """Return published rows, each with its name and the size of the first of them, beside a model of that size."""
    if found.compression["baseline"]["parameters"] != PUBLISHED_PARAMETERS:
        return []
    rows = load_published("reproduction")["compression"]
    first = rows["baseline"]["size_mb"]
    return [(name, row, first) for name, row in rows.items()]


def _speeds(found: Measurements) -> str:
    lengths, middle = list(found.compression["baseline"]["latency_ms"]), found.middle
    header = ["Variant", "load ms", "first inference ms", *(f"ms at {length}" for length in lengths)]
    header += [f"rounds at {middle}", f"p90 at {middle}", "speed-up", "rows/s", "peak MiB"]
    first = found.compression["baseline"]["latency_ms"][middle]["p50"]
    rows = []
    for name, row in found.compression.items():
        spread = found.summary["compression"][name][f"latency_ms.{middle}.p50"]
        cells = [TITLES[name], number(row["load_ms"], 0), number(row["cold_start_ms"], 1)]
        cells += [number(row["latency_ms"][length]["p50"], 1) for length in lengths]
        cells += [f"{spread['low']:.1f} to {spread['high']:.1f}", number(row["latency_ms"][middle]["p90"], 1)]
        cells += [f"{first / row['latency_ms'][middle]['p50']:.2f}x", number(row["throughput"], 1)]
        rows.append([*cells, number(row["peak_memory_mb"], 1)])
    return f"### Speed and memory\n\n{_speed_note(found)}\n\n{markdown_table(header, rows)}"


def _speed_note(found: Measurements) -> str:
    some = found.compression["baseline"]
    return (
        f"{machine_text(found.summary['machine'])} Each model in fresh processes (PyTorch's may be "
        "forks of one that has imported it and run no model), the models taking turns. Latency: median of one row by "
        f"its tokens; at {found.middle} tokens also the lowest and highest round's median, the 90th percentile and the "
        "speed-up over the first variant. Rows a second in batches of "
        f"{some['throughput_batch']} x {some['throughput_length']} tokens. Peak memory: growth of resident memory over "
        "the process before loading, in single inferences; ONNX without the memory arena that its times are taken with."
    )


def machine_text(machine: Mapping[str, Any]) -> str:
    """Say in a sentence what the figures were taken on."""
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    return (
        f"{machine['processor']}, {threads} of {machine['cores']} cores ({machine['instruction_sets']}); "
        f"torch {machine['torch']}, onnxruntime {machine['onnxruntime']}."
    )


def _quality(found: Measurements) -> str:
    keys = {
        "mlm_loss": "MLM loss",
        "distill_loss": "distillation loss",
        "cosine_loss": "cosine loss",
        "accuracy": "masked tokens right",
        "covered": "tokens covered",
    }
    used = [key for key in keys if any(key in row for row in found.quality.values())]
    rows = [
        [TITLES[name], *(number(row[key], 4) if key in row else DASH for key in used)]
        for name, row in found.quality.items()
    ]
    table = markdown_table(["Variant", *(keys[key] for key in used)], rows)
    return f"### Quality\n\nOn the same held-out text, in fp32.\n\n{table}"


def _tasks(found: Measurements) -> list[str]:
    """Return the table of fine-tuned models run through ONNX Runtime, if any were exported."""
    rows, notes = [], Footnotes()
    for name, row in found.onnx.items():
        if "scores" not in row:
            continue
        mark = notes.mark(name.partition("_")[0], row["note"])
        agreement = f"{100 * row['agreement']:.1f} %" if "agreement" in row else DASH
        change = f"{row['difference_low']:+.4f} to {row['difference_high']:+.4f}" if "difference" in row else DASH
        scores = ", ".join(f"{key} {value:.4f}" for key, value in row["scores"].items())
        rows.append([name.replace("_", " ") + mark, number(row["size_mb"], 2), scores, agreement, change])
    if not rows:
        return []
    header = ["Model", "MiB", "scores", "equal answers", "95 % interval of the change"]
    note = "Fine-tuned models on the whole dev set through ONNX Runtime; INT8 beside fp32 of the same model."
    parts = ["### Task models in ONNX Runtime", note, markdown_table(header, rows), notes.text()]
    return ["\n\n".join(part for part in parts if part)]


def _teacher_speed(found: Measurements) -> str:
    slowest = max((row["inference_seconds"] for row in found.speed.values()), default=0.0)
    rows = [
        [
            title(name),
            f"{row['parameters']:,}",
            f"{row['samples']:,}",
            number(row["inference_seconds"], 2),
            f"{slowest / row['inference_seconds']:.2f}x",
        ]
        for name, row in found.speed.items()
    ]
    for name, row, ratio in _published_speeds(found):
        cells = [row["parameters"], "1,000", number(row["seconds"], 2), f"{ratio:.2f}x"]
        rows.append([f"{title(name)}, published: {REPRODUCTION}", *cells])
        if name != TEACHER and name in found.speed:
            difference = slowest / found.speed[name]["inference_seconds"] - ratio
            rows.append(
                [f"{title(name)} here minus published: {REPRODUCTION}", DASH, DASH, DASH, f"{difference:+z.2f}"]
            )
    note = (
        "One pass over the first pairs of STS-B, from text to score with a classification head, one at a time. Times "
        "of different machines do not compare, the speed-up does."
    )
    table = markdown_table(["Model", "Parameters", "Pairs", "Seconds", "Speed-up"], rows)
    return f"### Speed of teacher and student\n\n{note} {machine_text(found.summary['machine'])}\n\n{table}"


def _published_speeds(found: Measurements) -> list[tuple[str, Mapping[str, Any], float]]:
    if found.compression["baseline"]["parameters"] != PUBLISHED_PARAMETERS:
        return []
    rows = load_published("reproduction")["speed"]
    slowest = max(row["seconds"] for row in rows.values())
    return [(name, row, slowest / row["seconds"]) for name, row in rows.items()]
