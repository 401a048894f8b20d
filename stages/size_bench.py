"""Stage `size-bench`: what every variant takes on disk and in memory, which takes no quiet machine to tell."""

from concurrent.futures import ThreadPoolExecutor

from stages.core import warm
from stages.core.params import load_params


def main() -> None:
    """Write the size, parameters, zeros, vocabulary and peak memory of every variant of the student."""
    params = load_params()

    from stages.core.artifacts import write_json
    from stages.core.runtime import configure
    from stages.measurement.compression import peak_memory
    from stages.measurement.facts import SIZES, checkpoint_facts, file_facts, model_facts
    from stages.measurement.variants import VARIANTS, Variant

    configure(params.hardware)
    for variant in VARIANTS:
        variant.require().require_positions(max(params.speed_bench.lengths))
    checkpoints = {folder: checkpoint_facts(folder) for folder in sorted({variant.checkpoint for variant in VARIANTS})}
    facts = {variant: model_facts(variant, checkpoints[variant.checkpoint]) for variant in VARIANTS}

    def measured(variant: Variant) -> tuple[dict[str, float], float]:
        return file_facts(variant), peak_memory(variant, facts[variant]["vocabulary"], params.speed_bench)

    with ThreadPoolExecutor(params.hardware.threads) as pool:  # all of it runs outside Python's lock
        found = zip(VARIANTS, pool.map(measured, VARIANTS), strict=True)
        sizes = {
            variant.name: {**files, **facts[variant], "peak_memory_mb": memory} for variant, (files, memory) in found
        }
    write_json(SIZES, sizes)


if __name__ == "__main__":
    warm.run("stages.size_bench")
