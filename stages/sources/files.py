"""Files of one's own: parquet, jsonl and text, checked row by row."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.core.artifacts import file_sha256, readable_parquet
from stages.core.errors import UserError
from stages.core.params import Files
from stages.sources.schema import Task, check_spans, conform

SUFFIXES = (".parquet", ".jsonl", ".txt")
REPLACE = "replace it by a whole copy"
BATCH = 16_384  # rows read at once


def existing(paths: list[str], suffixes: tuple[str, ...]) -> list[Path]:
    """Return the paths, each an existing file of an allowed kind; UserError otherwise."""
    for name in paths:
        if not Path(name).is_file():
            raise UserError(f"{name}: no such file; paths in `params.yaml` start at the project's root")
        if Path(name).suffix not in suffixes:
            raise UserError(f"{name}: expected a file that ends in {', '.join(suffixes)}")
    return [Path(name) for name in paths]


def origin(files: Files) -> dict[str, Any]:
    """Return what `dataset.json` says about the rows' origin: each file with its SHA-256."""
    used = {split: paths for split, paths in files.model_dump().items() if paths}
    for paths in used.values():
        existing(paths, SUFFIXES)
    return {
        "source": "files",
        "files": {split: {path: file_sha256(Path(path)) for path in paths} for split, paths in used.items()},
    }


def read_task(paths: list[str], task: Task) -> pa.Table:
    """Read a task from parquet or jsonl files; UserError names file, row and what is wrong."""
    tables = [
        conform(read_parquet(path) if path.suffix == ".parquet" else _read_jsonl(path, task.columns), task, str(path))
        for path in existing(paths, (".parquet", ".jsonl"))
    ]
    table = pa.concat_tables(tables)
    if task.classes is None:
        check_spans(table, ", ".join(paths))
    return table


def read_parquet(path: Path, where: str | None = None) -> pa.Table:
    """Read a whole parquet file; UserError if it is none, or damaged."""
    with readable_parquet(where or path, REPLACE):
        return pq.ParquetFile(path).read()


def _read_jsonl(path: Path, columns: pa.Schema) -> pa.Table:
    rows = []
    for number, row in _json_rows(path):
        for column in columns:
            if column.name not in row:
                raise UserError(f"{path}: row {number}: no key {column.name!r}; it has {', '.join(row)}")
            if (problem := _mismatch(row[column.name], column.type)) is not None:
                raise UserError(f"{path}: row {number}: {column.name!r} is {problem}, expected {column.type}")
        rows.append({name: row[name] for name in columns.names})
    return pa.Table.from_pylist(rows, schema=columns)


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number, from 1, and object of each line that is not blank."""
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: row {number}: not valid JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number}: expected an object, found {type(row).__name__}")
        yield number, row


def _mismatch(value: Any, expected: pa.DataType) -> str | None:
    """Tell what a JSON value is, if it is not of the expected type."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    try:
        pa.scalar(value, type=expected)
    except UnicodeEncodeError as error:
        return f"text with half a surrogate pair, {error.object[error.start]!r}"
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, OverflowError):
        return f"{value!r:.60}"
    return f"{value!r}" if pa.types.is_integer(expected) and not isinstance(value, int) else None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 file."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{path}: row {number}: not UTF-8 ({error})") from error


def text_batches(path: Path, column: str, where: str | None = None) -> Iterator[pa.Array]:
    """Yield the texts of a parquet, jsonl or txt file, some thousand at a time.

    In a txt file blank lines part the paragraphs; one without blank lines holds a paragraph a line.
    """
    if path.suffix == ".parquet":
        yield from _parquet_texts(path, column, where or str(path))
        return
    texts = _txt_paragraphs(path) if path.suffix == ".txt" else _jsonl_texts(path, column)
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH:
            yield pa.array(batch, pa.string())
            batch = []
    if batch:
        yield pa.array(batch, pa.string())


def _parquet_texts(path: Path, column: str, where: str) -> Iterator[pa.Array]:
    with readable_parquet(where, REPLACE):
        source = pq.ParquetFile(path)
    if column not in source.schema_arrow.names:
        raise UserError(f"{where}: no column {column!r}; it has {', '.join(source.schema_arrow.names)}")
    given = source.schema_arrow.field(column).type
    if not (pa.types.is_string(given) or pa.types.is_large_string(given)):
        raise UserError(f"{where}: column {column!r} holds {given}, expected text")
    with readable_parquet(where, REPLACE):
        for batch in source.iter_batches(BATCH, columns=[column]):
            yield batch.column(0)


def _jsonl_texts(path: Path, column: str) -> Iterator[str]:
    for number, row in _json_rows(path):
        if (problem := _mismatch(row.get(column), pa.string())) is not None:
            raise UserError(f"{path}: row {number}: {column!r} is {problem}, expected text")
        yield row[column]


def _txt_paragraphs(path: Path) -> Iterator[str]:
    if not _has_parted_paragraphs(path):
        yield from (line for _, line in _lines(path))
        return
    paragraph: list[str] = []
    for _, line in _lines(path):
        if line.strip():
            paragraph.append(line.strip())
        elif paragraph:
            yield " ".join(paragraph)
            paragraph = []
    if paragraph:
        yield " ".join(paragraph)


def _has_parted_paragraphs(path: Path) -> bool:
    """Whether a blank line stands between two lines of text."""
    text = parted = False
    for _, line in _lines(path):
        blank = not line.strip()
        if parted and not blank:
            return True
        text, parted = text or not blank, text and blank
    return False
