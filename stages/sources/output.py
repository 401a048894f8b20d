"""What a data set is written as: parquet files that depend on nothing but the rows, and `dataset.json` beside them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.core.artifacts import write_json

ROW_GROUP = 65_536  # rows that are in memory at once while a corpus streams
LABELS = {"embedded": "generated, not the published data", "files": "files of one's own"}
NAMES = {"train": "training rows", "dev": "dev rows", "dev_mismatched": "mismatched dev rows"}


class ParquetSink:
    """A parquet file that grows batch by batch, byte-identical however the rows are batched."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", version="2.6")
        self._schema = schema
        self._waiting: list[pa.Table] = []
        self._count = 0
        self.rows = 0

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        self._waiting.append(table)
        self._count += len(table)
        self.rows += len(table)
        while self._count >= ROW_GROUP:
            self._flush(ROW_GROUP)

    def _flush(self, rows: int) -> None:
        waiting = pa.concat_tables(self._waiting)
        self._writer.write_table(waiting[:rows].combine_chunks(), row_group_size=ROW_GROUP)
        self._waiting, self._count = [waiting[rows:]], self._count - rows

    def close(self) -> None:
        """Write what waits, and the footer."""
        if self._count or not self.rows:
            self._waiting = self._waiting or [self._schema.empty_table()]
            self._flush(self._count)
        self._writer.close()


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a whole table."""
    sink = ParquetSink(path, table.schema)
    sink.write(table)
    sink.close()


def describe(
    name: str, origin: Mapping[str, Any], splits: Mapping[str, Mapping[str, int]], remarks: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the content of `dataset.json`.

    `splits` gives, for each split, `rows` kept, `available` rows at the source if all were seen, and `official` rows.
    """
    smaller = [
        f"{counts['available']:,} of the official {counts['official']:,} {NAMES[split]}"
        for split, counts in splits.items()
        if counts.get("available", 0) != counts.get("official", counts.get("available", 0))
    ]
    cut = [
        f"{counts['rows']:,} of {counts['available']:,} {NAMES[split]}"
        for split, counts in splits.items()
        if counts["rows"] < counts.get("available", 0)
    ]
    sources = {one["source"] for one in (origin, *origin.get("and_also", ()))}
    part = "in part " if len(sources) > 1 else ""
    notes = [*(part + LABELS[source] for source in sorted(sources) if source in LABELS), *remarks]
    if smaller:
        notes.append(f"the repository holds {', '.join(smaller)}")
    if cut:
        notes.append(f"cut: {', '.join(cut)}")
    complete = not notes
    return {"name": name, **origin, "splits": splits, "complete": complete, "note": "; ".join(notes)}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `dataset.json`."""
    write_json(folder / "dataset.json", record)
