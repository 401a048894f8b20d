"""The training step of Sanh et al. 2019 as its published code does it: all logits at once, masked copies, many syncs.

It is what our own is compared with, for speed (`distillation.py`) and for equal losses and gradients (the tests).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertForMaskedLM, DistilBertForMaskedLM

IGNORED = -100  # label of a token that the MLM loss does not see


@dataclass(frozen=True)
class Weights:
    """Of the three losses, the temperature of the KL loss, and whether it sees the masked tokens alone."""

    distill: float = 5.0
    mlm: float = 2.0
    cosine: float = 1.0
    temperature: float = 2.0
    masked_only: bool = False


def plain_labels(input_ids: Tensor, order: Tensor, labels: Tensor) -> Tensor:
    """Return labels (B, L) of a batch whose first `len(labels)` flat positions of `order` are masked."""
    spread = torch.full_like(input_ids, IGNORED)
    spread.view(-1)[order[: len(labels)]] = labels
    return spread


def plain_losses(
    student: DistilBertForMaskedLM, teacher: BertForMaskedLM, input_ids: Tensor, labels: Tensor, weights: Weights
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the weighted sum and the KL, MLM and cosine losses of blocks (B, L) without padding."""
    attention_mask = torch.ones_like(input_ids)
    with torch.no_grad():
        taught = teacher(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
    learnt = student(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
    vocabulary = learnt.logits.size(-1)
    seen = labels > IGNORED if weights.masked_only else attention_mask.bool()
    mask = seen.unsqueeze(-1).expand_as(learnt.logits)
    student_logits = torch.masked_select(learnt.logits, mask).view(-1, vocabulary)
    teacher_logits = torch.masked_select(taught.logits, mask).view(-1, vocabulary)
    kl = functional.kl_div(
        functional.log_softmax(student_logits / weights.temperature, dim=-1),
        functional.softmax(teacher_logits / weights.temperature, dim=-1),
        reduction="batchmean",
    )
    kl = kl * weights.temperature**2
    mlm = functional.cross_entropy(learnt.logits.view(-1, vocabulary), labels.view(-1), ignore_index=IGNORED)
    student_hidden, teacher_hidden = learnt.hidden_states[-1], taught.hidden_states[-1]
    mask = attention_mask.bool().unsqueeze(-1).expand_as(student_hidden)
    size = student_hidden.size(-1)
    student_hidden = torch.masked_select(student_hidden, mask).view(-1, size)
    teacher_hidden = torch.masked_select(teacher_hidden, mask).view(-1, size)
    target = student_hidden.new_ones(len(student_hidden))
    cosine = functional.cosine_embedding_loss(student_hidden, teacher_hidden, target)
    return weights.distill * kl + weights.mlm * mlm + weights.cosine * cosine, kl, mlm, cosine


class PlainStep:
    """Forward, backward, clipping and AdamW, in fp32 or with both models under bf16 autocast."""

    def __init__(self, student: DistilBertForMaskedLM, teacher: BertForMaskedLM, bf16: bool, weights: Weights) -> None:
        self.student, self.teacher, self.weights, self.bf16 = student.train(), teacher.train(False), weights, bf16
        self.optimizer = torch.optim.AdamW(student.parameters(), lr=5e-4, eps=1e-6, betas=(0.9, 0.98))

    def __call__(self, input_ids: Tensor, labels: Tensor) -> float:
        """Make an update, and return its loss."""
        with torch.autocast(input_ids.device.type, torch.bfloat16, enabled=self.bf16):
            losses = plain_losses(self.student, self.teacher, input_ids, labels, self.weights)
        losses[0].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.student.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        total, *_ = (loss.item() for loss in losses)
        return total
