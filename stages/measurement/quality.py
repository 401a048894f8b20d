"""The three distillation losses of any variant on the same held-out batches, in fp32.

Shapes: B blocks of L tokens, N of the tokens that a loss sees, V entries of the vocabulary, H hidden size.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from stages.distillation.losses import cosine_loss
from stages.distillation.masking import Batch
from stages.measurement.paired import Tally

Outputs = tuple[Tensor, Tensor]  # logits (B, L, V), last hidden states (B, L, H)
Forward = Callable[[Tensor], Outputs]
FIGURES = ("mlm_loss", "distill_loss", "cosine_loss", "accuracy")


@dataclass(frozen=True)
class Criterion:
    """What the KL loss sees and at which temperature (Sanh et al. 2019, section 3)."""

    temperature: float
    kl_tokens: Literal["all", "masked"]


@dataclass(frozen=True)
class Vocabulary:
    """A variant's vocabulary in terms of the teacher's: `new_ids` (teacher's V,), and `kept` (V,) teacher ids.

    Entry -1 of `new_ids` marks a token that the variant does not have; it is read as `unknown`.
    """

    new_ids: Tensor
    kept: Tensor
    unknown: int

    @classmethod
    def between(cls, teacher: PreTrainedTokenizerBase, variant: PreTrainedTokenizerBase) -> "Vocabulary":
        """Match the tokens of two tokenizers by their text."""
        theirs, ours = teacher.get_vocab(), variant.get_vocab()
        new_ids = torch.full((max(theirs.values()) + 1,), -1)
        kept = torch.zeros(max(ours.values()) + 1, dtype=torch.long)
        for token, old in theirs.items():
            if token in ours:
                new_ids[old], kept[ours[token]] = ours[token], old
        assert variant.unk_token_id is not None
        return cls(new_ids, kept, variant.unk_token_id)

    def read(self, ids: Tensor) -> Tensor:
        """Translate the teacher's token ids into the variant's."""
        found = self.new_ids[ids]
        return torch.where(found < 0, self.unknown, found)


def torch_forward(model: Any) -> Forward:
    """Run a `transformers` masked language model."""

    def forward(ids: Tensor) -> Outputs:
        output = model(input_ids=ids, output_hidden_states=True)
        return output.logits.float(), output.hidden_states[-1].float()

    return forward


def onnx_forward(session: Any) -> Forward:
    """Run an exported masked language model in ONNX Runtime."""

    def forward(ids: Tensor) -> Outputs:
        feed = {"input_ids": ids.numpy(), "attention_mask": torch.ones_like(ids).numpy()}
        logits, hidden = session.run(["logits", "last_hidden_state"], feed)
        return torch.from_numpy(logits), torch.from_numpy(hidden)

    return forward


@dataclass(frozen=True)
class Student:
    """A variant: what runs it and its vocabulary."""

    forward: Forward
    vocabulary: Vocabulary


@torch.inference_mode()
def tallies(
    students: Mapping[str, Student], teacher: Forward, batches: Iterable[Batch], criterion: Criterion
) -> dict[str, Tally]:
    """Sum MLM, distillation and cosine loss and right predictions of every student by block, over what each sees.

    With a smaller vocabulary than the teacher's, MLM and KL see only tokens whose original is in it, and the teacher's
    distribution is that over the shared tokens.
    """
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in students}
    for part in (part for batch in batches for part in _rows(batch)):
        expected = teacher(part.ids)
        for name, student in students.items():
            found[name].append(_sums(student, expected, part, criterion))
    return {name: _tally(blocks) for name, blocks in found.items()}


def _tally(blocks: Sequence[tuple[Tensor, Tensor]]) -> Tally:
    sums, counts = (torch.stack(values).numpy() for values in zip(*blocks, strict=True))
    return Tally(FIGURES, sums, counts)


def rows(found: Mapping[str, Tally], baseline: str) -> dict[str, dict[str, float]]:
    """Average every student's figures, and set them beside the baseline's.

    `masked_tokens` is the number that MLM loss and accuracy are over; where the vocabulary leaves some out, `covered`
    is the share of them that were seen.
    """
    table, masked = {}, max(tally.seen("mlm_loss") for tally in found.values())
    for name, tally in found.items():
        seen = tally.seen("mlm_loss")
        covered = {} if seen == masked else {"covered": seen / masked}
        differences = {} if name == baseline else tally.minus(found[baseline])
        table[name] = {**tally.averages(), "masked_tokens": seen, **covered, **differences}
    return table


@dataclass(frozen=True)
class _Part:
    """Masked token ids (B, L) and, at the masked positions, the originals (B, L); -1 elsewhere."""

    ids: Tensor
    labels: Tensor


def _rows(batch: Batch) -> Iterator[_Part]:
    """Yield the blocks one by one, as a phone computes: in a batch, INT8 activations would share a scale."""
    ids = batch["input_ids"]
    labels = torch.full_like(ids, -1)
    labels.view(-1)[batch["order"][: len(batch["labels"])]] = batch["labels"]
    for start in range(len(ids)):
        yield _Part(ids[start : start + 1], labels[start : start + 1])


def _sums(student: Student, teacher: Outputs, part: _Part, criterion: Criterion) -> tuple[Tensor, Tensor]:
    """Sum (4,) MLM loss, KL loss, cosine loss and right predictions; and count what each saw (4,)."""
    vocabulary = student.vocabulary
    logits, hidden = student.forward(vocabulary.read(part.ids))
    logits = logits[..., : len(vocabulary.kept)]  # without what pads the matrix beyond the tokenizer's last token
    teacher_logits, teacher_hidden = teacher
    masked = part.labels >= 0
    known = masked & (vocabulary.new_ids[part.labels.clamp(min=0)] >= 0)
    targets = vocabulary.new_ids[part.labels[known]]
    kl_seen = known if criterion.kl_tokens == "masked" else known | (~masked & (vocabulary.new_ids[part.ids] >= 0))
    mlm = functional.cross_entropy(logits[known], targets, reduction="sum")
    kl = _divergence(logits[kl_seen], teacher_logits[kl_seen][:, vocabulary.kept], criterion.temperature)
    cosine = cosine_loss(hidden.flatten(0, 1), teacher_hidden.flatten(0, 1))
    right = (logits[known].argmax(-1) == targets).sum()
    counts = torch.tensor([len(targets), int(kl_seen.sum()), part.ids.numel(), len(targets)], dtype=torch.float64)
    return torch.stack([value.double() for value in (mlm, kl, cosine, right)]), counts


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Sum T ** 2 KL(teacher || student) of logits (N, V)."""
    log_q, log_p = (functional.log_softmax(logits / temperature, -1) for logits in (student, teacher))
    return functional.kl_div(log_q, log_p, reduction="sum", log_target=True) * temperature**2
