"""Stage `download`: the corpus and the labelled data sets, from the generated world, the hub or files of one's own."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core.entry import run
from stages.core.params import Download, load_params

if TYPE_CHECKING:
    from stages.sources.corpus import World

DATA = Path("data")
OUTPUTS = ("corpus", "glue", "imdb", "squad")


def main() -> None:
    """Write `data/{corpus,glue,imdb,squad}`, all of it or nothing, and print what was fetched."""
    download = load_params().download
    with staged(DATA) as folder:
        records = fetch(download, folder)
    for record in records:
        rows = " + ".join(f"{counts['rows']:,}" for counts in record["splits"].values())
        print(f"{record['name']:<8} {rows:>20} rows   {record['source']:<9} {record['note']}")


def fetch(download: Download, folder: Path) -> list[dict[str, Any]]:
    """Write every data set under a folder; returns the content of each `dataset.json`."""
    from stages.sources import corpus, tasks
    from stages.sources.schema import GLUE, IMDB, SQUAD

    world = generated(download)
    seed = download.seed
    records = [corpus.write(download.corpus, download.source, seed, world, folder / "corpus")]
    for name, task in GLUE.items():
        own = {str(key): files for key, files in download.glue.files.items()}.get(name)
        records.append(tasks.write(task, download.glue, own, seed, world, folder / task.folder))
    for task, spec in ((IMDB, download.imdb), (SQUAD, download.squad)):
        records.append(tasks.write(task, spec, spec.files, seed, world, folder / task.folder))
    return records


def generated(download: Download) -> "World | None":
    """Return the rows of the embedded world, None if the source is the hub."""
    if download.source != "embedded":
        return None
    from stages.sources.world import generate

    size = download.embedded
    return generate(size.seed, size.corpus_paragraphs, size.train_rows, size.dev_rows)


@contextmanager
def staged(data: Path) -> Iterator[Path]:
    """Yield an empty folder whose parts take the place of `data`'s if the block succeeds.

    It lies within `data`, so that moving is renaming; what a killed run left in it is removed.
    """
    folder = data / ".incoming"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        for name in OUTPUTS:
            shutil.rmtree(data / name, ignore_errors=True)
            os.replace(folder / name, data / name)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    run(main)
