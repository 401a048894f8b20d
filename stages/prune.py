"""Stage `prune`: the student with zeros, with fewer heads and columns, or with fewer tokens."""

from pathlib import Path

from stages.core import warm
from stages.core.params import load_params

TEACHER = Path("models/bert")
STUDENT = Path("models/distilbert")
PRUNED = Path("models/pruned")
CORPUS = Path("data/corpus")


def main() -> None:
    """Prune, let the model recover where asked, and write it with its sizes, held-out losses and curve."""
    params = load_params()

    from stages.cards.card import shown_parameters
    from stages.cards.checkpoints import pruned_card
    from stages.cards.terms import sources_of_data
    from stages.compression.pruning import prune
    from stages.compression.recovery import recover, recovery_checkpoints
    from stages.core.artifacts import write_json
    from stages.core.runtime import configure
    from stages.distillation.display import Curve
    from stages.distillation.distilling import load_inputs, save_student
    from stages.modeling.loading import load_masked_lm, parameter_count
    from stages.modeling.zeros import sparsity

    configure(params.hardware, params.distill.threads)
    student, text = load_masked_lm(STUDENT), sources_of_data(CORPUS)
    before = parameter_count(student)
    inputs = load_inputs(TEACHER, CORPUS, params.distill.block_length)
    pruned = prune(student, inputs, params, CORPUS)
    checkpoints = recovery_checkpoints(pruned.inputs, params, STUDENT, TEACHER)
    recovery = recover(pruned.model, pruned.inputs, params, checkpoints, Curve(Path("plots/prune")))
    metrics = {
        "method": params.prune.method,
        "amount": params.prune.amount,
        "parameters_before": before,
        "parameters": parameter_count(pruned.model),
        "sparsity": sparsity(pruned.model),
        **pruned.kept,
        **recovery.metrics,
    }
    own_classes = type(pruned.model).__module__.startswith("stages.")
    shown, data = shown_parameters(params, "prune", "seed"), text if params.prune.recovery_epochs else ()
    card = pruned_card(PRUNED, params.prune, shown, STUDENT, data, metrics, own_classes)
    save_student(pruned.model, pruned.inputs.tokenizer, PRUNED, card)
    write_json(Path("metrics/prune.json"), metrics)
    write_json(Path("data/eval/seconds/prune.json"), recovery.seconds)
    checkpoints.discard()


if __name__ == "__main__":
    warm.run("stages.prune")
