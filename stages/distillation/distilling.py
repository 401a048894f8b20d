"""Distillation from checkpoint and corpus to the trained student and what is reported of it."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import DistilBertForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from stages.cards.card import Card
from stages.core.artifacts import atomic_path
from stages.core.errors import UserError
from stages.core.params import Params
from stages.core.reading import load_tokenizer, readable, require_all_weights
from stages.core.runtime import attention_implementation, set_dropout, use_bf16
from stages.distillation.checkpoints import Checkpoints
from stages.distillation.corpus import Blocks, load_blocks
from stages.distillation.display import ProgressBar
from stages.distillation.masking import Draws, Masking, held_out_batches
from stages.distillation.models import BertStates, DistilBertStates, FrozenTeacher
from stages.distillation.objectives import TripleLoss
from stages.distillation.schedule import Schedule
from stages.distillation.student import build_student
from stages.distillation.trainer import BlockTrainer


@dataclass(frozen=True)
class Inputs:
    """The teacher, its tokenizer, and the packed text for training and for the held-out curve."""

    teacher: BertStates
    tokenizer: PreTrainedTokenizerBase
    train: Blocks
    dev: Blocks


@dataclass(frozen=True)
class Result:
    """The student, what it learnt (equal for equal inputs) and how long that took (not)."""

    student: DistilBertForMaskedLM
    metrics: dict[str, Any]
    seconds: dict[str, float]


def load_inputs(teacher: Path, corpus: Path, block_length: int) -> Inputs:
    """Read the teacher and pack the corpus.

    Raises UserError if either is missing or damaged, or if blocks are longer than the teacher's positions.
    """
    with readable(teacher):
        loaded: Any = BertStates.from_pretrained(
            teacher, attn_implementation=attention_implementation(), local_files_only=True, output_loading_info=True
        )
    model, info = loaded
    require_all_weights(teacher, info["missing_keys"])
    if block_length > model.config.max_position_embeddings:
        raise UserError(
            f"params.yaml: distill.block_length {block_length} exceeds the teacher's "
            f"{model.config.max_position_embeddings} positions"
        )
    tokenizer = load_tokenizer(teacher)
    train, dev = (load_blocks(corpus / f"{split}.parquet", tokenizer, block_length) for split in ("train", "dev"))
    return Inputs(model, tokenizer, train, dev)


@dataclass(frozen=True)
class Training:
    """A finished training of a student and how long it took."""

    trainer: BlockTrainer
    seconds: dict[str, float]

    def held_out(self) -> dict[str, float]:
        """Return the last point of the held-out curve."""
        return self.trainer.held_out()[-1]


def distil(inputs: Inputs, params: Params, checkpoints: Checkpoints, callbacks: list[TrainerCallback]) -> Result:
    """Train a student by `distill`, `epochs`, `batch_size` and `seed`, from the latest of `checkpoints`."""
    settings = params.distill
    plain = build_student(inputs.teacher, settings.teacher_layers, settings.student_init, params.seed)
    plain.config._attn_implementation = attention_implementation()
    student = DistilBertStates(plain.config)
    student.load_state_dict(plain.state_dict())
    training = train_student(student, inputs, params, "distill", "distill.learning_rate", checkpoints, callbacks)
    return Result(plain_student(student), _metrics(inputs, params, training), training.seconds)


def train_student(
    student: PreTrainedModel,
    inputs: Inputs,
    params: Params,
    label: str,
    rate: str,
    checkpoints: Checkpoints,
    callbacks: list[TrainerCallback],
) -> Training:
    """Train a student in place with the triple loss; `label` is shown, `rate` is the key of the learning rate."""
    settings, bf16 = params.distill, use_bf16(params.hardware)
    set_dropout(student, settings.dropout)
    schedule = _schedule(params, len(inputs.train), bf16, label, rate)
    masking = student_masking(inputs, params)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective = triple_loss(inputs, params, torch.bfloat16 if bf16 else torch.float32, device)
    draws = Draws(inputs.train, masking, schedule.updates * schedule.effective_batch_size)
    held_out = held_out_batches(inputs.dev, masking, settings.eval_blocks, params.batch_size)
    bar = ProgressBar(schedule.label, schedule.effective_batch_size * settings.block_length)
    trainer = BlockTrainer(student, objective, draws, held_out, schedule, checkpoints, [bar, *callbacks])
    start = time.monotonic()
    trainer.fit()
    seconds = time.monotonic() - start
    return Training(
        trainer, {"seconds": seconds, "tokens_per_second": trainer.tokens_per_second(settings.block_length)}
    )


def student_masking(inputs: Inputs, params: Params) -> Masking:
    """Return the masking of the student's training and held-out text."""
    settings = params.distill
    return Masking.of(
        inputs.tokenizer, inputs.train.counts, settings.mlm_probability, settings.mlm_smoothing, params.seed
    )


