"""Stage `size-bench`: what the files of every variant hold, which takes no quiet machine to tell."""

from concurrent.futures import ThreadPoolExecutor

from stages.core import warm
from stages.core.params import load_params


def main() -> None:
    """Write the size, parameters, zeros and vocabulary of every variant of the student."""
    params = load_params()

    from stages.core.artifacts import write_json
    from stages.core.runtime import configure
    from stages.measurement.facts import SIZES, file_facts, model_facts
    from stages.measurement.variants import VARIANTS

    configure(params.hardware)
    for variant in VARIANTS:
        variant.require()
    models = [model_facts(variant) for variant in VARIANTS]
    with ThreadPoolExecutor(params.hardware.threads) as pool:  # compressing runs outside Python's lock
        files = list(pool.map(file_facts, VARIANTS))
    found = zip(VARIANTS, files, models, strict=True)
    write_json(SIZES, {variant.name: {**file, **model} for variant, file, model in found})


if __name__ == "__main__":
    warm.run("stages.size_bench")
