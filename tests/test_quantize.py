import json
import os
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_compression import logits, make_student_project, run_prune, student
from torch import nn
from transformers import AutoModelForMaskedLM, AutoTokenizer, DistilBertConfig, DistilBertForMaskedLM

from stages import quantize as stage
from stages.compression.magnitude import prune_magnitude
from stages.compression.quantization import quantize
from stages.core.errors import UserError
from stages.modeling.int8 import Int8Linear, stored_scale
from stages.modeling.loading import load_masked_lm, parameter_count
from stages.modeling.zeros import sparsity

GRANULARITIES = ("tensor", "channel")


def layer(out_features: int = 24, in_features: int = 40) -> nn.Linear:
    torch.manual_seed(0)
    linear = nn.Linear(in_features, out_features)
    with torch.no_grad():
        linear.weight.mul_(torch.logspace(-2, 1, out_features)[:, None])  # channels of unequal size
    return linear


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_weights_are_within_half_a_step(granularity: str) -> None:
    linear = layer()
    made = Int8Linear.of(linear, granularity)
    exact = linear.weight.abs().amax(1) / 127 if granularity == "channel" else linear.weight.abs().max()[None] / 127
    torch.testing.assert_close(made.scale.float(), exact, rtol=1e-3, atol=6e-8)  # the step of the smallest halves
    assert made.weight.dtype == torch.int8
    assert int(made.weight.abs().max()) == 127 or int(made.weight.abs().max()) == 126  # the scale is rounded up
    assert ((made.dequantized() - linear.weight).abs() <= 0.5001 * made.scale.float()[:, None]).all()


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_outputs_are_those_of_the_dequantized_float_formula(granularity: str) -> None:
    made, inputs = Int8Linear.of(layer(), granularity), torch.randn(2, 7, 40)
    weight, bias = made.dequantized(), made.bias.float()
    made.pack()
    low, high = min(float(inputs.min()), 0.0), max(float(inputs.max()), 0.0)
    bits = 7 if stage_reduces_range() else 8
    step = (high - low) / (2**bits - 1)
    zero = round(-low / step)
    rounded = (torch.clamp((inputs / step).round() + zero, 0, 2**bits - 1) - zero) * step
    expected = rounded @ weight.T + bias
    torch.testing.assert_close(made(inputs), expected, rtol=1e-3, atol=2 * step * float(weight.abs().max()))
    assert float((made(inputs) - expected).norm() / expected.norm()) < 2e-3


def stage_reduces_range() -> bool:
    from stages.modeling.int8 import _reduce_range

    return _reduce_range()


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_packing_keeps_nothing_but_gives_the_same_back(granularity: str) -> None:
    made = Int8Linear.of(layer(), granularity)
    before = [tensor.clone() for tensor in made.stored()]
    made.pack()
    assert (made.weight, made.scale, made.bias) == (None, None, None)
    for old, new in zip(before, made.stored(), strict=True):
        assert old.dtype == new.dtype
        assert torch.equal(old, new)
    assert made.state_dict().keys() == {"weight", "scale", "bias"}


@settings(max_examples=40, deadline=None)
@given(largest=st.floats(0.0, 1e4, width=32))
def test_no_weight_is_cut(largest: float) -> None:
    scale = stored_scale(torch.tensor([largest]))
    assert scale.dtype == torch.float16
    assert 0.0 < float(scale) < float("inf")
    assert largest / float(scale) <= 127.001


def test_zeros_stay_zeros_and_a_dead_channel_is_no_error() -> None:
    linear = layer()
    with torch.no_grad():
        linear.weight[3] = 0.0
        linear.weight[5, ::2] = 0.0
    for granularity in GRANULARITIES:
        made = Int8Linear.of(linear, granularity)
        assert (made.weight[linear.weight == 0] == 0).all()
        made.pack()
        assert made(torch.randn(2, 40)).isfinite().all()


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_saved_model_gives_identical_outputs_after_every_round_trip(tmp_path: Path, granularity: str) -> None:
    model, expected = student(), logits(student())
    parameters = parameter_count(model)
    assert parameters == model.num_parameters()
    quantize(model, granularity)
    model.save_pretrained(tmp_path / "once")
    once = load_masked_lm(tmp_path / "once")
    once.save_pretrained(tmp_path / "twice")
    twice = AutoModelForMaskedLM.from_pretrained(tmp_path / "twice")
    assert torch.equal(logits(once), logits(twice))
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()
    assert float((logits(once) - expected).norm() / expected.norm()) < 0.1
    assert parameter_count(once) == parameters
    assert not once.training


