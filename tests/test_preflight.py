"""What is told, and refused, before a long run starts."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from stages import preflight, profile
from stages.core.errors import UserError
from stages.core.params import Params, validate
from stages.core.runtime import use_bf16
from stages.sources.schema import GLUE

Machine = Callable[[Params, float], None]
ROOT = Path(__file__).resolve().parents[1]


def params(**changes: Any) -> Params:
    values = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
    return validate(values | changes)


def test_operations_are_two_a_parameter_forward_and_six_trained() -> None:
    one_token = preflight.CHARACTERS_PER_TOKEN / preflight.CHARACTERS_PER_BYTE
    needs = preflight.estimate(params(epochs=1), one_token, share=1.0, parameters=100.0)
    assert needs.distillation == pytest.approx(2 * 100 + 6 * 50)


def test_limits_shrink_what_is_needed() -> None:
    whole = preflight.estimate(params(), 1e9, share=1.0, parameters=1e6)
    tenth = preflight.estimate(params(), 1e9, share=0.1, parameters=1e6)
    assert tenth.download == pytest.approx(whole.download / 10)
    assert tenth.distillation == pytest.approx(whole.distillation / 10)
    assert tenth.disk < whole.disk


def test_the_embedded_world_needs_no_word(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(preflight, "load_params", params)
    preflight.main()
    assert capsys.readouterr().out == ""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Run the preflight with these parameters on a machine with that much free disk."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(preflight, "operations_per_second", lambda hardware: 1e12)
    monkeypatch.setattr(preflight, "are_done", lambda *stages: False)

    def run(chosen: Params, free: float) -> None:
        monkeypatch.setattr(preflight, "load_params", lambda: chosen)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
        preflight.main()

    return run


def with_own_text(tmp_path: Path, **changes: Any) -> Params:
    text = tmp_path / "text.txt"
    text.write_text("some text " * 1000)
    download = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")["download"]
    download["corpus"]["files"] = {"train": [str(text)], "dev": [str(text)]}
    return params(download=download, **changes)


def test_a_full_disk_is_told_before_the_start(
    tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(with_own_text(tmp_path), 10**15)
    shown = capsys.readouterr().out
    assert "GiB free" in shown
    assert re.search(r"hours of distillation and \d+\.\d of fine-tuning", shown)
    with pytest.raises(UserError, match="disk: "):
        machine(with_own_text(tmp_path), 10)


def test_too_little_memory_is_told_before_the_start(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**18}  # 1 GiB
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    with pytest.raises(UserError, match="memory: 3 GiB needed, 1 GiB there; a smaller teacher"):
        machine(with_own_text(tmp_path), 10**15)


def profile_of(name: str, **corpus: Any) -> Params:
    values = YAML(typ="safe", pure=True).load(profile.render([name]))
    values["download"]["corpus"] |= corpus
    return validate(values)


def test_downloads_of_the_hub_are_corpus_tasks_and_weights(
    hub: Path, machine: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes come from the hub, here its mirror, without a download of the data."""
    chosen = profile_of("mini", repository="local/gutenberg", config="default", revision="0" * 40, max_train_rows=None)
    text, share = preflight.corpus_size(chosen.download.corpus)
    tasks = preflight.tasks_size(chosen.download)
    assert (text > 1e6, share) == (True, 1.0)
    assert tasks > 1e6
    assert preflight.weights_size(chosen.teacher) == 0, "they come with a package"
    assert preflight.needs_of(chosen, fetched=False).download == text + tasks
    machine(chosen, 10**15)
    assert f"downloads {(text + tasks) / 2**30:.1f} GiB" in capsys.readouterr().out
    teacher = profile_of("reproduction").teacher
    monkeypatch.setattr(preflight.Repository, "sizes", {"model.safetensors": 440_449_768})
    assert preflight.weights_size(teacher) == 440_449_768


