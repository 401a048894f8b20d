"""The vocabulary-sized losses, in chunks of tokens so that no logits of a whole batch exist, forward or backward.

Shapes: N tokens, M masked ones (the first M of N), H hidden size, V vocabulary.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

CHUNK_TOKENS = 256
VOCABULARY_BLOCK = 1024


class Projection(NamedTuple):
    """States before the vocabulary projection (N, H), its weight (V, H) and bias (V,); logits are their product."""

    states: Tensor
    weight: Tensor
    bias: Tensor

    def logits(self, start: int, stop: int) -> Tensor:
        """Logits (stop - start, V) of some tokens, in at least fp32 whatever the product was computed in.

        A CPU computes them by blocks of the vocabulary, into one tensor and so without a graph of gradients: few tokens
        by so wide a matrix are 1.5 to 1.8 times as fast so, measured in fp32 with MKL.
        """
        states = self.states[start:stop]
        if states.device.type != "cpu" or states.dtype != torch.float32:
            logits = functional.linear(states, self.weight, self.bias)
            return logits.to(torch.promote_types(logits.dtype, torch.float32))
        logits = states.new_empty(len(states), len(self.weight))
        for begin in range(0, len(self.weight), VOCABULARY_BLOCK):
            block = slice(begin, begin + VOCABULARY_BLOCK)
            torch.addmm(self.bias[block], states, self.weight[block].T, out=logits[:, block])
        return logits

    def cast(self, dtype: torch.dtype) -> "Projection":
        """Detach, and convert to the type that the product is to be computed in."""
        return Projection(*(tensor.detach().to(dtype) for tensor in self))


class VocabularyLosses(NamedTuple):
    """`weighted` () carries the gradient; `mlm` and `kl` () are plain sums over tokens, the KL one scaled by T ** 2."""

    weighted: Tensor
    mlm: Tensor
    kl: Tensor


def vocabulary_losses(
    student: Projection,
    labels: Tensor,
    teacher: Projection | None = None,
    *,
    mlm_weight: float | Tensor = 1.0,
    kl_weight: float | Tensor = 0.0,
    temperature: float = 1.0,
    compute_dtype: torch.dtype | None = None,
    chunk: int = CHUNK_TOKENS,
) -> VocabularyLosses:
    """MLM cross-entropy of the first M tokens and T ** 2 KL(teacher || student) of all N (Sanh et al. 2019, section 3).

    `weighted` is `mlm_weight * mlm + kl_weight * kl`. Products run in `compute_dtype`, by default the states' own type;
    softmax and sums in at least fp32.
    """
    dtype = compute_dtype or student.states.dtype
    fixed = None if teacher is None else teacher.cast(dtype)
    settings = (labels, fixed, mlm_weight, kl_weight, temperature, dtype, chunk)
    return VocabularyLosses(*_ChunkedLosses.apply(*student, settings))  # type: ignore[no-untyped-call]


class _ChunkedLosses(torch.autograd.Function):
    """Computes each chunk's gradient beside its loss, so that the backward pass only scales what is there."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, settings: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        labels, teacher, mlm_weight, kl_weight, temperature, dtype, chunk = settings
        student = Projection(states, weight, bias).cast(dtype)
        total = torch.promote_types(dtype, torch.float32)
        states_gradient = torch.empty_like(states, dtype=total)
        bias_gradient = torch.zeros_like(bias, dtype=total)
        weight_gradient = None  # stays so for a frozen vocabulary matrix, which saves a third of the work
        mlm = states.new_zeros((), dtype=total)
        kl = states.new_zeros((), dtype=total)
        with torch.autocast(states.device.type, enabled=False):
            for start, stop in chunks(len(labels), len(states), chunk):
                logits = student.logits(start, stop)
                gradient = None
                if start < len(labels):
                    loss, gradient = _cross_entropy(logits, labels[start:stop])
                    mlm += loss
                    gradient.mul_(mlm_weight)
                if teacher is not None:
                    loss, kl_gradient = _kl_(logits, teacher.logits(start, stop), temperature)
                    kl += loss
                    kl_gradient.mul_(kl_weight)
                    gradient = kl_gradient if gradient is None else gradient.add_(kl_gradient)
                if gradient is None:
                    states_gradient[start:stop] = 0.0
                    continue
                bias_gradient += gradient.sum(0)
                gradient = gradient.to(dtype)
                states_gradient[start:stop] = gradient @ student.weight
                if ctx.needs_input_grad[1]:
                    share = gradient.T @ student.states[start:stop]
                    weight_gradient = share.to(total) if weight_gradient is None else weight_gradient.add_(share)
        ctx.save_for_backward(states_gradient, weight_gradient, bias_gradient)
        ctx.types = (states.dtype, weight.dtype, bias.dtype)
        ctx.mark_non_differentiable(mlm, kl)
        return mlm_weight * mlm + kl_weight * kl, mlm, kl

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        # In place, since a copy of the (V, H) gradient costs as much as a small chunk; a second backward is refused.
        scaled = (None if gradient is None else gradient.mul_(upstream) for gradient in ctx.saved_tensors)
        return (*(None if g is None else g.to(dtype) for g, dtype in zip(scaled, ctx.types, strict=True)), None)


