from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_compression import IDS, logits, make_student_project, run_prune, student
from tiny_distillation import ROOT
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DistilBertForMaskedLM,
)

from stages.compression.pruning import ranking_rows
from stages.compression.recovery import with_states
from stages.compression.structured import Importance, best, importance, kept_heads, kept_width, shrink
from stages.core.errors import UserError
from stages.core.params import Params, load_params
from stages.distillation.corpus import Blocks
from stages.distillation.distilling import load_inputs
from stages.distillation.masking import Batch, held_out_batches, held_out_rows
from stages.modeling.loading import load_masked_lm
from stages.modeling.shrunken import ShrunkenDistilBertForMaskedLM

SIZE = 8  # of a head
TINY = load_params(ROOT / "profiles/tiny.yaml")


def scores(heads: list[list[float]], columns: list[list[float]]) -> Importance:
    return Importance([torch.tensor(row) for row in heads], [torch.tensor(row) for row in columns])


@torch.no_grad()
def silence(model: DistilBertForMaskedLM, layer: int, heads: list[int], columns: list[int]) -> None:
    """Take away what some units contribute, by zeros in the matrices that lead out of them."""
    block = model.distilbert.transformer.layer[layer]
    for head in heads:
        block.attention.out_lin.weight[:, head * SIZE : (head + 1) * SIZE] = 0.0
    block.ffn.lin2.weight[:, columns] = 0.0


def random_units(seed: int) -> Importance:
    generator = torch.Generator().manual_seed(seed)
    return Importance(
        [torch.rand(4, generator=generator) for _ in range(2)], [torch.rand(48, generator=generator) for _ in range(2)]
    )


@pytest.mark.parametrize(("heads", "columns"), [(4, 20), (2, 48), (1, 1), (3, 31)])
def test_shrinking_equals_masking_what_goes(heads: int, columns: int) -> None:
    model, units = student(), random_units(heads)
    smaller = shrink(model, units, heads, columns)
    for layer in range(2):
        gone_heads = set(range(4)) - set(best(units.heads[layer], heads).tolist())
        gone_columns = set(range(48)) - set(best(units.columns[layer], columns).tolist())
        silence(model, layer, sorted(gone_heads), sorted(gone_columns))
    torch.testing.assert_close(logits(smaller), logits(model), rtol=1e-4, atol=1e-5)
    assert isinstance(smaller, ShrunkenDistilBertForMaskedLM) == (heads < 4)


def triple(states: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Some loss of the hidden states and of those before the projection, a sum over all positions."""
    hidden, head = states(ids, torch.arange(ids.numel()))
    return (hidden.sin() + head.cos()).sum()


def test_units_without_a_contribution_rank_last_and_can_go_unnoticed() -> None:
    model = student()
    silent = [([1], list(range(5, 29))), ([3], list(range(24)))]
    for layer, (heads, columns) in enumerate(silent):
        silence(model, layer, heads, columns)
    states = with_states(model)
    found = importance(states, iter([lambda: triple(states, IDS)]))
    for layer, (heads, columns) in enumerate(silent):
        assert (found.heads[layer] == 0.0).nonzero().flatten().tolist() == heads
        assert (found.columns[layer] == 0.0).nonzero().flatten().tolist() == columns
    torch.testing.assert_close(logits(shrink(model, found, 3, 24)), logits(model), rtol=1e-4, atol=1e-5)


def test_importance_is_the_gradient_by_a_gate_on_each_unit() -> None:
    """Michel et al. 2019: |dL/dg| at g = 1, where g multiplies a unit's output, by block and then summed."""
    states = with_states(student()).double()
    found = importance(states, iter([lambda: triple(states, IDS[:2]), lambda: triple(states, IDS[2:])]))
    block = states.distilbert.transformer.layer[1]
    expected_heads, expected_columns = torch.zeros(4, dtype=torch.double), torch.zeros(48, dtype=torch.double)
    for row in IDS:
        gates, lanes = (torch.ones(width, dtype=torch.double, requires_grad=True) for width in (4, 48))
        hooks = [
            block.attention.out_lin.register_forward_pre_hook(
                lambda _, inputs, gates=gates: (inputs[0] * gates.repeat_interleave(SIZE),)
            ),
            block.ffn.lin2.register_forward_pre_hook(lambda _, inputs, lanes=lanes: (inputs[0] * lanes,)),
        ]
        triple(states, row[None]).backward()
        for hook in hooks:
            hook.remove()
        assert gates.grad is not None
        assert lanes.grad is not None
        expected_heads += gates.grad.abs()
        expected_columns += lanes.grad.abs()
    torch.testing.assert_close(found.heads[1].double(), expected_heads, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(found.columns[1].double(), expected_columns, rtol=1e-5, atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 4096), amount=st.floats(0.0, 0.999))
def test_widths_are_the_asked_share(width: int, amount: float) -> None:
    kept = kept_width(width, amount)
    assert 1 <= kept <= width
    assert abs(kept - (1 - amount) * width) <= (4.5 if kept >= 60 else 1.0)
    assert kept_width(width, 0.0) == width
    assert 1 <= kept_heads(width, amount) <= width


def test_published_sizes_at_half() -> None:
    assert (kept_heads(12, 0.5), kept_width(3072, 0.5), kept_width(1536, 0.3)) == (6, 1536, 1072)


def test_best_prefers_the_first_of_equals_and_keeps_their_order() -> None:
    assert best(torch.tensor([0.0, 3.0, 1.0, 1.0, 5.0]), 3).tolist() == [1, 2, 4]


def with_blocks(curve: int, quality: int, importance: int) -> Params:
    return TINY.model_copy(
        update={
            "distill": TINY.distill.model_copy(update={"eval_blocks": curve}),
            "quality_eval": TINY.quality_eval.model_copy(update={"blocks": quality}),
            "prune": TINY.prune.model_copy(update={"importance_blocks": importance}),
        }
    )


@settings(deadline=None)
@given(
    blocks=st.integers(1, 300), curve=st.integers(1, 150), quality=st.integers(1, 150), importance=st.integers(1, 300)
)
def test_nothing_is_measured_on_the_blocks_that_rank(blocks: int, curve: int, quality: int, importance: int) -> None:
    params = with_blocks(curve, quality, importance)
    measured = {*held_out_rows(blocks, curve).tolist(), *held_out_rows(blocks, quality).tolist()}
    if len(measured) == blocks:
        with pytest.raises(UserError, match=f"prune.importance_blocks: none of the {blocks} held-out blocks is left"):
            ranking_rows(blocks, params)
        return
    rows = ranking_rows(blocks, params).tolist()
    assert not measured & set(rows)
    assert rows == sorted(set(rows))
    assert set(rows) <= set(range(blocks))
    assert len(rows) == min(importance, blocks - len(measured))


def test_the_blocks_that_rank_are_spread_over_the_text() -> None:
    rows = ranking_rows(1000, with_blocks(64, 32, 50))
    assert rows[0] < 10
    assert rows[-1] > 990
    assert np.diff(rows).max() < 30


def shrunken_folder(folder: Path) -> ShrunkenDistilBertForMaskedLM:
    model = shrink(student(), random_units(0), 2, 30)
    model.save_pretrained(folder)
    assert isinstance(model, ShrunkenDistilBertForMaskedLM)
    return model


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_shrunken_checkpoint_loads_with_either_attention(tmp_path: Path, attention: str) -> None:
    model = shrunken_folder(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path, attn_implementation=attention)
    mask = (torch.arange(16) < torch.tensor([[16], [9], [4]])).long()
    with torch.no_grad():
        for attention_mask in (None, mask):
            result = loaded(input_ids=IDS, attention_mask=attention_mask).logits
            torch.testing.assert_close(result, model(input_ids=IDS, attention_mask=attention_mask).logits)
    assert set(loaded.state_dict()) == set(student().state_dict())
    assert loaded.vocab_projector.weight is loaded.distilbert.embeddings.word_embeddings.weight


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForSequenceClassification, AutoModelForQuestionAnswering])
def test_other_heads_load_the_shrunken_encoder_and_can_be_trained(tmp_path: Path, auto: type[AutoModel]) -> None:
    model = shrunken_folder(tmp_path)
    loaded = auto.from_pretrained(tmp_path)
    encoder = loaded if auto is AutoModel else loaded.distilbert
    for name, value in model.distilbert.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value)
    loaded(input_ids=IDS)[0].sum().backward()
    attentions = auto.from_pretrained(tmp_path, attn_implementation="eager")(IDS, output_attentions=True).attentions
    assert [tuple(a.shape) for a in attentions] == [(3, 2, 16, 16)] * 2


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_student_project(tmp_path)
    return tmp_path