def triple_loss(inputs: Inputs, params: Params, compute_dtype: torch.dtype, device: torch.device) -> TripleLoss:
    """Return the loss against the teacher, which moves to the device and computes in `compute_dtype` from then on."""
    settings = params.distill
    return TripleLoss(
        FrozenTeacher(inputs.teacher, compute_dtype, device),
        settings.alpha_distill,
        settings.alpha_mlm,
        settings.alpha_cosine,
        settings.temperature,
        settings.kl_tokens,
    )


def _schedule(params: Params, blocks: int, bf16: bool, label: str, rate: str) -> Schedule:
    settings = params.distill
    return Schedule(
        label=label,
        keys=(rate, "distill.max_grad_norm"),
        updates=math.ceil(params.epochs * blocks / settings.effective_batch_size),
        batch_size=params.batch_size,
        effective_batch_size=settings.effective_batch_size,
        learning_rate=settings.learning_rate,
        warmup_ratio=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=params.seed,
        bf16=bf16,
        evaluations=settings.evaluations,
        save_minutes=settings.save_minutes,
        adam_betas=(settings.adam_beta1, settings.adam_beta2),
        adam_epsilon=settings.adam_epsilon,
    )


def _metrics(inputs: Inputs, params: Params, training: Training) -> dict[str, Any]:
    """Return the last point of the held-out curve and the sizes of what it took."""
    trainer = training.trainer
    return {
        **training.held_out(),
        "updates": trainer.schedule.updates,
        "blocks": len(inputs.train),
        "block_length": params.distill.block_length,
        "tokens": trainer.schedule.updates * trainer.schedule.effective_batch_size * params.distill.block_length,
        "dropped_tokens": inputs.train.dropped_tokens,
        "held_out_blocks": sum(len(batch["input_ids"]) for batch in trainer.batches),
        "parameters": trainer.core.num_parameters(),
        "teacher_parameters": inputs.teacher.num_parameters(),
        "teacher_layers": ",".join(map(str, params.distill.teacher_layers)),
    }


def plain_student(trained: DistilBertStates) -> DistilBertForMaskedLM:
    """Return the trained weights as the class that is published."""
    student = DistilBertForMaskedLM(trained.config)
    student.load_state_dict(trained.state_dict())
    return student


def save_student(student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, card: Card) -> None:
    """Write card, model and tokenizer, which no longer yields the token types that DistilBERT does not take."""
    with atomic_path(folder) as temporary:
        student.save_pretrained(temporary)
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        tokenizer.init_kwargs["model_input_names"] = []  # only what a tokenizer was made with is saved: its attribute
        tokenizer.save_pretrained(temporary)
        card.write(temporary)


def settings_key(params: Params) -> dict[str, Any]:
    """Return what decides the student and its curve beside the data; how often to save does not."""
    return {
        "distill": params.distill.model_dump(exclude={"save_minutes"}),
        "hardware": params.hardware.model_dump(),
        "bf16": use_bf16(params.hardware),  # which `auto` leaves to the machine
        **params.model_dump(include={"epochs", "batch_size", "seed"}),
    }