def chunks(masked: int, tokens: int, size: int) -> list[tuple[int, int]]:
    """Return ranges of at most `size` tokens that cover all of them; none holds both masked and other tokens."""
    edges = [*range(0, masked, size), *range(masked, tokens, size), tokens]
    return list(pairwise(edges))


def _kl_(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Sum T ** 2 KL(teacher || student) over tokens, and return its gradient by the student's logits, T (p - q).

    Overwrites both logits: most of the time here goes into touching new memory.
    """
    log_p = functional.log_softmax(student.div_(temperature), dim=-1)
    log_q = functional.log_softmax(teacher.div_(temperature), dim=-1)
    q = torch.exp(log_q, out=teacher)
    loss = torch.dot(q.view(-1), log_q.sub_(log_p).view(-1)) * temperature**2
    return loss, log_p.exp_().sub_(q).mul_(temperature)


def _cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum cross-entropies over tokens, and return the gradient by the logits, p - onehot."""
    log_p = functional.log_softmax(logits, dim=-1)
    index = labels[:, None]
    loss = -log_p.gather(1, index).sum()
    return loss, log_p.exp_().scatter_add_(1, index, torch.full_like(index, -1, dtype=log_p.dtype))


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum of 1 - cosine over the last hidden states (N, H) of all tokens (Sanh et al. 2019, section 3)."""
    return (1.0 - functional.cosine_similarity(student, teacher, dim=-1)).sum()


@torch.no_grad()
def held_out_sums(
    student: Projection,
    labels: Tensor,
    teacher: Projection | None = None,
    temperature: float = 1.0,
    chunk: int = CHUNK_TOKENS,
) -> Tensor:
    """Sum without gradient: MLM loss, scaled KL loss, the student's and the teacher's right predictions, as (4,)."""
    total = torch.promote_types(student.states.dtype, torch.float32)
    sums = torch.zeros(4, dtype=total, device=labels.device)
    for start, stop in chunks(len(labels), len(student.states), chunk):
        logits = student.logits(start, stop)
        teacher_logits = None if teacher is None else teacher.logits(start, stop)
        if start < len(labels):
            sums[0] += functional.cross_entropy(logits, labels[start:stop], reduction="sum")
            sums[2] += (logits.argmax(-1) == labels[start:stop]).sum()
            if teacher_logits is not None:
                sums[3] += (teacher_logits.argmax(-1) == labels[start:stop]).sum()
        if teacher_logits is not None:
            sums[1] += _kl_(logits, teacher_logits, temperature)[0]
    return sums
