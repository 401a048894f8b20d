import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from stages.distillation.losses import (
    VOCABULARY_BLOCK,
    Projection,
    chunks,
    cosine_loss,
    held_out_sums,
    vocabulary_losses,
)

VOCABULARY, HIDDEN, TOKENS, MASKED = 37, 8, 23, 9


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Projection, Projection, Tensor]:
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    student = Projection(*(draw(*s).requires_grad_() for s in ((TOKENS, HIDDEN), (VOCABULARY, HIDDEN), (VOCABULARY,))))
    teacher = Projection(draw(TOKENS, HIDDEN + 4), draw(VOCABULARY, HIDDEN + 4), draw(VOCABULARY))
    return student, teacher, torch.randint(VOCABULARY, (MASKED,), generator=generator)


def plain(student: Projection, teacher: Projection, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Both sums as the paper writes them, on the logits of all tokens at once."""
    logits, targets = (functional.linear(*projection) for projection in (student, teacher))
    log_p = functional.log_softmax(logits / temperature, dim=-1)
    q = functional.softmax(targets / temperature, dim=-1)
    kl = functional.kl_div(log_p, q, reduction="batchmean") * len(logits) * temperature**2
    return functional.cross_entropy(logits[: len(labels)], labels, reduction="sum"), kl


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("kl_tokens", ["all", "masked"])
@pytest.mark.parametrize("chunk", [4, 1000])
def test_losses_and_gradients_equal_the_plain_formulas(
    dtype: torch.dtype, tolerance: float, kl_tokens: str, chunk: int
) -> None:
    student, teacher, labels = inputs(dtype)
    seen = TOKENS if kl_tokens == "all" else MASKED
    seen_student, seen_teacher = (
        projection._replace(states=projection.states[:seen]) for projection in (student, teacher)
    )
    expected_mlm, expected_kl = plain(seen_student, seen_teacher, labels, 2.0)
    expected = torch.autograd.grad(0.3 * expected_mlm + 0.7 * expected_kl, student)

    losses = vocabulary_losses(
        seen_student, labels, seen_teacher, mlm_weight=0.3, kl_weight=0.7, temperature=2.0, chunk=chunk
    )

    gradients = torch.autograd.grad(losses.weighted, student)
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(losses.mlm, expected_mlm, **close)
    torch.testing.assert_close(losses.kl, expected_kl, **close)
    torch.testing.assert_close(losses.weighted, 0.3 * expected_mlm + 0.7 * expected_kl, **close)
    torch.testing.assert_close(gradients, expected, **close)
    sums = held_out_sums(seen_student, labels, seen_teacher, 2.0, chunk)
    torch.testing.assert_close(sums[:2], torch.stack([expected_mlm, expected_kl]).detach(), **close)


@pytest.mark.parametrize("vocabulary", [1, VOCABULARY_BLOCK, 2 * VOCABULARY_BLOCK + 3])
def test_logits_by_blocks_of_the_vocabulary_are_those_of_one_product(vocabulary: int) -> None:
    states, weight, bias = torch.randn(TOKENS, HIDDEN), torch.randn(vocabulary, HIDDEN), torch.randn(vocabulary)
    found = Projection(states, weight, bias).logits(1, 5)
    torch.testing.assert_close(found, functional.linear(states[1:5], weight, bias))


def test_an_upstream_factor_scales_the_gradient() -> None:
    student, teacher, labels = inputs()
    once = torch.autograd.grad(vocabulary_losses(student, labels, teacher, kl_weight=1.0).weighted, student)
    thrice = torch.autograd.grad(3 * vocabulary_losses(student, labels, teacher, kl_weight=1.0).weighted, student)
    torch.testing.assert_close(thrice, tuple(3 * gradient for gradient in once))


def test_a_second_backward_pass_is_refused() -> None:
    student, _, labels = inputs()
    loss = vocabulary_losses(student, labels).weighted
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError):
        loss.backward()


def test_a_frozen_vocabulary_matrix_gets_no_gradient_and_changes_no_other() -> None:
    student, _, labels = inputs()
    expected = torch.autograd.grad(vocabulary_losses(student, labels).weighted, (student.states, student.bias))
    frozen = student._replace(weight=student.weight.detach())
    torch.testing.assert_close(
        torch.autograd.grad(vocabulary_losses(frozen, labels).weighted, (student.states, student.bias)), expected
    )


def test_bf16_products_stay_close_to_fp32() -> None:
    student, teacher, labels = inputs(torch.float32)
    exact = vocabulary_losses(student, labels, teacher, kl_weight=1.0, temperature=2.0)
    fast = vocabulary_losses(student, labels, teacher, kl_weight=1.0, temperature=2.0, compute_dtype=torch.bfloat16)
    torch.testing.assert_close(fast, exact, rtol=0.05, atol=0.0)
    assert torch.autograd.grad(fast.weighted, student.weight)[0].dtype == torch.float32


def test_cosine_loss_equals_the_embedding_loss() -> None:
    student, teacher = torch.randn(2, 11, 6, dtype=torch.float64)
    expected = functional.cosine_embedding_loss(student, teacher, torch.ones(11), reduction="sum")
    torch.testing.assert_close(cosine_loss(student, teacher), expected, rtol=1e-10, atol=1e-10)


def test_accuracies_count_right_predictions_of_masked_tokens() -> None:
    student, teacher, _ = inputs()
    labels = functional.linear(*student)[:MASKED].argmax(-1)
    sums = held_out_sums(student, labels, teacher)
    right = (functional.linear(*teacher)[:MASKED].argmax(-1) == labels).sum()
    assert sums[2] == MASKED
    assert sums[3] == right


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 20))
@settings(deadline=None, max_examples=50)
def test_chunks_cover_all_tokens_once_and_never_mix(masked: int, others: int, size: int) -> None:
    ranges = chunks(masked, masked + others, size)
    assert [token for start, stop in ranges for token in range(start, stop)] == list(range(masked + others))
    assert all(0 < stop - start <= size and (stop <= masked or start >= masked) for start, stop in ranges)
