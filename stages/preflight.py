"""What a long run needs of this machine, told before it starts: downloads, disk, memory and a rough duration."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from stages.core import entry
from stages.core.errors import UserError
from stages.core.params import Corpus, DataSet, Download, Hardware, Params, Recipe, Teacher, load_params
from stages.sources import files
from stages.sources.datacard import DataCard
from stages.sources.hub import Repository, cached
from stages.sources.models import MODEL_ID, PACKAGES, WEIGHTS
from stages.sources.schema import GLUE, IMDB, SQUAD, Task

TEXT = Path("data/corpus/train.parquet")
GIB = 2.0**30
CHARACTERS_PER_BYTE = 1.8  # parquet compresses English text about that much
CHARACTERS_PER_TOKEN = 4.5
DISK_PER_BYTE = 3.0  # the hub client's copy, the pipeline's own and the tokenised blocks
CELL_BYTES = 2 * 2**20
CHECKPOINTS = 6  # of a model with its optimizer: two kept, one being written, for teacher and student
SIZES = {"base": 110e6, "large": 335e6}  # parameters of BERT, by what is in its name; others are taken for small
SMALL = 23e6
EFFICIENCY = 0.3  # of the measured matrix product's speed that a training step reaches
# Tokens of a row, padding included: sentences and pairs of GLUE, reviews of 230 words (Maas et al. 2011), windows of
# 120-word paragraphs with a question (Rajpurkar et al. 2016).
ROW_TOKENS = {"glue": 50, "imdb": 300, "squad": 180}
SIZE_DISK = 4 * GIB  # profile `size`, measured: docs/results.md
SIZE_TIME = "a quarter of an hour on 2 cores"


@dataclass(frozen=True)
class Needs:
    """Bytes to download and to keep on disk, bytes of memory, floating-point operations of training."""

    download: float
    disk: float
    memory: float
    distillation: float
    fine_tuning: float


def estimate(params: Params, corpus_bytes: float, share: float, parameters: float, further_bytes: float = 0) -> Needs:
    """Estimate from the corpus's bytes, the share of its rows that is kept, and the teacher's parameters.

    `further_bytes` are those of weights and labelled data. A token costs 2 operations a parameter forward and 4
    backward (Kaplan et al. 2020, section 2.1); the student has about half the teacher's parameters and only it is
    distilled.
    """
    tokens = params.epochs * share * corpus_bytes * CHARACTERS_PER_BYTE / CHARACTERS_PER_TOKEN
    cells = len(params.models) * len(params.seeds) * sum(len(s.tasks) for s in (params.glue, params.imdb, params.squad))
    weights = 4 * parameters
    text = corpus_bytes * share
    download = further_bytes + (0 if params.download.corpus.files else text)
    return Needs(
        download=download,
        disk=DISK_PER_BYTE * (text + further_bytes) + cells * CELL_BYTES + CHECKPOINTS * 3 * weights,
        memory=8 * weights + 2 * GIB,
        distillation=tokens * (2 * parameters + 6 * parameters / 2),
        fine_tuning=fine_tuning(params, parameters),
    )


def fine_tuning(params: Params, parameters: float) -> float:
    """Count the operations of all cells: 6 a parameter and token, the rows without a teacher being of half its size."""
    tokens = sum(
        rows(params.download, spec, task) * recipe.epochs * min(recipe.max_length, ROW_TOKENS[suite])
        for suite, spec, task, recipe in cells(params)
    )
    models = sum(1.0 if name == "bert" else 0.5 for name in params.models)
    return 6 * parameters * models * len(params.seeds) * tokens


def cells(params: Params) -> Iterator[tuple[str, DataSet, Task, Recipe]]:
    """Iterate over the tasks to fine-tune on: suite, data set, task and recipe."""
    source = params.download
    for name, glue in params.glue.tasks.items():
        yield "glue", source.glue, GLUE[str(name)], glue.applied_to(params.finetune)
    for imdb in params.imdb.tasks.values():
        yield "imdb", source.imdb, IMDB, imdb.applied_to(params.finetune)
    for squad in params.squad.tasks.values():
        yield "squad", source.squad, SQUAD, squad.applied_to(params.finetune)


def rows(download: Download, spec: DataSet, task: Task) -> int:
    """Return a task's training rows: those of the generated world, or the published ones within the limit."""
    if download.source == "embedded":
        return download.embedded.train_rows
    return min(spec.max_train_rows or task.official["train"], task.official["train"])


def corpus_size(spec: Corpus) -> tuple[float, float]:
    """Bytes of the training text in the hub's repositories or one's own files, and the share that row limits keep."""
    total = kept = 0.0
    for part in (spec, *spec.and_also):
        size, share = _own_size(part) if part.files else _hub_size(part)
        total, kept = total + size, kept + size * share
    return total, kept / total if total else 1.0


def _own_size(part: Corpus) -> tuple[float, float]:
    assert part.files is not None
    return float(sum(path.stat().st_size for path in files.existing(part.files.train, files.SUFFIXES))), 1.0


