"""The whole triple loss, models included, against the plain implementation that the benchmark compares it with."""

import pytest
import torch
from plain_distillation import Weights, plain_labels, plain_losses
from tiny_distillation import teacher

from stages.distillation.models import BertStates, DistilBertStates, FrozenTeacher
from stages.distillation.objectives import TripleLoss
from stages.distillation.student import build_student
from stages.distillation.trainer import Counts

BLOCKS, LENGTH, MASKED = 4, 24, 13


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("kl_tokens", ["all", "masked"])
def test_losses_and_every_gradient_are_the_plain_ones(dtype: torch.dtype, tolerance: float, kl_tokens: str) -> None:
    generator = torch.Generator().manual_seed(1)
    plain_teacher = teacher().to(dtype)
    vocabulary = plain_teacher.config.vocab_size
    ids = torch.randint(vocabulary, (BLOCKS, LENGTH), generator=generator)
    batch = {
        "input_ids": ids,
        "order": torch.randperm(BLOCKS * LENGTH, generator=generator),
        "labels": torch.randint(vocabulary, (MASKED,), generator=generator),
    }
    plain_student = build_student(plain_teacher, (0, 2), "teacher", 0).to(dtype).train(False)
    with torch.no_grad():
        for parameter in plain_student.parameters():  # else it would begin with the teacher's hidden states
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    student = DistilBertStates(plain_student.config).to(dtype).train(False)
    student.load_state_dict(plain_student.state_dict())
    states = BertStates(plain_teacher.config).to(dtype)
    states.load_state_dict(plain_teacher.state_dict())
    weights = Weights(masked_only=kl_tokens == "masked")

    labels = plain_labels(ids, batch["order"], batch["labels"])
    expected, kl, mlm, cosine = plain_losses(plain_student, plain_teacher, ids, labels, weights)
    expected.backward()
    objective = TripleLoss(
        FrozenTeacher(states, dtype, torch.device("cpu")),
        weights.distill, weights.mlm, weights.cosine, weights.temperature, kl_tokens,
    )  # fmt: skip
    loss, parts = objective.training(student, student, batch, Counts(MASKED, BLOCKS * LENGTH))
    loss.backward()

    close = {"rtol": tolerance, "atol": tolerance * 1e-2}
    torch.testing.assert_close(parts, torch.stack([expected, mlm, kl, cosine]).detach(), **close)
    ours = dict(student.named_parameters())
    for name, parameter in plain_student.named_parameters():
        torch.testing.assert_close(ours[name].grad, parameter.grad, **close, msg=name)
