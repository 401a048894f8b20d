"""Reading checkpoint folders: whatever is wrong with their files is told in one line, with the way out."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from stages.core.errors import UserError

STAGES = {
    "bert": "teacher",
    "distilbert": "distill",
    "pruned": "prune",
    "quantized": "quantize",
    "combined": "quantize",
}
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
REASON_LENGTH = 200


def repair(folder: Path) -> str:
    """Say how a checkpoint folder is made."""
    if folder.name in STAGES:
        return f"`dvc repro {STAGES[folder.name]}` makes it"
    return f"`make fetch NAME={folder.name} REPO=... REVISION=...` brings one from the hub"


@contextmanager
def readable(folder: Path, way_out: str | None = None) -> Iterator[None]:
    """Around the reading of a checkpoint folder: UserError if its files are missing or damaged.

    `way_out` says what to do then, where it is not a folder of `models/`.
    """
    way_out = way_out or repair(folder)
    for names in (("config.json",), WEIGHT_FILES):
        if not any((folder / name).is_file() for name in names):
            raise UserError(f"{folder / names[0]}: not found; {way_out}")
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:REASON_LENGTH]
        raise UserError(
            f"{folder}: no readable checkpoint ({reason}); if it is damaged, delete it: {way_out}"
        ) from error


def require_all_weights(folder: Path, missing: Collection[str]) -> None:
    """Raise UserError if a checkpoint folder lacks weights of its model, which would be random ones."""
    if missing:
        raise UserError(f"{folder}: lacks weights, such as {min(missing)}; delete it, then {repair(folder)}")


def load_tokenizer(folder: Path, way_out: str | None = None) -> PreTrainedTokenizerBase:
    """Load a checkpoint folder's tokenizer; UserError if it has none, or a damaged one. `way_out` as for `readable`."""
    way_out = way_out or repair(folder)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise UserError(f"{folder}: no tokenizer ({' or '.join(TOKENIZER_FILES)}); delete it, then {way_out}")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the Rust library raises its errors as plain Exception
        reason = " ".join(str(error).split())[:REASON_LENGTH]
        raise UserError(
            f"{folder}: no readable tokenizer ({reason}); if it is damaged, delete it: {way_out}"
        ) from error
    return tokenizer
