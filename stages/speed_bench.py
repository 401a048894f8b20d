"""Stage `speed-bench`: size, load time, latency, throughput and memory, every model in fresh processes by turns."""

from pathlib import Path
from typing import Any

from stages.entry import run
from stages.errors import UserError
from stages.params import Params, load_params

METRICS = Path("metrics")
RESULTS = Path("plots/speed-bench")
STSB = Path("data/glue/STS-B")


def main() -> None:
    """Measure, and write metrics/speed, metrics/compression and all rounds with the machine they were taken on."""
    params = load_params()

    from stages.artifacts import write_json
    from stages.measurement.machine import describe
    from stages.runtime import configure

    configure(params.hardware)
    compression, compression_rounds = bench_variants(params)
    speed, speed_rounds = bench_models(params)
    write_folder(METRICS / "compression", compression)
    write_folder(METRICS / "speed", speed)
    write_json(RESULTS / "rounds.json", {"compression": compression_rounds, "speed": speed_rounds})
    write_json(RESULTS / "machine.json", describe(params.speed_bench.threads))


def bench_variants(params: Params) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure every variant of the student; returns the table's rows and all rounds, by name."""
    from stages.artifacts import read_json
    from stages.measurement.compression import measure, row
    from stages.measurement.facts import checkpoint_facts, file_facts, onnx_sparsity
    from stages.measurement.rounds import interleaved
    from stages.measurement.variants import VARIANTS

    settings, facts, vocabulary = params.speed_bench, {}, {}
    for variant in VARIANTS:
        variant.require()
        positions = read_json(variant.checkpoint / "config.json")["max_position_embeddings"]
        _refuse_long(params, positions)
        found = checkpoint_facts(variant.checkpoint if variant.runtime == "onnx" else variant.path)
        vocabulary[variant.name] = found.pop("vocabulary")
        if variant.runtime == "onnx":
            found["sparsity"] = round(onnx_sparsity(variant.path), 4)
        facts[variant.name] = {**file_facts(variant), **found}
    rounds = interleaved(
        VARIANTS,
        settings.rounds,
        lambda variant: measure(variant, vocabulary[variant.name], settings),
        lambda variant: variant.name,
        "speed-bench",
    )
    return {name: row(facts[name], found, settings) for name, found in rounds.items()}, rounds


def _refuse_long(params: Params, positions: int) -> None:
    longest = max(*params.speed_bench.lengths, params.speed_bench.throughput_length)
    if longest > positions:
        raise UserError(f"params.yaml: speed_bench: {longest} tokens exceed the model's {positions} positions")


def bench_models(params: Params) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time a pass over STS-B for every row of `models`; returns the table's rows and all rounds, by name."""
    from stages.finetuning.cells import read_rows
    from stages.measurement import processes
    from stages.measurement.facts import stored_parameters
    from stages.measurement.rounds import interleaved
    from stages.measurement.timing import spread

    settings = params.speed_bench
    rows = read_rows(STSB, "dev")[: settings.stsb_samples]
    specification = {
        "kind": "pairs",
        "threads": settings.threads,
        "warmup": settings.stsb_warmup,
        "pairs": [[row["sentence1"], row["sentence2"]] for row in rows],
    }
    rounds = interleaved(
        list(params.models),
        settings.rounds,
        lambda name: processes.measure({**specification, "path": params.models[name]}, name),
        str,
        "speed-bench STS-B",
    )
    return {
        name: {
            "parameters": stored_parameters(Path(params.models[name])),
            "inference_seconds": spread((found["seconds"] for found in rounds[name]), 3)["median"],
            "samples": len(rows),
        }
        for name in rounds
    }, rounds


def write_folder(folder: Path, rows: dict[str, Any]) -> None:
    """Write a JSON file a row; the folder takes the old one's place when it is complete."""
    from stages.artifacts import atomic_path, write_json

    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name, row in rows.items():
            write_json(temporary / f"{name}.json", row)


if __name__ == "__main__":
    run(main)
