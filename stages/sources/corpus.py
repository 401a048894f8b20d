"""Running text for MLM: streamed from the hub, files or the generated world into paragraphs, and cut on the way."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from stages.core.errors import UserError
from stages.core.params import Corpus, Files
from stages.sources import files
from stages.sources.datacard import DataCard
from stages.sources.hub import Repository
from stages.sources.output import ParquetSink, describe, write_record
from stages.sources.sampling import Scatter, generator

SCHEMA = pa.schema([("text", pa.string())])
HELD_OUT = 4_000  # dev paragraphs taken from text without a validation split, at most a tenth of it

World = Mapping[str, Mapping[str, list[dict[str, Any]]]]


class Shards(Protocol):
    """The text of a split, in parts that are fetched one by one."""

    def __len__(self) -> int:
        """Return the number of parts."""
        ...

    def read(self, part: int) -> Iterator[pa.Array]:
        """Yield the texts of one part, batch by batch."""
        ...


@dataclass
class HubShards:
    """A split of a repository, a parquet file a part."""

    repository: Repository
    paths: list[str]
    column: str
    announced: int | None

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, part: int) -> Iterator[pa.Array]:
        """Yield the texts of one file, downloaded if need be."""
        local = self.repository.fetch(self.paths[part])
        return files.text_batches(local, self.column, f"{self.repository}, {self.paths[part]}")


@dataclass
class FileShards:
    """Files of one's own, a file a part."""

    paths: list[str]
    column: str

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, part: int) -> Iterator[pa.Array]:
        """Yield the texts of one file."""
        (path,) = files.existing([self.paths[part]], (".parquet", ".jsonl", ".txt"))
        return files.text_batches(path, self.column)


@dataclass
class RowShards:
    """Rows in memory, one part."""

    rows: list[dict[str, Any]]

    def __len__(self) -> int:
        return 1

    def read(self, part: int) -> Iterator[pa.Array]:
        """Yield all texts."""
        yield pa.array([row["text"] for row in self.rows], pa.string())


@dataclass
class Text:
    """One source of the corpus; `dev` None holds dev text out of the training text."""

    name: str
    origin: dict[str, Any]
    train: Shards
    dev: Shards | None
    limits: tuple[int | None, int | None]  # paragraphs of train and dev


@dataclass
class Poured:
    """What one source gave: rows written and, where every part was read, the rows that were there."""

    rows: int
    available: int | None
    parts: tuple[int, int]  # read, of all


def write(spec: Corpus, source: str, seed: int, world: World | None, folder: Path) -> dict[str, Any]:
    """Write the corpus's `train.parquet`, `dev.parquet` and `dataset.json`; returns the latter's content."""
    texts = [_open(part, source, world) for part in (spec, *spec.and_also)]
    train, dev = (ParquetSink(folder / f"{split}.parquet", SCHEMA) for split in ("train", "dev"))
    poured = [_pour_both(text, train, dev, seed) for text in texts]
    train.close()
    dev.close()
    splits: dict[str, dict[str, int]] = {}
    for index, split in enumerate(("train", "dev")):
        splits[split] = {"rows": sum(pair[index].rows for pair in poured)}
        available = [pair[index].available for pair in poured]
        if None not in available:
            splits[split]["available"] = sum(count for count in available if count is not None)
        if not splits[split]["rows"]:
            raise UserError(f"download.corpus: {', '.join(text.name for text in texts)}: no {split} text")
    remarks = [
        f"drawn from {pair[0].parts[0]} of {pair[0].parts[1]} files of {text.name}"
        for text, pair in zip(texts, poured, strict=True)
        if pair[0].parts[0] < pair[0].parts[1]
    ]
    origin = texts[0].origin | ({"and_also": [text.origin for text in texts[1:]]} if texts[1:] else {})
    record = describe("corpus", origin, splits, remarks)
    write_record(folder, record)
    return record


def _open(spec: Corpus, source: str, world: World | None) -> Text:
    """Find a source's splits: own files before the generated world or the hub."""
    limits = spec.max_train_rows, spec.max_dev_rows
    if spec.files is not None:
        return _open_files(spec.files, spec.text_column, limits)
    if world is not None and source == "embedded":
        return Text(
            "the generated corpus",
            {"source": "embedded"},
            RowShards(world["corpus"]["train"]),
            RowShards(world["corpus"]["validation"]),
            limits,
        )
    repository = Repository(spec.repository, spec.revision)
    card = DataCard(repository, spec.config)
    if "train" not in card.splits:
        raise UserError(f"{repository}: no split 'train'; it has {', '.join(card.splits)}")
    splits = {
        split: HubShards(repository, paths, spec.text_column, card.rows.get(split))
        for split, paths in card.splits.items()
    }
    origin = {"source": "hub", "repository": spec.repository, "revision": spec.revision}
    return Text(spec.repository, origin, splits["train"], splits.get("validation", splits.get("dev")), limits)


