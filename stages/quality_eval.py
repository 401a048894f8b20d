"""Stage `quality-eval`: the three distillation losses of every variant on the same held-out text."""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.core import warm
from stages.core.params import Params, load_params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from stages.distillation.masking import Batch
    from stages.measurement.quality import Forward
    from stages.measurement.variants import Variant

TEACHER = Path("models/bert")
CORPUS = Path("data/corpus")
METRICS = Path("metrics/quality")
BASELINE = "baseline"


def main() -> None:
    """Write a JSON file of losses and what they differ from the student's by for each variant, in either runtime."""
    params = load_params()

    from tqdm.auto import tqdm

    from stages.core.artifacts import write_rows
    from stages.core.reading import load_tokenizer
    from stages.core.runtime import configure
    from stages.measurement.quality import Criterion, Student, Vocabulary, rows, tallies, torch_forward
    from stages.measurement.variants import VARIANTS
    from stages.modeling.loading import load_masked_lm

    configure(params.hardware)
    variants = [variant.require() for variant in VARIANTS]
    teacher, tokenizer = load_masked_lm(TEACHER), load_tokenizer(TEACHER)
    batches = held_out(params, tokenizer)
    students = {
        variant.name: Student(
            forward(variant, params), Vocabulary.between(tokenizer, load_tokenizer(variant.checkpoint))
        )
        for variant in variants
    }
    bar = tqdm(batches, desc="quality-eval", unit="block")
    criterion = Criterion(params.distill.temperature, params.distill.kl_tokens)
    found = rows(tallies(students, torch_forward(teacher), bar, criterion), BASELINE)
    # `+ 0.0`: an equal variant differs by 0, not by -0
    write_rows(METRICS, {name: {key: round(value, 6) + 0 for key, value in row.items()} for name, row in found.items()})


def held_out(params: Params, tokenizer: "PreTrainedTokenizerBase") -> "list[Batch]":
    """Mask the held-out blocks, one a batch, the same at every call."""
    from stages.distillation.corpus import load_blocks
    from stages.distillation.masking import Masking, held_out_batches

    distill = params.distill
    train, dev = (
        load_blocks(CORPUS / f"{split}.parquet", tokenizer, distill.block_length) for split in ("train", "dev")
    )
    masking = Masking.of(tokenizer, train.counts, distill.mlm_probability, distill.mlm_smoothing, params.seed)
    return held_out_batches(dev, masking, params.quality_eval.blocks, 1)


def forward(variant: "Variant", params: Params) -> "Forward":
    """Open a variant in its runtime."""
    from stages.measurement.quality import onnx_forward, torch_forward

    if variant.runtime == "torch":
        from stages.modeling.loading import load_masked_lm

        return torch_forward(load_masked_lm(variant.path))
    from stages.deployment.session import open_session

    return onnx_forward(open_session(variant.path, params.hardware.threads))


if __name__ == "__main__":
    warm.run("stages.quality_eval")
