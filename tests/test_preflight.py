"""What is told, and refused, before a long run starts."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages import preflight
from stages.errors import UserError
from stages.params import Params, validate

ROOT = Path(__file__).resolve().parents[1]


def params(**changes: Any) -> Params:
    values = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
    return validate(values | changes)


def test_operations_are_two_a_parameter_forward_and_six_trained() -> None:
    one_token = preflight.CHARACTERS_PER_TOKEN / preflight.CHARACTERS_PER_BYTE
    needs = preflight.estimate(params(epochs=1), one_token, share=1.0, parameters=100.0)
    assert needs.flops == pytest.approx(2 * 100 + 6 * 50)


def test_limits_shrink_what_is_needed() -> None:
    whole = preflight.estimate(params(), 1e9, share=1.0, parameters=1e6)
    tenth = preflight.estimate(params(), 1e9, share=0.1, parameters=1e6)
    assert tenth.download == pytest.approx(whole.download / 10)
    assert tenth.flops == pytest.approx(whole.flops / 10)
    assert tenth.disk < whole.disk


def test_the_embedded_world_needs_no_word(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(preflight, "load_params", params)
    preflight.main()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("free", "says"), [(10**15, ""), (10, "disk: ")])
def test_a_full_disk_is_told_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], free: int, says: str
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("some text " * 1000)
    download = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")["download"]
    download["corpus"]["files"] = {"train": [str(text)], "dev": [str(text)]}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(preflight, "load_params", lambda: params(download=download))
    monkeypatch.setattr(preflight, "operations_per_second", lambda threads: 1e12)
    monkeypatch.setattr(preflight, "long_stages_are_done", lambda: False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    if says:
        with pytest.raises(UserError, match=says):
            preflight.main()
    else:
        preflight.main()
    assert "GiB free" in capsys.readouterr().out


def test_nothing_is_refused_where_nothing_long_has_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    download = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")["download"] | {"source": "hub"}
    monkeypatch.setattr(preflight, "load_params", lambda: params(download=download))
    monkeypatch.setattr(preflight, "long_stages_are_done", lambda: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    preflight.main()
    assert capsys.readouterr().out == ""
