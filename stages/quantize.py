"""Stage `quantize`: the student and the pruned student in dynamic INT8."""

from pathlib import Path

from stages.core import warm
from stages.core.params import load_params

VARIANTS = {"quantized": Path("models/distilbert"), "combined": Path("models/pruned")}
HELD_OUT = Path("data/corpus/dev.parquet")


def main() -> None:
    """Write models/quantized and models/combined, and how far each is from the float model that it was made of."""
    params = load_params()

    from stages.cards.card import shown_parameters
    from stages.cards.checkpoints import quantized_card
    from stages.compression.quantization import load_source, quantize_checkpoint
    from stages.core.artifacts import write_json
    from stages.core.runtime import configure

    configure(params.hardware)
    length = params.distill.block_length
    # All before any is written.
    sources = {name: load_source(folder, HELD_OUT, length) for name, folder in VARIANTS.items()}
    metrics = {}
    for name, folder in VARIANTS.items():
        target = Path("models", name)
        card = quantized_card(target, shown_parameters(params, "quantize"), folder)
        metrics[name] = quantize_checkpoint(sources.pop(name), target, params.quantize.granularity, card)
    write_json(Path("metrics/quantize.json"), metrics)


if __name__ == "__main__":
    warm.run("stages.quantize")
