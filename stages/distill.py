"""Stage `distill`: a DistilBERT student learns from the teacher by the paper's triple loss."""

from pathlib import Path

from stages.core import warm
from stages.core.params import load_params

TEACHER = Path("models/bert")
STUDENT = Path("models/distilbert")
CORPUS = Path("data/corpus")


def main() -> None:
    """Train the student and write it with its held-out losses and curve."""
    params = load_params()

    from stages.core import processes

    steps = params.distill.effective_batch_size // params.batch_size
    if processes.spread("stages.distill", "distill", params, steps):
        return

    from stages.cards.card import shown_parameters
    from stages.cards.checkpoints import student_card
    from stages.cards.terms import sources_of_data
    from stages.core.artifacts import write_json
    from stages.core.runtime import configure
    from stages.distillation.checkpoints import Checkpoints
    from stages.distillation.display import Curve
    from stages.distillation.distilling import distil, load_inputs, save_student, settings_key

    configure(params.hardware, params.distill.threads)
    text = sources_of_data(CORPUS)
    state = processes.state()
    with state.main_process_first():  # which packs the corpus
        inputs = load_inputs(TEACHER, CORPUS, params.distill.block_length)
    checkpoints = Checkpoints("distill", settings_key(params), inputs.train.key, inputs.dev.key, TEACHER)
    result = distil(inputs, params, checkpoints, [Curve(Path("plots/distill"))] if state.is_main_process else [])
    if not state.is_main_process:
        return
    shown = shown_parameters(params, "distill", "epochs", "batch_size", "seed")
    card = student_card(STUDENT, shown, TEACHER, text, result.metrics)
    save_student(result.student, inputs.tokenizer, STUDENT, card)
    write_json(Path("metrics/distill.json"), result.metrics)
    write_json(Path("data/eval/seconds/distill.json"), result.seconds)
    checkpoints.discard()


if __name__ == "__main__":
    warm.run("stages.distill")