def _hub_size(part: Corpus) -> tuple[float, float]:
    repository = Repository(part.repository, part.revision)
    card = DataCard(repository, part.config)
    known = card.rows.get("train")
    share = min(1.0, part.max_train_rows / known) if part.max_train_rows and known else 1.0
    return float(sum(repository.sizes[path] for path in card.splits.get("train", []))), share


def tasks_size(download: Download) -> float:
    """Bytes of the labelled data sets in the hub's repositories, all of which stage `download` fetches."""
    total = 0.0
    for spec, tasks in ((download.glue, GLUE.values()), (download.imdb, [IMDB]), (download.squad, [SQUAD])):
        repository = Repository(spec.repository, spec.revision)
        for task in tasks:
            splits = DataCard(repository, task.config).splits
            total += sum(repository.sizes[path] for split in task.splits.values() for path in splits.get(split, []))
    return total


def weights_size(teacher: Teacher) -> float:
    """Bytes of the teacher's weights on the hub; 0 for random ones, or if a folder, package or the cache has them."""
    if teacher.revision is None or not MODEL_ID.fullmatch(teacher.init):
        return 0.0
    repository = Repository(teacher.init, teacher.revision, "model")
    if teacher.init in PACKAGES or Path(teacher.init).is_dir() or cached(repository, WEIGHTS):
        return 0.0
    return float(repository.sizes.get(WEIGHTS, 0))


def operations_per_second(hardware: Hardware) -> float:
    """Measure a matrix product of a training step's size in the precision of training, in operations a second."""
    import torch

    from stages.core.runtime import use_bf16

    cuda = torch.cuda.is_available()
    torch.set_num_threads(hardware.threads)
    dtype = torch.bfloat16 if use_bf16(hardware) else torch.float32
    a, b = (torch.ones(size, dtype=dtype, device="cuda" if cuda else "cpu") for size in ((2048, 768), (768, 3072)))
    wait: Callable[[], None] = torch.cuda.synchronize if cuda else lambda: None  # a GPU computes on its own
    for _ in range(3):
        a @ b
    wait()
    start = time.perf_counter()
    for _ in range(10):
        a @ b
    wait()
    return 10 * 2 * 2048 * 768 * 3072 / (time.perf_counter() - start)


def are_done(*stages: str) -> bool:
    """Whether DVC has nothing to run for the stages, such as after `make pull` or on a second run."""
    return not subprocess.run(["dvc", "status", "--quiet", *stages], check=False).returncode


def needs_of(params: Params, fetched: bool) -> Needs:
    """Gather what a run takes, asking the hub for sizes where data, unless that is `fetched`, or weights are there."""
    parameters = next((count for size, count in SIZES.items() if size in params.teacher.init), SMALL)
    further = 0.0 if are_done("teacher") else weights_size(params.teacher)
    if fetched:
        needs = estimate(params, float(TEXT.stat().st_size), 1.0, parameters, further)
        return replace(needs, download=further)
    total, share = corpus_size(params.download.corpus)
    if params.download.source == "hub":
        further += tasks_size(params.download)
    return estimate(params, total, share, parameters, further)


def check(needs: Needs, free: float, memory: float) -> None:
    """Raise UserError if the disk or the memory cannot hold what is needed."""
    if needs.disk > free:
        raise UserError(f"disk: {needs.disk / GIB:.0f} GiB needed, {free / GIB:.0f} GiB free; lower max_train_rows")
    if needs.memory > memory:
        raise UserError(f"memory: {needs.memory / GIB:.0f} GiB needed, {memory / GIB:.0f} GiB there; a smaller teacher")


def main() -> None:
    """Print what the run needs; UserError if the disk or the memory cannot hold it."""
    params = load_params()
    generated = params.download.source == "embedded" and params.download.corpus.files is None
    if (generated and params.profile != "size") or are_done("download", "teacher", "distill"):
        return
    free = shutil.disk_usage(".").free
    if generated:
        print(f"profile {params.profile}: disk {SIZE_DISK / GIB:.0f} of {free / GIB:.0f} GiB free; {SIZE_TIME}")
        if free < SIZE_DISK:
            raise UserError(f"disk: {SIZE_DISK / GIB:.0f} GiB needed, {free / GIB:.0f} GiB free")
        return
    needs = needs_of(params, fetched=are_done("download"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    speed = EFFICIENCY * operations_per_second(params.hardware) * 3600
    print(
        f"profile {params.profile}: downloads {needs.download / GIB:.1f} GiB; disk {needs.disk / GIB:.1f} of "
        f"{free / GIB:.0f} GiB free; memory {needs.memory / GIB:.0f} of {memory / GIB:.0f} GiB; very roughly "
        f"{needs.distillation / speed:.1f} hours of distillation and {needs.fine_tuning / speed:.1f} of fine-tuning "
        "here (`make repro TARGETS=download` fetches the data first)"
    )
    check(needs, free, memory)


if __name__ == "__main__":
    entry.run(main)
