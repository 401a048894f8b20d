import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_compression import logits, make_student_project, run_prune, student
from tiny_distillation import make_project, write_params
from transformers import AutoModelForMaskedLM, AutoTokenizer

from stages import distill, prune
from stages.compression.magnitude import prune_magnitude
from stages.compression.recovery import recovery_checkpoints
from stages.core.errors import UserError
from stages.core.params import load_params
from stages.distillation.distilling import load_inputs
from stages.modeling.loading import load_masked_lm, parameter_count
from stages.modeling.zeros import prunable_weights, sparsity

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_student_project(tmp_path)
    return tmp_path


def zeros_and_count() -> tuple[torch.Tensor, torch.nn.Module]:
    model = student()
    return torch.cat([weight.detach().flatten() for weight in prunable_weights(model).values()]), model


@settings(max_examples=40, deadline=None)
@given(amount=st.floats(0.0, 0.9999))
def test_exactly_the_asked_number_of_weights_is_zero_and_they_are_the_least(amount: float) -> None:
    before, model = zeros_and_count()
    prune_magnitude(model, amount)
    after = torch.cat([weight.detach().flatten() for weight in prunable_weights(model).values()])
    assert int((after == 0).sum()) == round(amount * len(before))
    assert torch.equal(after[after != 0], before[after != 0])
    if (after == 0).any() and (after != 0).any():
        assert before[after == 0].abs().max() <= before[after != 0].abs().min()


@settings(max_examples=40, deadline=None)
@given(amount=st.floats(0.0, 0.99), values=st.integers(1, 3), already=st.floats(0.0, 0.3))
def test_ties_and_weights_that_are_zero_already(amount: float, values: int, already: float) -> None:
    model = student(n_layers=1)
    weights = list(prunable_weights(model).values())
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in weights:
            sign = torch.randint(0, 2, weight.shape, generator=generator) * 2.0 - 1.0
            weight.copy_(sign * torch.randint(1, values + 1, weight.shape, generator=generator))
            weight[torch.rand(weight.shape, generator=generator) < already] = 0.0
    zero_before = sum(int((weight == 0).sum()) for weight in weights)
    prune_magnitude(model, amount)
    wanted = round(amount * sum(weight.numel() for weight in weights))
    assert sum(int((weight == 0).sum()) for weight in weights) == max(wanted, zero_before)


def test_embedding_and_vocabulary_projection_are_left_alone() -> None:
    model, untouched = student(), student()
    prune_magnitude(model, 0.9)
    for name, value in untouched.state_dict().items():
        linear = name.endswith(".weight") and name.removesuffix(".weight") in prunable_weights(untouched)
        assert torch.equal(model.state_dict()[name], value) != linear, name
    assert "vocab_transform" in prunable_weights(untouched)


def test_the_stage_writes_a_model_of_the_asked_sparsity(project: Path) -> None:
    metrics = run_prune(project, prune__method="magnitude", prune__amount=0.4)
    written = AutoModelForMaskedLM.from_pretrained("models/pruned")
    assert type(written).__name__ == "DistilBertForMaskedLM"
    count = sum(weight.numel() for weight in prunable_weights(written).values())
    assert metrics["sparsity"] == sparsity(written) == round(0.4 * count) / count
    assert metrics["parameters"] == metrics["parameters_before"] == parameter_count(written) == written.num_parameters()
    assert metrics["method"] == "magnitude"
    assert metrics["updates"] == 0
    assert (project / "plots/prune/plots/metrics/held_out/mlm_loss.tsv").is_file()
    tokenizer = AutoTokenizer.from_pretrained("models/pruned")
    assert tokenizer.tokenize("word1 word2") == ["word1", "word2"]


@pytest.mark.parametrize("method", ["magnitude", "structured", "vocabulary"])
def test_amount_0_changes_nothing(project: Path, method: str) -> None:
    metrics = run_prune(project, prune__method=method, prune__amount=0.0)
    written, original = load_masked_lm(Path("models/pruned")), student()
    assert {n: v.tolist() for n, v in written.state_dict().items()} == {
        n: v.tolist() for n, v in original.state_dict().items()
    }
    assert metrics["parameters"] == metrics["parameters_before"]
    torch.testing.assert_close(logits(written), logits(original))


def test_recovery_trains_and_keeps_the_zeros(project: Path) -> None:
    run_prune(project, prune__amount=0.5)
    before = prunable_weights(load_masked_lm(Path("models/pruned")))
    metrics = run_prune(project, prune__amount=0.5, prune__recovery_epochs=1.0, prune__recovery_learning_rate=1e-2)
    after = prunable_weights(load_masked_lm(Path("models/pruned")))
    assert metrics["updates"] > 0
    assert metrics["sparsity"] == 0.5
    for name, weight in after.items():
        assert torch.equal(weight == 0.0, before[name] == 0.0)
        assert not torch.equal(weight, before[name])
    losses = (project / "plots/prune/plots/metrics/held_out/loss.tsv").read_text().splitlines()[1:]
    assert float(losses[-1].split("\t")[-1]) < float(losses[0].split("\t")[-1])
    assert not any((project / ".cache/checkpoints").rglob("checkpoint-*"))
    assert json.loads((project / "data/eval/seconds/prune.json").read_text())["seconds"] > 0


