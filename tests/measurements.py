"""Made-up results of the stages between distillation and report, for tests of what the report makes of them."""

import json
from pathlib import Path
from typing import Any

TORCH = ("baseline", "quantized", "pruned", "combined")
ONNX = ("baseline", "baseline_int8", "pruned", "pruned_int8")
ROUNDS = 4
GENERATED = "generated, not the published data"
VARIANTS = (*TORCH, *(f"onnx_{name}" for name in ONNX))


def compression(number: int) -> dict[str, Any]:
    """A row that gets smaller and faster with its number."""
    return {
        "size_mb": 100.0 - 10 * number,
        "compressed_mb": 90.0 - 10 * number,
        "parameters": 1_234_567,
        "sparsity": 0.1 * number,
        "load_ms": 50.0 + number,
        "cold_start_ms": 12.0,
        "throughput": 10.0 * (number + 1),
        "peak_memory_mb": 200.0,
        "throughput_batch": 8,
        "throughput_length": 64,
        "latency_ms": {
            str(length): {"p50": length / (number + 1), "p90": 1.1 * length / (number + 1)} for length in (16, 64, 128)
        },
    }


def quality(number: int) -> dict[str, float]:
    """A row of losses that get worse with its number, and of what they differ from the first's by."""
    row = {"mlm_loss": 3.0 + number, "distill_loss": 1.0 + number, "cosine_loss": 0.1, "accuracy": 0.5}
    return row | {"masked_tokens": 400} | (change(number, 0.5) if number else {})


def change(loss: float, half: float) -> dict[str, float]:
    """A difference of MLM loss with an interval of that half width; none of accuracy."""
    found = {"mlm_loss_difference": loss, "mlm_loss_difference_low": loss - half}
    found |= {"mlm_loss_difference_high": loss + half}
    return found | {f"accuracy_difference{end}": 0.0 for end in ("", "_low", "_high")}


def write_measurements(folder: Path, note: str = GENERATED) -> None:
    """Write what `report` reads beside the cells; `note` is what the data sets lack of the official ones."""
    for name in ("corpus", "glue/STS-B"):
        _write(folder / f"data/{name}/dataset.json", {"name": name, "note": note})
    for number, name in enumerate(VARIANTS):
        _write(folder / f"metrics/compression/{name}.json", compression(number))
        _write(folder / f"metrics/quality/{name}.json", quality(number))
    for name in ONNX:
        close = (
            {"relative_error": 0.0721, "top1_agreement": 0.9876} if "int8" in name else {"max_abs_difference": 1.234e-5}
        )
        _write(folder / f"metrics/onnx/distilbert_{name}.json", {"size_mb": 10.0, **close})
    errors = {name: {"logit_error": 0.1499, "top1_agreement": 0.9941} for name in ("quantized", "combined")}
    _write(folder / "metrics/quantize.json", errors)
    task = {"size_mb": 8.0, "scores": {"accuracy": 0.9}, "rows": 100, "note": note}
    change = {
        "relative_error": 0.0766,
        "agreement": 0.985,
        "difference": -0.01,
        "difference_low": -0.03,
        "difference_high": 0.01,
    }
    for model in ("distilbert", "pruned"):
        cell = {"fp32": {**task, "max_abs_difference": 1.3e-6}, "int8": {**task, "size_mb": 2.0, **change}}
        _write(folder / f"data/eval/onnx/SST-2/{model}.json", cell)
    for name, seconds in (("bert", 8.0), ("distilbert", 4.0)):
        row = {"parameters": 2_000_000, "inference_seconds": seconds, "samples": 200}
        _write(folder / f"metrics/speed/{name}.json", row)
    _write(folder / "metrics/prune.json", {"method": "magnitude", "amount": 0.3})
    machine = {
        "processor": "A Processor",
        "memory_gb": 7.5,
        "system": "Linux x86_64",
        "python": "3.11.7",
        "transformers": "5.0.0",
        "onnx": "1.23.0",
        "numpy": "2.4.0",
        "threads": 1,
        "cores": 2,
        "instruction_sets": "avx2 avx512_vnni",
        "torch": "2.13.0",
        "onnxruntime": "1.32.0",
    }
    for split in ("train", "held_out"):
        for loss in ("mlm_loss", "distill_loss", "cosine_loss"):
            path = folder / f"plots/distill/plots/metrics/{split}/{loss}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"step\t{loss}\n0\t3.0\n10\t2.0\n")
    spread = {"latency_ms.64.p50": {"median": 5.0, "low": 4.0, "high": 6.5}, "throughput": {"low": 10.0, "high": 20.0}}
    spreads = dict.fromkeys(VARIANTS, spread)
    _write(folder / "data/eval/speed/summary.json", {"machine": machine, "compression": spreads})
    _write(folder / "data/eval/speed/rounds.json", {"compression": {name: [{}] * ROUNDS for name in VARIANTS}})


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
