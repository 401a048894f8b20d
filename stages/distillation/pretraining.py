"""Masked-language-modelling pre-training of the teacher: a new head alone first, then everything."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from stages.core.params import Params, Teacher
from stages.core.runtime import set_dropout, use_bf16
from stages.distillation.checkpoints import CHECKPOINTS, Checkpoints
from stages.distillation.corpus import Blocks
from stages.distillation.display import Curve, ProgressBar
from stages.distillation.masking import Batch, Draws, Masking, held_out_batches
from stages.distillation.models import BertStates
from stages.distillation.objectives import MaskedLanguageModelling
from stages.distillation.schedule import Schedule
from stages.distillation.trainer import BlockTrainer

HELD_OUT_BLOCKS = 64
EVALUATIONS = 3  # of each phase
SAVE_MINUTES = 10.0


@dataclass(frozen=True)
class Result:
    """What the held-out curve says (equal for equal inputs), how long it took (not), and the checkpoints to discard."""

    metrics: dict[str, Any]
    seconds: dict[str, float]
    checkpoints: list[Checkpoints]

    def discard_checkpoints(self) -> None:
        """Remove what a resume would have needed."""
        for checkpoints in self.checkpoints:
            checkpoints.discard()


@torch.no_grad()
def initialise_head(model: BertStates) -> None:
    """Start a new MLM head as the identity, so that a state is first compared with the embeddings as it is."""
    transform = model.cls.predictions.transform
    nn.init.eye_(transform.dense.weight)
    nn.init.zeros_(transform.dense.bias)
    nn.init.zeros_(model.cls.predictions.decoder.bias)


def pretrain(
    model: BertStates,
    tokenizer: PreTrainedTokenizerBase,
    train: Blocks,
    dev: Blocks,
    params: Params,
    curve: Curve,
    origin: str,
    root: Path = CHECKPOINTS,
) -> Result:
    """Train `model` in place by `teacher`, resuming where checkpoints of the same settings, data and `origin` are."""
    settings, bf16 = params.teacher, use_bf16(params.hardware)
    set_dropout(model, settings.dropout)
    masking = Masking.of(tokenizer, train.counts, settings.mlm_probability, 0.0, params.seed)
    held_out = held_out_batches(dev, masking, HELD_OUT_BLOCKS, settings.batch_size)
    objective = MaskedLanguageModelling(torch.bfloat16 if bf16 else torch.float32)
    key = (settings.model_dump(), params.hardware.model_dump(), bf16, params.seed, train.key, dev.key, origin)
    start, first = time.monotonic(), 0
    trainers: list[BlockTrainer] = []
    for name, updates, rate in _phases(settings):
        model.requires_grad_(True)
        if name == "head":  # the vocabulary matrix is the embeddings', so only the transform and the biases train
            model.bert.requires_grad_(False)
        schedule = _schedule(settings, name, updates, rate, params.seed, bf16, bool(trainers))
        draws = Draws(train, masking, updates * settings.batch_size, first)
        bar = ProgressBar(schedule.label, settings.batch_size * settings.block_length)
        checkpoints = Checkpoints("teacher", name, *key, root=root)
        trainers.append(BlockTrainer(model, objective, draws, held_out, schedule, checkpoints, [bar, curve]))
        trainers[-1].fit()
        first += len(draws)
    points = [point for trainer in trainers for point in trainer.held_out()] or [_evaluate(objective, model, held_out)]
    speeds = {f"{t.schedule.label}_tokens_per_second": t.tokens_per_second(settings.block_length) for t in trainers}
    return Result(
        _metrics(points, model, settings, train),
        {"seconds": time.monotonic() - start, **speeds},
        [trainer.checkpoints for trainer in trainers],
    )


def _phases(settings: Teacher) -> list[tuple[str, int, float]]:
    """Return name, updates and learning rate of each phase that has any updates."""
    every = (
        ("head", settings.head_steps, settings.head_learning_rate),
        ("all", settings.pretrain_steps - settings.head_steps, settings.learning_rate),
    )
    return [phase for phase in every if phase[1]]


def _schedule(
    settings: Teacher, phase: str, updates: int, rate: float, seed: int, bf16: bool, continues: bool
) -> Schedule:
    return Schedule(
        label=f"teacher.{phase}",
        keys=("teacher.head_learning_rate" if phase == "head" else "teacher.learning_rate", "teacher.max_grad_norm"),
        updates=updates,
        batch_size=settings.batch_size,
        effective_batch_size=settings.batch_size,
        learning_rate=rate,
        warmup_ratio=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=seed,
        bf16=bf16,
        evaluations=EVALUATIONS,
        save_minutes=SAVE_MINUTES,
        continues=continues,
    )


def _evaluate(objective: MaskedLanguageModelling, model: BertStates, held_out: list[Batch]) -> dict[str, float]:
    """Return held-out losses of a teacher that is taken as it is."""
    model.train(False)
    with torch.no_grad():
        sums = sum((objective.held_out(model, batch) for batch in held_out), torch.zeros(objective.sums))
    masked, tokens = (sum(len(batch[name]) for batch in held_out) for name in ("labels", "order"))
    return objective.metrics(sums.tolist(), masked, tokens)


def _metrics(points: list[dict[str, float]], model: BertStates, settings: Teacher, train: Blocks) -> dict[str, Any]:
    """Return the held-out curve's last point, and its first one as `initial_*`."""
    return {
        **points[-1],
        **{f"initial_{name}": value for name, value in points[0].items()},
        "updates": settings.pretrain_steps,
        "blocks": len(train),
        "tokens": settings.pretrain_steps * settings.batch_size * settings.block_length,
        "dropped_tokens": train.dropped_tokens,
        "parameters": model.num_parameters(),
    }