def test_every_linear_is_int8_and_the_embedding_is_the_float_one(tmp_path: Path) -> None:
    model = student()
    quantize(model, "channel")
    model.save_pretrained(tmp_path)
    loaded, original = load_masked_lm(tmp_path), student()
    assert not [name for name, module in loaded.named_modules() if isinstance(module, nn.Linear)]
    assert isinstance(loaded.vocab_projector, Int8Linear)
    name = "distilbert.embeddings.word_embeddings.weight"
    assert torch.equal(loaded.state_dict()[name], original.state_dict()[name])


def test_the_sparsity_of_the_integers_is_at_least_that_of_the_floats(tmp_path: Path) -> None:
    model = student()
    prune_magnitude(model, 0.5)
    assert sparsity(model) == 0.5
    quantize(model, "tensor")
    before = sparsity(model)
    model.save_pretrained(tmp_path)
    assert sparsity(load_masked_lm(tmp_path)) == before >= 0.5


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_file_size_is_a_byte_a_weight_four_an_embedding_and_two_a_scale_and_bias(
    tmp_path: Path, granularity: str
) -> None:
    model = student()
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    weights, outputs = sum(m.weight.numel() for m in linear), sum(m.out_features for m in linear)
    projection = model.vocab_projector.weight.numel()
    floats = model.num_parameters() - (weights - projection) - outputs
    quantize(model, granularity)
    model.save_pretrained(tmp_path)
    scales = outputs if granularity == "channel" else len(linear)
    sizes = [t.numel() * t.element_size() for t in load_file(tmp_path / "model.safetensors").values()]
    assert sum(sizes) == weights + 4 * floats + 2 * (scales + outputs)


def test_published_size() -> None:
    """66,985,530 parameters; with a header of at most 30 KB, the file is below the published 154.8 MiB."""
    with torch.device("meta"):
        model = DistilBertForMaskedLM(DistilBertConfig())
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert parameter_count(model) == 66_985_530
    weights, outputs = sum(m.weight.numel() for m in linear), sum(m.out_features for m in linear)
    floats = 66_985_530 - (weights - model.vocab_projector.weight.numel()) - outputs
    assert (weights + 4 * floats + 4 * outputs + 30_000) / 2**20 < 154.8


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_student_project(tmp_path)
    return tmp_path


@pytest.mark.parametrize("method", ["magnitude", "structured", "vocabulary"])
def test_the_stage_writes_both_variants(project: Path, method: str) -> None:
    run_prune(project, prune__method=method, prune__amount=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        warnings.filterwarnings("error", message=".*deprecated.*")
        stage.main()
    metrics = json.loads((project / "metrics/quantize.json").read_text())
    for name, source in (("quantized", "distilbert"), ("combined", "pruned")):
        folder = project / "models" / name
        loaded, original = load_masked_lm(folder), load_masked_lm(project / "models" / source)
        assert parameter_count(loaded) == parameter_count(original)
        assert metrics[name]["bytes"] == (folder / "model.safetensors").stat().st_size < metrics[name]["float_bytes"]
        assert 0.0 < metrics[name]["weight_error"] < 0.05
        assert 0.0 < metrics[name]["logit_error"] < 0.1
        assert 0.8 < metrics[name]["top1_agreement"] <= 1.0
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert logits(loaded, torch.tensor([tokenizer("word1").input_ids])).shape[-1] == len(tokenizer)


def test_a_missing_pruned_model_names_the_stage_to_run(project: Path) -> None:
    with pytest.raises(UserError, match=r"models/pruned/config.json: not found; `dvc repro prune` makes it"):
        stage.main()


@pytest.mark.parametrize("name", ["distilbert", "pruned"])
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("model.safetensors", "models/{name}: no readable checkpoint .*`dvc repro"),
        ("tokenizer.json", "models/{name}: no readable tokenizer .*`dvc repro"),
    ],
)
def test_a_damaged_source_is_told_before_anything_is_written(project: Path, name: str, file: str, message: str) -> None:
    run_prune(project)
    path = project / "models" / name / file
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match=message.format(name=name)) as caught:
        stage.main()
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in (project / "models").iterdir()) == ["bert", "distilbert", "pruned"]
    assert not (project / "metrics/quantize.json").exists()


def test_a_checkpoint_without_all_weights_is_refused(project: Path) -> None:
    from safetensors.torch import save_file

    path = project / "models/distilbert/model.safetensors"
    weights = load_file(path)
    weights.pop("vocab_transform.weight")
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks weights, such as vocab_transform.weight; .*`dvc repro distill`"):
        load_masked_lm(Path("models/distilbert"))
