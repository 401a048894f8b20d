"""Stage `speed-bench`: load time, latency and throughput, every model in fresh processes by turns."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import warm
from stages.core.errors import UserError
from stages.core.params import Params, load_params

if TYPE_CHECKING:
    from stages.measurement.processes import Request
    from stages.measurement.variants import Variant

METRICS = Path("metrics")
ROUNDS = Path("data/eval/speed/rounds.json")
SUMMARY = Path("data/eval/speed/summary.json")
STSB = Path("data/glue/STS-B")


def main() -> None:
    """Measure, and write metrics/speed, metrics/compression and all rounds with the machine they were taken on."""
    params = load_params()

    from stages.core.artifacts import write_json, write_rows
    from stages.core.runtime import configure
    from stages.measurement.machine import describe
    from stages.measurement.rounds import summarise
    from stages.measurement.timing import spread

    configure(params.hardware)
    pairs, parameters = check(params)
    compression, compression_rounds = bench_variants(params)
    speed, speed_rounds = bench_models(params, pairs, parameters)
    write_rows(METRICS / "compression", compression)
    write_rows(METRICS / "speed", speed)
    write_json(ROUNDS, {"compression": compression_rounds, "speed": speed_rounds})
    spreads = {name: summarise(rounds) for name, rounds in compression_rounds.items()}
    seconds = {name: spread((one["seconds"] for one in rounds), 3) for name, rounds in speed_rounds.items()}
    machine = describe(params.speed_bench.threads)
    write_json(SUMMARY, {"machine": machine, "compression": spreads, "speed": seconds})


def check(params: Params) -> tuple[list[list[str]], dict[str, int]]:
    """Refuse what would fail after minutes of measuring; returns the sentence pairs to be timed, and models' sizes."""
    from stages.finetuning.cells import read_rows
    from stages.measurement.facts import checkpoint_facts
    from stages.measurement.variants import VARIANTS

    longest = max(*params.speed_bench.lengths, params.speed_bench.throughput_length)
    for variant in VARIANTS:
        variant.require().require_positions(longest)
    for name, folder in params.models.items():
        if not Path(folder, "config.json").is_file():
            raise UserError(f"{folder}: holds no checkpoint; `dvc repro` makes it, or take {name} out of `models`")
    rows = read_rows(STSB, "dev")[: params.speed_bench.stsb_samples]
    parameters = {name: checkpoint_facts(Path(folder))["parameters"] for name, folder in params.models.items()}
    return [[row["sentence1"], row["sentence2"]] for row in rows], parameters


def bench_variants(params: Params) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure every variant of the student; returns the table's rows and all rounds, by name."""
    from stages.core.artifacts import read_json
    from stages.measurement.compression import row, timing_request
    from stages.measurement.facts import SIZES
    from stages.measurement.processes import measured
    from stages.measurement.rounds import interleaved
    from stages.measurement.variants import VARIANTS

    settings, facts = params.speed_bench, read_json(SIZES)
    vocabulary = {name: found.pop("vocabulary") for name, found in facts.items()}

    def request(variant: "Variant") -> "Request":
        return timing_request(variant, vocabulary[variant.name], settings)

    rounds = interleaved(
        VARIANTS,
        settings.rounds,
        lambda order: measured(map(request, order)),
        lambda variant: variant.name,
        "speed-bench",
    )
    return {name: row(facts[name], found, settings) for name, found in rounds.items()}, rounds


def bench_models(
    params: Params, pairs: list[list[str]], parameters: dict[str, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time a pass over sentence pairs for every row of `models`; returns the table's rows and all rounds, by name."""
    from stages.measurement.processes import measured
    from stages.measurement.rounds import interleaved
    from stages.measurement.timing import spread

    settings = params.speed_bench
    specification = {"kind": "pairs", "threads": settings.threads, "warmup": settings.stsb_warmup, "pairs": pairs}

    def request(name: str) -> "Request":
        return {**specification, "path": params.models[name]}, name

    rounds = interleaved(
        list(params.models),
        settings.rounds,
        lambda order: measured(map(request, order)),
        str,
        "speed-bench STS-B",
    )
    return {
        name: {
            "parameters": parameters[name],
            "inference_seconds": spread((found["seconds"] for found in rounds[name]), 3)["median"],
            "samples": len(pairs),
        }
        for name in rounds
    }, rounds


if __name__ == "__main__":
    warm.run("stages.speed_bench")
