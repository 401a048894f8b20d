"""Distillation after pruning, with the student's triple loss from the same teacher."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from stages.core.params import Params
from stages.core.runtime import attention_implementation
from stages.distillation.checkpoints import Checkpoints
from stages.distillation.display import Curve
from stages.distillation.distilling import Inputs, settings_key, train_student
from stages.distillation.models import DistilBertStates, StudentStates
from stages.modeling.shrunken import ShrunkenDistilBertForMaskedLM
from stages.modeling.zeros import KeepZeros


class ShrunkenStates(StudentStates, ShrunkenDistilBertForMaskedLM):  # type: ignore[no-untyped-call]
    """A student with fewer heads, whose forward stops before the vocabulary projection."""


@dataclass(frozen=True)
class Recovery:
    """What a recovery reached (equal for equal inputs) and how long it took (not)."""

    metrics: dict[str, Any]
    seconds: dict[str, float]


def with_states(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a student, in evaluation mode, whose forward is what the losses take."""
    config: Any = type(model.config)(**model.config.to_dict())
    config._attn_implementation = attention_implementation()
    shrunken = isinstance(model, ShrunkenDistilBertForMaskedLM)
    copy: PreTrainedModel = ShrunkenStates(config) if shrunken else DistilBertStates(config)
    copy.load_state_dict(model.state_dict())
    copy.train(False)
    return copy


def recovery_params(params: Params) -> Params:
    """Return the parameters of distillation with the length and learning rate of the recovery."""
    distill = params.distill.model_copy(update={"learning_rate": params.prune.recovery_learning_rate})
    return params.model_copy(update={"epochs": params.prune.recovery_epochs, "distill": distill})


def recovery_checkpoints(inputs: Inputs, params: Params, student: Path, teacher: Path) -> Checkpoints:
    """Name the checkpoints by all that the result depends on: settings, text, both models, pruning and the networks."""
    stages = Path(__file__).parents[1]
    sources = sorted([*stages.glob("compression/*.py"), *stages.glob("modeling/*.py")])
    settings = (settings_key(recovery_params(params)), params.prune.model_dump(), params.quality_eval.blocks)
    return Checkpoints("prune", *settings, inputs.train.key, inputs.dev.key, student, teacher, *sources)


def recover(
    model: PreTrainedModel,
    inputs: Inputs,
    params: Params,
    checkpoints: Checkpoints,
    curve: Curve,
) -> Recovery:
    """Train in place for `prune.recovery_epochs`, or only evaluate; returns the held-out losses and the time.

    The losses are the last; after updates also the first, as `before_recovery`. Weights that are zero stay zero.
    """
    trained = with_states(model)
    shortened, rate = recovery_params(params), "prune.recovery_learning_rate"
    training = train_student(trained, inputs, shortened, "prune", rate, checkpoints, [curve, KeepZeros()])
    model.load_state_dict(trained.state_dict())
    updates = training.trainer.schedule.updates
    metrics: dict[str, Any] = {"updates": updates, **training.held_out()}
    if updates:
        metrics["before_recovery"] = training.trainer.held_out()[0]
    return Recovery(metrics, training.seconds)
