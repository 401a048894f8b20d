"""Stage `quality-eval`: the three distillation losses of every variant on the same held-out text."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.entry import run
from stages.params import Params, load_params

if TYPE_CHECKING:
    from stages.measurement.quality import Forward
    from stages.measurement.variants import Variant

TEACHER = Path("models/bert")
CORPUS = Path("data/corpus")
METRICS = Path("metrics/quality")


def main() -> None:
    """Write a JSON file of losses for each variant, in PyTorch and in ONNX Runtime."""
    params = load_params()

    from tqdm.auto import tqdm

    from stages.artifacts import write_rows
    from stages.measurement.variants import VARIANTS
    from stages.runtime import configure

    configure(params.hardware)
    variants = [variant.require() for variant in VARIANTS]
    losses = losses_of(params)
    bar = tqdm(variants, desc="quality-eval", unit="variant")
    write_rows(METRICS, {variant.name: losses(variant) for variant in bar})


def losses_of(params: Params) -> Any:
    """Prepare teacher and batches; returns the function that measures a variant."""
    from transformers import AutoTokenizer

    from stages.compression.loading import load_masked_lm
    from stages.distillation.corpus import load_blocks
    from stages.distillation.masking import Masking, held_out_batches
    from stages.measurement.quality import Criterion, Vocabulary, losses, torch_forward

    settings, distill = params.quality_eval, params.distill
    teacher, tokenizer = load_masked_lm(TEACHER), AutoTokenizer.from_pretrained(TEACHER)
    train, dev = (
        load_blocks(CORPUS / f"{split}.parquet", tokenizer, distill.block_length) for split in ("train", "dev")
    )
    masking = Masking.of(tokenizer, train.counts, distill.mlm_probability, distill.mlm_smoothing, params.seed)
    batches = held_out_batches(dev, masking, settings.blocks, 1)
    criterion = Criterion(distill.temperature, distill.kl_tokens)

    def measure(variant: "Variant") -> dict[str, float]:
        vocabulary = Vocabulary.between(tokenizer, AutoTokenizer.from_pretrained(variant.checkpoint))
        found = losses(forward(variant, params), torch_forward(teacher), batches, vocabulary, criterion)
        return {name: round(value, 6) for name, value in found.items()}

    return measure


def forward(variant: "Variant", params: Params) -> "Forward":
    """Open a variant in its runtime."""
    from stages.measurement.quality import onnx_forward, torch_forward

    if variant.runtime == "torch":
        from stages.compression.loading import load_masked_lm

        return torch_forward(load_masked_lm(variant.path))
    from stages.deployment.session import open_session

    return onnx_forward(open_session(variant.path, params.hardware.threads))


if __name__ == "__main__":
    run(main)
