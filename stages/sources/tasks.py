"""One labelled data set, from whichever source: read, checked, cut to size, written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.core.errors import UserError
from stages.core.params import DataSet, Files
from stages.sources import files
from stages.sources.corpus import World
from stages.sources.datacard import DataCard
from stages.sources.hub import Repository
from stages.sources.output import describe, write_parquet, write_record
from stages.sources.sampling import draw, generator
from stages.sources.schema import Task, conform


def write(task: Task, spec: DataSet, own: Files | None, seed: int, world: World | None, folder: Path) -> dict[str, Any]:
    """Write a task's splits and `dataset.json` into a folder; returns the latter's content.

    Rows come from files of one's own if there are any, else from the generated world, else from the hub.
    """
    if own is not None:
        tables, origin = _from_files(task, own), files.origin(own)
    elif world is not None:
        tables, origin = _from_world(task, world), {"source": "embedded"}
    else:
        tables = _from_hub(task, Repository(spec.repository, spec.revision))
        origin = {"source": "hub", "repository": spec.repository, "revision": spec.revision}
    splits = {}
    for split, table in tables.items():
        if not len(table):
            raise UserError(f"{task.name}: no rows for {split}")
        limit = spec.max_train_rows if split == "train" else spec.max_dev_rows
        kept = cut(table, task, limit, seed, f"{task.name}/{split}")
        write_parquet(folder / f"{split}.parquet", kept)
        official = {"official": task.official[split]} if origin["source"] == "hub" else {}
        splits[split] = {"rows": len(kept), "available": len(table), **official}
    record = describe(task.name, origin, splits)
    write_record(folder, record)
    return record


def cut(table: pa.Table, task: Task, limit: int | None, seed: int, name: str) -> pa.Table:
    """Return the rows that a limit keeps, shuffled and, for a classification task, class-balanced."""
    classes = table["label"].to_numpy() if task.classes else None
    return table.take(pa.array(draw(len(table), limit, generator(seed, name), classes)))


def _from_files(task: Task, own: Files) -> Mapping[str, pa.Table]:
    return {split: files.read_task(getattr(own, split), task) for split in task.splits}


def _from_world(task: Task, world: World) -> Mapping[str, pa.Table]:
    rows = world[task.name if task.folder.startswith("glue") else task.name.lower()]
    return {
        split: conform(pa.Table.from_pylist(rows[split], schema=task.columns), task, f"generated {task.name}")
        for split in task.splits
    }


def _from_hub(task: Task, repository: Repository) -> Mapping[str, pa.Table]:
    """Read all splits; UserError if rows, columns or labels are not those that the repository announces."""
    card = DataCard(repository, task.config)
    if task.labels and (found := card.labels("label")) not in (None, task.labels):
        raise UserError(
            f"{repository}: {task.config} announces the labels {', '.join(found)}; {task.name} needs, in this order, "
            f"{', '.join(task.labels)}"
        )
    tables = {}
    for split, theirs in task.splits.items():
        if theirs not in card.splits:
            raise UserError(f"{repository}: {task.config} has no split {theirs!r}, only {', '.join(card.splits)}")
        table = pa.concat_tables([_read(repository, path, task) for path in card.splits[theirs]])
        if card.rows.get(theirs) not in (None, len(table)):
            raise UserError(
                f"{repository}: {task.config}/{theirs} holds {len(table):,} rows, announced are {card.rows[theirs]:,}"
            )
        tables[split] = table
    return tables


def _read(repository: Repository, path: str, task: Task) -> pa.Table:
    where = f"{repository}, {path}"
    return conform(files.read_parquet(repository.fetch(path), where), task, where)