def test_fine_tuning_counts_rows_epochs_models_and_seeds() -> None:
    one = preflight.fine_tuning(params(), 1e6)
    assert preflight.fine_tuning(params(seeds=[1, 2, 3]), 1e6) == pytest.approx(3 * one)
    assert preflight.fine_tuning(params(models={"bert": "models/bert"}), 1e6) == pytest.approx(one / 1.5)
    only = {"glue": {"tasks": {"RTE": {"epochs": 2.0}}}, "imdb": {"tasks": {}}, "squad": {"tasks": {}}}
    tokens = 512 * 2 * preflight.ROW_TOKENS["glue"]
    assert preflight.fine_tuning(params(**only), 1e6) == pytest.approx(6 * 1e6 * 1.5 * tokens)


def test_the_limit_or_the_published_rows_count_for_the_hub() -> None:
    download = profile_of("mini").download
    assert preflight.rows(download, download.glue, GLUE["MNLI"]) == 1000
    assert preflight.rows(download, download.glue, GLUE["WNLI"]) == 635


def test_the_published_sizes_tell_their_disk_and_time(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine(profile_of("size"), 10**15)
    assert "disk 4 of" in (shown := capsys.readouterr().out)
    assert "a quarter of an hour" in shown
    with pytest.raises(UserError, match="disk: 4 GiB needed, 1 GiB free"):
        machine(profile_of("size"), 2**30)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_speed_is_measured_in_the_precision_of_training(
    precision: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda size, **options: asked.append(options["dtype"]) or ones(1, 1))
    assert preflight.operations_per_second(params(hardware={"threads": 1, "precision": precision}).hardware) > 0
    assert asked == [dtype, dtype]


@pytest.mark.parametrize(
    ("processor", "instructions", "faster"),
    [
        ("Intel Xeon", {"avx512_bf16": True}, False),  # a virtual machine that hides AMX
        ("Intel Xeon", {"avx512_bf16": True, "amx_bf16": True}, True),
        ("AMD EPYC", {"avx512_bf16": True}, True),
        ("AMD EPYC", {"avx512_bf16": False}, False),
        ("", {"avx512_bf16": True}, False),
        ("Neoverse", {"sve_bf16": True}, True),
        ("Neoverse", {"bf16": True}, True),
    ],
)
def test_auto_trains_in_bf16_where_the_processor_gains_by_it(
    processor: str, instructions: dict[str, bool], faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": processor, **instructions})
    assert use_bf16(params(hardware={"threads": 1, "precision": "auto"}).hardware) == faster
    assert use_bf16(params(hardware={"threads": 1, "precision": "bf16"}).hardware)
    assert not use_bf16(params(hardware={"threads": 1, "precision": "fp32"}).hardware)


@pytest.mark.parametrize("native", [True, False])
def test_auto_trains_in_bf16_on_a_gpu_that_has_it(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert use_bf16(params(hardware={"threads": 1, "precision": "auto"}).hardware) == native


def test_what_was_fetched_is_not_asked_for_again(
    tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `make pull` on a machine without network, where a change of a parameter is tried."""
    monkeypatch.setattr(preflight, "are_done", lambda *stages: len(stages) == 1)
    monkeypatch.setattr(preflight, "TEXT", tmp_path / "train.parquet")
    preflight.TEXT.write_bytes(b"x" * 10**6)
    monkeypatch.setattr(preflight.Repository, "sizes", property(lambda _: pytest.fail("the hub was asked")))
    machine(profile_of("reproduction"), 10**15)
    assert "downloads 0.0 GiB" in capsys.readouterr().out


def test_nothing_is_refused_where_nothing_long_has_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    download = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")["download"] | {"source": "hub"}
    monkeypatch.setattr(preflight, "load_params", lambda: params(download=download))
    monkeypatch.setattr(preflight, "are_done", lambda *stages: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    preflight.main()
    assert capsys.readouterr().out == ""