def _open_files(own: Files, column: str, limits: tuple[int | None, int | None]) -> Text:
    return Text(own.train[0], files.origin(own), FileShards(own.train, column), FileShards(own.dev, column), limits)


def _pour_both(text: Text, train: ParquetSink, dev: ParquetSink, seed: int) -> tuple[Poured, Poured]:
    """Write one source's paragraphs, in document order, cut to its limits."""
    random = [generator(seed, f"corpus/{split}/{text.name}") for split in ("train", "dev")]
    if text.dev is not None:
        return _pour(text.train, train, text.limits[0], random[0]), _pour(text.dev, dev, text.limits[1], random[1])
    wanted = None if text.limits[0] is None else 10 * max(text.limits[0], text.limits[1] or HELD_OUT) // 9 + 10
    parts = _count(text.train, wanted, random[0])
    total = sum(parts.values())
    held_out = min(text.limits[1] or HELD_OUT, total // 10)
    rest = min(text.limits[0] or total, total - held_out)
    _scatter(text.train, parts, (train, dev), (rest, held_out), random[0])
    _check_rows(text.train, parts)
    read = len(parts), len(text.train)
    return (
        Poured(rest, total - held_out if read[0] == read[1] else None, read),
        Poured(held_out, held_out, read),
    )


def _pour(shards: Shards, sink: ParquetSink, limit: int | None, random: np.random.RandomState) -> Poured:
    """Write one split, whole or cut."""
    before = sink.rows
    if limit is None:
        for part in tqdm(range(len(shards)), unit="file", disable=None):
            for batch in shards.read(part):
                _append(sink, paragraphs(batch))
        parts = dict.fromkeys(range(len(shards)), 0)
        available: int | None = sink.rows - before
    else:
        parts = _count(shards, limit, random)
        total = sum(parts.values())
        _scatter(shards, parts, (sink,), (min(limit, total),), random)
        available = total if len(parts) == len(shards) else None
    _check_rows(shards, parts)
    return Poured(sink.rows - before, available, (len(parts), len(shards)))


def _count(shards: Shards, enough: int | None, random: np.random.RandomState) -> dict[int, int]:
    """Part -> its paragraphs, for as many parts, drawn at random, as it takes to have enough; all if None."""
    counts: dict[int, int] = {}
    for part in tqdm(random.permutation(len(shards)).tolist(), unit="file", disable=None):
        counts[part] = sum(len(paragraphs(batch)) for batch in shards.read(part))
        if enough is not None and sum(counts.values()) >= enough:
            break
    return dict(sorted(counts.items()))


def _scatter(
    shards: Shards,
    parts: Mapping[int, int],
    sinks: Sequence[ParquetSink],
    wanted: Sequence[int],
    random: np.random.RandomState,
) -> None:
    """Write disjoint samples of the wanted sizes, one a sink, each in document order."""
    draws = Scatter(sum(parts.values()), wanted, random)
    for part in tqdm(parts, unit="file", disable=None):
        for batch in shards.read(part):
            text = paragraphs(batch)
            for sink, indices in zip(sinks, draws.picks(len(text)), strict=True):
                _append(sink, text.take(pa.array(indices)))


def _check_rows(shards: Shards, parts: Mapping[int, int]) -> None:
    """Raise UserError if all files of a hub's split were read and hold other rows than the repository announces."""
    if isinstance(shards, HubShards) and len(parts) == len(shards) and shards.announced is not None:
        rows = sum(pq.read_metadata(shards.repository.fetch(path)).num_rows for path in shards.paths)
        if rows != shards.announced:
            where = f"{shards.repository}: {shards.paths[0]}"
            raise UserError(f"{where} and its like hold {rows:,} rows, announced are {shards.announced:,}")


def _append(sink: ParquetSink, text: pa.Array) -> None:
    sink.write(pa.table([text.cast(pa.string())], schema=SCHEMA))


def paragraphs(texts: pa.Array) -> pa.Array:
    """Split texts at blank lines into paragraphs, trimmed, without the empty ones."""
    parts = pc.list_flatten(pc.split_pattern_regex(texts.cast(pa.large_string()), r"\n[ \t\r]*\n"))
    trimmed = pc.utf8_trim_whitespace(parts.drop_null())
    return trimmed.filter(pc.not_equal(trimmed, ""))