def test_without_heads_plain_transformers_loads_the_checkpoint(project: Path) -> None:
    metrics = run_prune(project, prune__method="structured", prune__amount=0.5, prune__heads=False)
    loaded = DistilBertForMaskedLM.from_pretrained("models/pruned")
    assert (loaded.config.model_type, loaded.config.hidden_dim, loaded.config.n_heads) == ("distilbert", 24, 4)
    assert (metrics["heads"], metrics["ffn_columns"]) == (4, 24)
    assert metrics["parameters_before"] - metrics["parameters"] == 2 * 24 * (2 * 32 + 1)


def test_with_heads_the_stage_trains_and_writes_a_shrunken_model(project: Path) -> None:
    metrics = run_prune(project, prune__method="structured", prune__amount=0.5, prune__recovery_epochs=0.5)
    loaded = load_masked_lm(Path("models/pruned"))
    assert isinstance(loaded, ShrunkenDistilBertForMaskedLM)
    assert (loaded.config.kept_heads, loaded.config.head_size, loaded.config.hidden_dim) == (2, SIZE, 24)
    assert (metrics["heads"], metrics["ffn_columns"]) == (2, 24)
    assert metrics["updates"] > 0
    assert metrics["loss"] < metrics["before_recovery"]["loss"]
    assert metrics["parameters"] == loaded.num_parameters() < metrics["parameters_before"]
    assert AutoTokenizer.from_pretrained("models/pruned").tokenize("word3 word4") == ["word3", "word4"]


def test_without_a_block_to_rank_by_the_stage_ends_in_one_line(project: Path) -> None:
    with pytest.raises(UserError, match=r"params.yaml: prune.importance_blocks: none .* quality_eval.blocks") as caught:
        run_prune(project, prune__method="structured", prune__amount=0.5, quality_eval__blocks=10_000)
    assert "\n" not in str(caught.value)
    assert not (project / "models/pruned").exists()
    metrics = run_prune(project, prune__method="structured", prune__amount=0.0, quality_eval__blocks=10_000)
    assert metrics["parameters"] == metrics["parameters_before"]  # what needs no ranking


def test_the_ranking_sees_the_blocks_that_it_may(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def keep(blocks: Blocks, *rest: Any) -> list[Batch]:
        seen.append(blocks.ids)
        return held_out_batches(blocks, *rest)

    monkeypatch.setattr("stages.compression.pruning.held_out_batches", keep)
    run_prune(project, prune__method="structured", prune__amount=0.5)
    params = load_params(project / "params.yaml")
    dev = load_inputs(project / "models/bert", project / "data/corpus", params.distill.block_length).dev
    (found,) = seen
    np.testing.assert_array_equal(found, dev.ids[ranking_rows(len(dev), params)])
