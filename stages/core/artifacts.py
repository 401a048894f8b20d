"""Outputs that are either whole or absent: atomic writes, and hashes of files and settings."""

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.core.errors import DENIED, FULL, UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`, a file or a folder to be made, that takes its place if the block succeeds.

    What lay at `path` stays until then; after an error nothing of the new output is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # by a process that was killed
        if left == temporary or not _runs(left.name.split(".")[-2]):
            _remove(left)
    try:
        yield temporary
        if temporary.is_dir() and path.exists():
            _remove(path)  # a folder cannot be renamed onto another
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def _runs(process: str) -> bool:
    """Whether a process of that number runs; a name of another kind is not ours to judge."""
    if not process.isdigit():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN, which JSON does not know, is a ValueError."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_rows(folder: Path, rows: Mapping[str, Any]) -> None:
    """Write a JSON file a table row; the folder takes the old one's place when it is complete."""
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name, row in rows.items():
            write_json(temporary / f"{name}.json", row)


def read_json(path: Path) -> Any:
    """Read a JSON file; UserError if it is missing or truncated."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found; `dvc repro` makes it") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); delete it and run `dvc repro`") from error


@contextmanager
def readable_parquet(where: Path | str, way_out: str = "delete it and run `dvc repro download`") -> Iterator[None]:
    """Around the reading of a parquet file: UserError if it is missing or damaged; a flipped bit is an OSError."""
    from pyarrow import ArrowException  # which not every stage needs

    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{where}: not found; `dvc repro download` makes it") from error
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno in (*FULL, *DENIED):
            raise  # for `stages/core/entry.py` to tell
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: damaged, or no parquet file ({reason}); {way_out}") from error


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(*parts: Any) -> str:
    """Hex SHA-256 of JSON-like values and of the contents of the files and folders given as Path."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            files = sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
            part = {str(p.relative_to(part)): file_sha256(p) for p in files}
        total.update(json.dumps(part, sort_keys=True).encode() + b"\0")
    return total.hexdigest()
