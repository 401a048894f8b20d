"""Stage `quantize`: the student and the pruned student in dynamic INT8."""

from pathlib import Path

from stages import warm
from stages.params import load_params

VARIANTS = {"quantized": Path("models/distilbert"), "combined": Path("models/pruned")}
HELD_OUT = Path("data/corpus/dev.parquet")


def main() -> None:
    """Write models/quantized and models/combined, and how far each is from the float model that it was made of."""
    params = load_params()

    from stages.artifacts import write_json
    from stages.cards.card import shown_parameters
    from stages.cards.checkpoints import quantized_card
    from stages.compression.loading import load_masked_lm
    from stages.compression.quantization import Comparison, quantize_checkpoint
    from stages.runtime import configure

    configure(params.hardware)
    variants = [(name, source, Path("models") / name) for name, source in VARIANTS.items()]
    models = {name: load_masked_lm(source) for name, source in VARIANTS.items()}  # before any is written
    comparison = Comparison(HELD_OUT, params.distill.block_length)
    metrics = {
        name: quantize_checkpoint(
            models.pop(name),
            source,
            target,
            params.quantize.granularity,
            comparison,
            quantized_card(target, shown_parameters(params, "quantize"), source),
        )
        for name, source, target in variants
    }
    write_json(Path("metrics/quantize.json"), metrics)


if __name__ == "__main__":
    warm.run("stages.quantize")
