"""The losses of quality-eval against those of distillation, and with a smaller vocabulary against plain formulas."""

import numpy as np
import pytest
import torch
from tiny_distillation import SPECIAL, WORDS, teacher, tokenizer
from torch.nn import functional
from transformers import BertForMaskedLM, BertTokenizer, DistilBertForMaskedLM

from stages.distillation.masking import Batch, Masking
from stages.distillation.models import BertStates, DistilBertStates, FrozenTeacher
from stages.distillation.objectives import TripleLoss
from stages.distillation.student import build_student
from stages.measurement.paired import Tally
from stages.measurement.quality import FIGURES, Criterion, Student, Vocabulary, rows, tallies, torch_forward

LENGTH = 16


@pytest.fixture(scope="module")
def bert() -> BertForMaskedLM:
    return teacher()


@pytest.fixture(scope="module")
def student(bert: BertForMaskedLM) -> DistilBertForMaskedLM:
    torch.manual_seed(5)
    model = build_student(bert, [0, 2], "teacher", 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    generator = np.random.default_rng(0)
    masking = Masking.of(tokenizer(), np.ones(len(SPECIAL + WORDS), np.int64), 0.15, 0.7, seed=1)
    return [
        masking(generator.integers(len(SPECIAL), len(SPECIAL + WORDS), (rows, LENGTH)), np.arange(rows))
        for rows in (4, 3)
    ]


def same() -> Vocabulary:
    return Vocabulary.between(tokenizer(), tokenizer())


@pytest.mark.parametrize("kl_tokens", ["all", "masked"])
def test_the_losses_are_those_of_distillation(
    bert: BertForMaskedLM,
    student: DistilBertForMaskedLM,
    batches: list[Batch],
    kl_tokens: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    students = {"student": Student(torch_forward(student), same())}
    (tally,) = tallies(students, torch_forward(bert), batches, Criterion(2.0, kl_tokens)).values()
    found = tally.averages()
    states, teacher_states = DistilBertStates(student.config), BertStates(bert.config)
    states.load_state_dict(student.state_dict())
    teacher_states.load_state_dict(bert.state_dict())
    frozen = FrozenTeacher(teacher_states, torch.float32, torch.device("cpu"))
    objective = TripleLoss(frozen, 5.0, 2.0, 1.0, 2.0, kl_tokens)
    sums = sum(objective.held_out(states.eval(), batch) for batch in batches)
    assert isinstance(sums, torch.Tensor)
    masked, tokens = (sum(len(batch[key]) for batch in batches) for key in ("labels", "order"))
    expected = objective.metrics(sums.tolist(), masked, tokens)
    assert found == {name: pytest.approx(expected[name], rel=1e-4) for name in found}
    assert tally.seen("mlm_loss") == masked
    assert len(tally.sums) == sum(len(batch["input_ids"]) for batch in batches)  # a block each


def test_a_smaller_vocabulary_is_compared_on_what_it_has(
    bert: BertForMaskedLM, student: DistilBertForMaskedLM, batches: list[Batch]
) -> None:
    words = SPECIAL + WORDS[::2]
    small = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    kept = torch.tensor([(SPECIAL + WORDS).index(word) for word in words])
    unknown = SPECIAL.index("[UNK]")

    def forward(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = student(input_ids=kept[ids], output_hidden_states=True)
        return output.logits[..., kept], output.hidden_states[-1]

    vocabulary = Vocabulary.between(tokenizer(), small)
    students = {"large": Student(torch_forward(student), same()), "small": Student(forward, vocabulary)}
    both = rows(tallies(students, torch_forward(bert), batches, Criterion(1.0, "masked")), "large")
    found = both["small"]
    assert "covered" not in both["large"]
    mlm, kl, seen, total = 0.0, 0.0, 0, 0
    with torch.no_grad():
        for batch in batches:
            masked = batch["order"][: len(batch["labels"])]
            known = torch.isin(batch["labels"], kept)
            ids = torch.where(torch.isin(batch["input_ids"], kept), batch["input_ids"], unknown)
            log_q = student(input_ids=ids).logits.flatten(0, 1)[masked][known][:, kept].log_softmax(-1)
            log_p = bert(input_ids=batch["input_ids"]).logits.flatten(0, 1)[masked][known][:, kept].log_softmax(-1)
            targets = torch.tensor([kept.tolist().index(int(label)) for label in batch["labels"][known]])
            mlm += functional.nll_loss(log_q, targets, reduction="sum").item()
            kl += (log_p.exp() * (log_p - log_q)).sum().item()
            seen, total = seen + len(targets), total + len(known)
    assert 0 < seen < total
    assert found["covered"] == pytest.approx(seen / total)
    assert found["mlm_loss"] == pytest.approx(mlm / seen, rel=1e-4)
    assert found["distill_loss"] == pytest.approx(kl / seen, rel=1e-4)


def tally(*losses: float) -> Tally:
    """Blocks of ten tokens with these MLM losses each."""
    sums = np.array([[10 * loss, 10.0, 10.0, 5.0] for loss in losses])
    return Tally(FIGURES, sums, np.full_like(sums, 10.0))


def test_a_variant_s_difference_is_paired_by_block() -> None:
    blocks = np.linspace(1.0, 9.0, 30)  # whose losses differ far more than the variants do
    found = rows({"baseline": tally(*blocks), "worse": tally(*(blocks + 0.1)), "equal": tally(*blocks)}, "baseline")
    assert not [key for key in found["baseline"] if "difference" in key]
    worse = [found["worse"][f"mlm_loss_difference{end}"] for end in ("_low", "", "_high")]
    assert worse == pytest.approx([0.1] * 3)
    assert [found["equal"][f"mlm_loss_difference{end}"] for end in ("_low", "", "_high")] == [0.0] * 3
    assert found["worse"]["accuracy_difference"] == 0.0
    assert found["worse"]["masked_tokens"] == 300


def test_the_interval_of_a_difference_is_that_of_its_mean_over_blocks_and_repeats() -> None:
    changes = np.random.default_rng(0).normal(0.2, 1.0, 400)
    pair = {"baseline": tally(*np.full(400, 5.0)), "other": tally(*(5.0 + changes))}
    row = rows(pair, "baseline")["other"]
    half = 1.96 * changes.std() / np.sqrt(len(changes))
    assert row["mlm_loss_difference"] == pytest.approx(changes.mean())
    assert row["mlm_loss_difference_low"] == pytest.approx(changes.mean() - half, abs=0.1 * half)
    assert row["mlm_loss_difference_high"] == pytest.approx(changes.mean() + half, abs=0.1 * half)
    assert rows(pair, "baseline")["other"] == row
