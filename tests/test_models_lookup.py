"""Where a checkpoint is looked up: folder, the hub's cache, installed packages, the hub; and what is refused."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from stages.core.errors import UserError
from stages.sources import models
from stages.sources.hub import Repository
from stages.sources.models import PACKAGES, Package, install, resolve_model

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = PACKAGES[MINILM]
installed = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE.module) is None, reason=f"package {PACKAGE.package} is not installed"
)


def checkpoint(folder: Path, weights: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "vocab.txt").write_text("[PAD]\n")
    if weights.endswith(".safetensors"):
        save_file({"weight": np.zeros(2, np.float32)}, folder / weights)
    elif weights:
        (folder / weights).write_bytes(b"")
    return folder


def test_a_folder_is_itself(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "mine")
    assert resolve_model(str(folder), None) == folder


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("pytorch_model.bin", r"only in pytorch_model\.bin, a format that can run code"),
        ("", r"holds no weights \(model\.safetensors\)"),
        ("other.safetensors", "holds no weights"),
    ],
)
def test_a_folder_without_safetensors_weights_is_refused(tmp_path: Path, weights: str, message: str) -> None:
    folder = checkpoint(tmp_path / "mine", weights)
    with pytest.raises(UserError, match=message):
        resolve_model(str(folder), None)


def test_a_sharded_checkpoint_needs_all_its_shards(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "mine", "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="some of the weights"):
        resolve_model(str(folder), None)
    shutil.copy(folder / "model-1.safetensors", folder / "model-2.safetensors")
    assert resolve_model(str(folder), None) == folder
    index["weight_map"]["b"] = "../model-2.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="no safetensors files beside it"):
        resolve_model(str(folder), None)


def test_what_is_neither_folder_nor_pinned_id_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder, and no model id"):
        resolve_model(str(tmp_path / "absent"), None)
    with pytest.raises(UserError, match="give the revision"):
        resolve_model("owner/name", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        resolve_model(str(tmp_path / "empty"), None)


# --- installed packages


@installed
def test_a_package_is_found_without_being_imported_and_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    folder = resolve_model(MINILM, PACKAGE.revision)
    assert (folder / "model.safetensors").is_file()
    assert folder == resolve_model(MINILM, None)
    assert PACKAGE.module not in sys.modules


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that carries a checkpoint and would fail if it were imported."""
    folder = checkpoint(tmp_path / "site" / "carrier" / "model")
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    files = {path.name: models.file_sha256(path) for path in folder.iterdir()}
    monkeypatch.setitem(models.PACKAGES, "owner/carried", Package("carrier", "carrier", "model", "1" * 40, files))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


def test_a_tampered_package_is_refused(packaged: Path) -> None:
    assert resolve_model("owner/carried", "1" * 40) == packaged
    weights = bytearray((packaged / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (packaged / "model.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match=r"model\.safetensors: not the file that is pinned.*reinstall"):
        resolve_model("owner/carried", "1" * 40)


def test_a_package_does_not_stand_in_for_another_revision(packaged: Path, hub: Path) -> None:
    with pytest.raises(UserError, match="model owner/carried at revision 2222"):
        resolve_model("owner/carried", "2" * 40)


# --- the hub


@installed
def test_the_hub_serves_safetensors_config_and_tokenizer_only_and_its_cache_comes_first(
    hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(models, "PACKAGES", {})
    folder = resolve_model(MINILM, PACKAGE.revision)
    assert sorted(path.name for path in folder.iterdir()) == sorted(PACKAGE.files)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    shutil.rmtree(folder.parents[1] / "trees")  # as a download by other clients leaves it
    assert resolve_model(MINILM, PACKAGE.revision) == folder
    monkeypatch.setattr(models, "PACKAGES", {MINILM: PACKAGE})
    assert resolve_model(MINILM, PACKAGE.revision) == folder
    target = install("released", MINILM, PACKAGE.revision, tmp_path / "models")
    assert sorted(path.name for path in target.iterdir()) == sorted(PACKAGE.files)
    assert not any(path.is_symlink() for path in target.iterdir())
    vocabulary = (folder / "vocab.txt").resolve()
    vocabulary.write_text("tampered")
    assert resolve_model(MINILM, PACKAGE.revision) != folder  # the package instead


def test_a_repository_without_weights_is_refused(hub: Path) -> None:
    with pytest.raises(UserError, match=r"distilbert-base-uncased at revision 1111.* holds no weights"):
        resolve_model("distilbert/distilbert-base-uncased", "1" * 40)
    with pytest.raises(UserError, match=r"model nobody/nothing at revision 1111.* not on http"):
        resolve_model("nobody/nothing", "1" * 40)


def test_a_repository_with_pickled_weights_only_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Repository, "sizes", {"config.json": 1, "pytorch_model.bin": 1})
    with pytest.raises(UserError, match=r"only in pytorch_model\.bin, a format that can run code"):
        resolve_model("owner/name", "1" * 40)


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [("bert", "1" * 40, "NAME=bert"), ("../x", "1" * 40, r"NAME=\.\./x"), ("mine", "main", "REVISION=main")],
)
def test_a_wrong_name_or_revision_is_told(name: str, revision: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        install(name, MINILM, revision, tmp_path)
    assert not any(tmp_path.iterdir())
