"""What is minimised: masked language modelling alone, or the paper's triple loss."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stages.distillation.losses import cosine_loss, held_out_sums, vocabulary_losses
from stages.distillation.masking import Batch
from stages.distillation.models import BertStates, DistilBertStates, FrozenTeacher
from stages.distillation.trainer import Counts


@dataclass(frozen=True)
class MaskedLanguageModelling:
    """Cross-entropy of the masked tokens."""

    compute_dtype: torch.dtype
    parts: tuple[str, ...] = ("loss",)
    sums: int = 4

    def training(self, model: nn.Module, core: BertStates, batch: Batch, counts: Counts) -> tuple[Tensor, Tensor]:
        """Return a micro-batch's share of the mean over the update's masked tokens."""
        _, states = model(batch["input_ids"], _masked(batch))
        losses = vocabulary_losses(
            core.project(states), batch["labels"], mlm_weight=1.0 / counts.masked, compute_dtype=self.compute_dtype
        )
        return losses.weighted, losses.weighted.detach()[None]

    def held_out(self, core: BertStates, batch: Batch) -> Tensor:
        """Sum MLM loss, 0, right predictions and 0."""
        _, states = core(batch["input_ids"], _masked(batch))
        return held_out_sums(core.project(states).cast(self.compute_dtype), batch["labels"])

    def metrics(self, sums: list[float], masked: int, tokens: int) -> dict[str, float]:
        """Return means over the held-out masked tokens."""
        return {"mlm_loss": sums[0] / masked, "accuracy": sums[2] / masked}


@dataclass(frozen=True)
class TripleLoss:
    """Distillation, MLM and cosine losses of Sanh et al. 2019, section 3; means over the tokens that each sees.

    The KL loss is scaled by T ** 2 and averaged over tokens (`batchmean`); the cosine loss sees all tokens.
    """

    teacher: FrozenTeacher
    alpha_distill: float
    alpha_mlm: float
    alpha_cosine: float
    temperature: float
    kl_tokens: Literal["all", "masked"]
    parts: tuple[str, ...] = ("loss", "mlm_loss", "distill_loss", "cosine_loss")
    sums: int = 5

    def training(self, model: nn.Module, core: DistilBertStates, batch: Batch, counts: Counts) -> tuple[Tensor, Tensor]:
        """Return a micro-batch's share of the update's weighted sum, and of each loss."""
        kl_count = counts.tokens if self.kl_tokens == "all" else counts.masked
        positions = self._positions(batch)
        teacher_hidden, teacher = self.teacher(batch["input_ids"], positions)
        hidden, states = model(batch["input_ids"], positions)
        vocabulary = vocabulary_losses(
            core.project(states),
            batch["labels"],
            teacher,
            mlm_weight=self.alpha_mlm / counts.masked,
            kl_weight=self.alpha_distill / kl_count,
            temperature=self.temperature,
            compute_dtype=self.teacher.compute_dtype,
        )
        cosine = cosine_loss(hidden, teacher_hidden) / counts.tokens
        loss = vocabulary.weighted + self.alpha_cosine * cosine
        parts = (loss, vocabulary.mlm / counts.masked, vocabulary.kl / kl_count, cosine)
        return loss, torch.stack([part.detach() for part in parts])

    def held_out(self, core: DistilBertStates, batch: Batch) -> Tensor:
        """Sum MLM loss, KL loss, the student's and the teacher's right predictions, cosine loss."""
        positions = self._positions(batch)
        teacher_hidden, teacher = self.teacher(batch["input_ids"], positions)
        hidden, states = core(batch["input_ids"], positions)
        student = core.project(states).cast(self.teacher.compute_dtype)
        sums = held_out_sums(student, batch["labels"], teacher, self.temperature)
        return torch.cat([sums, cosine_loss(hidden, teacher_hidden)[None]])

    def metrics(self, sums: list[float], masked: int, tokens: int) -> dict[str, float]:
        """Return means over the held-out tokens that each loss sees; accuracies over the masked ones."""
        mlm, kl, right, teacher_right, cosine = sums
        values = {
            "mlm_loss": mlm / masked,
            "distill_loss": kl / (tokens if self.kl_tokens == "all" else masked),
            "cosine_loss": cosine / tokens,
        }
        weights = (self.alpha_mlm, self.alpha_distill, self.alpha_cosine)
        loss = sum(weight * value for weight, value in zip(weights, values.values(), strict=True))
        return {"loss": loss, **values, "accuracy": right / masked, "teacher_accuracy": teacher_right / masked}

    def _positions(self, batch: Batch) -> Tensor:
        return batch["order"] if self.kl_tokens == "all" else _masked(batch)


def _masked(batch: dict[str, Any]) -> Tensor:
    """Return flat positions of the masked tokens (M,)."""
    positions: Tensor = batch["order"][: len(batch["labels"])]
    return positions
