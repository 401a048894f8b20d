"""Everything is computed on the model's device: shown on `meta`, whose tensors mix with others as little."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_distillation import config
from transformers import DistilBertConfig

from stages.distillation.masking import Batch
from stages.distillation.models import BertStates, DistilBertStates, FrozenTeacher
from stages.distillation.objectives import MaskedLanguageModelling, TripleLoss
from stages.distillation.trainer import BlockTrainer, Counts

OTHER = torch.device("meta")


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device has none."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


def batch() -> Batch:
    return {
        "input_ids": torch.zeros(2, 16, dtype=torch.int64),
        "order": torch.zeros(32, dtype=torch.int64),
        "labels": torch.zeros(5, dtype=torch.int64),
    }


def elsewhere(values: Batch) -> Batch:
    return {name: tensor.to(OTHER) for name, tensor in values.items()}


def triple(kl_tokens: Any) -> tuple[TripleLoss, DistilBertStates]:
    sizes = {"vocab_size": 155, "max_position_embeddings": 32, "dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 48}
    teacher = FrozenTeacher(BertStates(config()), torch.float32, OTHER)
    return TripleLoss(teacher, 5.0, 2.0, 1.0, 2.0, kl_tokens), DistilBertStates(DistilBertConfig(**sizes)).to(OTHER)


@pytest.mark.parametrize("kl_tokens", ["all", "masked"])
def test_the_triple_loss_and_its_gradients(kl_tokens: str) -> None:
    objective, student = triple(kl_tokens)
    loss, parts = objective.training(student, student, elsewhere(batch()), Counts(5.0, 32.0))
    loss.backward()
    assert {loss.device, parts.device} == {OTHER}
    assert all(p.grad is not None and p.grad.device == OTHER for p in student.parameters())


def test_the_loss_of_the_teacher() -> None:
    objective, model = MaskedLanguageModelling(torch.float32), BertStates(config()).to(OTHER)
    loss, parts = objective.training(model, model, elsewhere(batch()), Counts(5.0, 32.0))
    assert {loss.device, parts.device, objective.held_out(model, elsewhere(batch())).device} == {OTHER}


class _EvaluatedError(Exception):
    """Carries the sums, since fake ones cannot be read."""


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_the_held_out_losses_of_however_many_batches_a_process_has(batches: int) -> None:
    objective, student = triple("masked")

    def reduce(sums: torch.Tensor, _: str) -> None:
        raise _EvaluatedError(sums)

    trainer: Any = SimpleNamespace(
        core=student,
        batches=[batch() for _ in range(batches)],
        objective=objective,
        args=SimpleNamespace(device=OTHER),
        accelerator=SimpleNamespace(process_index=0, num_processes=1, reduce=reduce),
        _prepare_inputs=elsewhere,
    )
    with pytest.raises(_EvaluatedError) as found:
        BlockTrainer.evaluate(trainer)
    (sums,) = found.value.args
    assert (sums.device, sums.shape) == (OTHER, (objective.sums,))