def test_an_interrupted_recovery_ends_in_the_same_bytes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"prune__amount": 0.5, "prune__recovery_epochs": 1.0}
    run_prune(project, **changes)
    files = [project / "models/pruned/model.safetensors", project / "metrics/prune.json"]
    whole = [file.read_bytes() for file in files]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("stages.distillation.trainer.BlockTrainer.refuse_nan_weights", stop_at_call(2, stop))
        with pytest.raises(KeyboardInterrupt):
            run_prune(project, **changes)
    assert any((project / ".cache/checkpoints/prune").rglob("complete.json"))
    run_prune(project, **changes)
    assert [file.read_bytes() for file in files] == whole


def test_a_recovery_is_not_resumed_with_other_code(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed: list[object] = []
    monkeypatch.setattr("stages.compression.recovery.Checkpoints", lambda *parts: keyed.extend(parts))
    inputs = load_inputs(Path("models/bert"), Path("data/corpus"), 16)
    recovery_checkpoints(inputs, load_params(), Path("models/distilbert"), Path("models/bert"))
    files = {part for part in keyed if isinstance(part, Path)}
    assert {ROOT / "stages/compression/pruning.py", ROOT / "stages/modeling/zeros.py"} <= files


def stop_at_call(number: int, stop: object) -> object:
    """A method that does nothing until its `number`-th call."""
    calls = iter(range(1, number + 1))

    def method(self: object) -> None:
        if next(calls) == number:
            assert callable(stop)
            stop()

    return method


def test_a_missing_student_names_the_stage_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path)
    with pytest.raises(UserError, match=r"models/distilbert/config.json: not found; `dvc repro distill` makes it"):
        prune.main()


def test_a_damaged_student_is_told_in_one_line(project: Path) -> None:
    weights = project / "models/distilbert/model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    with pytest.raises(UserError, match=r"models/distilbert: no readable checkpoint .*`dvc repro distill`") as caught:
        prune.main()
    assert "\n" not in str(caught.value)


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def last_byte(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def all_but_four_bytes(path: Path) -> None:
    os.truncate(path, 4)


def everything(path: Path) -> None:
    os.truncate(path, 0)


def a_weight(path: Path) -> None:
    weights = load_file(path)
    weights.pop("cls.predictions.transform.dense.weight")
    save_file(weights, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("models/bert/model.safetensors", half, "models/bert: no readable checkpoint .*`dvc repro teacher`"),
        ("models/bert/model.safetensors", last_byte, "models/bert: no readable checkpoint .*`dvc repro teacher`"),
        ("models/bert/model.safetensors", all_but_four_bytes, "models/bert: no readable checkpoint .*repro teacher`"),
        ("models/bert/model.safetensors", everything, "models/bert: no readable checkpoint .*`dvc repro teacher`"),
        ("models/bert/model.safetensors", a_weight, "models/bert: lacks weights, such as cls.*`dvc repro teacher`"),
        ("models/bert/model.safetensors", Path.unlink, "models/bert/model.safetensors: not found; `dvc repro teacher`"),
        ("models/bert/config.json", half, "models/bert: no readable checkpoint .*`dvc repro teacher`"),
        ("models/bert/tokenizer.json", half, "models/bert: no readable tokenizer .*`dvc repro teacher`"),
        ("models/bert/tokenizer.json", Path.unlink, "models/bert: no tokenizer .*`dvc repro teacher`"),
        ("data/corpus/dev.parquet", half, "data/corpus/dev.parquet: damaged.*`dvc repro download`"),
        ("data/corpus/train.parquet", Path.unlink, "data/corpus/train.parquet: not found; `dvc repro download`"),
    ],
)
@pytest.mark.parametrize("stage", [distill, prune])
def test_damaged_inputs_are_told_in_one_line(
    project: Path, name: str, damage: Callable[[Path], None], message: str, stage: ModuleType
) -> None:
    damage(project / name)
    with pytest.raises(UserError, match=message) as caught:
        stage.main()
    assert "\n" not in str(caught.value)
    assert not (project / "metrics").exists()
    assert not (project / "models/pruned").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("prune__amount", 1.2, "prune.amount: 1.2 is wrong: .*less than 1"),
        ("prune__method", "magic", "prune.method: 'magic' is wrong: .*'magnitude', 'structured' or 'vocabulary'"),
        ("quantize__granularity", "row", "quantize.granularity: 'row' is wrong: .*'tensor' or 'channel'"),
    ],
)
def test_wrong_parameters_are_told_in_one_line(tmp_path: Path, key: str, value: object, message: str) -> None:
    write_params(tmp_path, **{key: value})
    with pytest.raises(UserError, match=message) as caught:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


def test_the_metrics_hold_no_null_and_no_time(project: Path) -> None:
    run_prune(project)
    first = (project / "metrics/prune.json").read_bytes()
    run_prune(project)
    assert (project / "metrics/prune.json").read_bytes() == first
    assert None not in json.loads(first).values()
