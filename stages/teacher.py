"""Stage `teacher`: a BERT with a masked-language-modelling head and its tokenizer, pre-trained further where asked."""

from pathlib import Path

from stages.core import warm
from stages.core.params import load_params

OUTPUT = Path("models/bert")
CORPUS = Path("data/corpus")


def main() -> None:
    """Load or make the teacher, pre-train it, and write it with its held-out losses and curve."""
    params = load_params()

    from stages.cards.card import shown_parameters
    from stages.cards.checkpoints import teacher_card
    from stages.cards.terms import sources_of_data
    from stages.core.artifacts import write_json
    from stages.core.runtime import configure
    from stages.distillation.corpus import load_blocks
    from stages.distillation.display import Curve
    from stages.distillation.pretraining import pretrain
    from stages.distillation.teachers import resolve, save_teacher

    settings, text = params.teacher, sources_of_data(CORPUS)
    configure(params.hardware, settings.threads)
    start = resolve(settings, CORPUS / "train.parquet", params.seed)
    train, dev = (
        load_blocks(CORPUS / f"{split}.parquet", start.tokenizer, settings.block_length) for split in ("train", "dev")
    )
    result = pretrain(start.model, start.tokenizer, train, dev, params, Curve(Path("plots/teacher")), start.origin)
    card = teacher_card(OUTPUT, settings, shown_parameters(params, "teacher", "seed"), text, result.metrics)
    save_teacher(start, OUTPUT, card)
    write_json(Path("metrics/teacher.json"), result.metrics)
    write_json(Path("data/eval/seconds/teacher.json"), result.seconds)
    result.discard_checkpoints()


if __name__ == "__main__":
    warm.run("stages.teacher")
