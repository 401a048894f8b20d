"""What a long run needs of this machine, told before it starts: downloads, disk, memory and a rough duration."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass

from stages import entry
from stages.errors import UserError
from stages.params import Corpus, Params, load_params
from stages.sources import files
from stages.sources.datacard import DataCard
from stages.sources.hub import Repository

CHARACTERS_PER_BYTE = 1.8  # parquet compresses English text about that much
CHARACTERS_PER_TOKEN = 4.5
DISK_PER_BYTE = 3.0  # the hub client's copy, the pipeline's own and the tokenised blocks
CELL_BYTES = 2 * 2**20
CHECKPOINTS = 6  # of a model with its optimizer: two kept, one being written, for teacher and student
SIZES = {"base": 110e6, "large": 335e6}  # parameters of BERT, by what is in its name; others are taken for small
EFFICIENCY = 0.3  # of the measured matrix product's speed that a training step reaches


@dataclass(frozen=True)
class Needs:
    """Bytes to download and to keep on disk, bytes of memory, floating-point operations of distillation."""

    download: float
    disk: float
    memory: float
    flops: float


def estimate(params: Params, corpus_bytes: float, share: float, parameters: float) -> Needs:
    """Estimate from the corpus's bytes, the share of its rows that is kept, and the teacher's parameters.

    A token costs 2 operations a parameter forward and 4 backward (Kaplan et al. 2020, section 2.1); the student has
    about half the teacher's parameters and only it is trained.
    """
    tokens = params.epochs * share * corpus_bytes * CHARACTERS_PER_BYTE / CHARACTERS_PER_TOKEN
    cells = len(params.models) * len(params.seeds) * sum(len(s.tasks) for s in (params.glue, params.imdb, params.squad))
    weights = 4 * parameters
    return Needs(
        download=corpus_bytes * share,
        disk=DISK_PER_BYTE * corpus_bytes * share + cells * CELL_BYTES + CHECKPOINTS * 3 * weights,
        memory=8 * weights + 2 * 2**30,
        flops=tokens * (2 * parameters + 6 * parameters / 2),
    )


def corpus_size(spec: Corpus) -> tuple[float, float]:
    """Bytes of the training text in the hub's repositories or one's own files, and the share that row limits keep."""
    total = kept = 0.0
    for part in (spec, *spec.and_also):
        if part.files:
            size, share = (
                float(sum(path.stat().st_size for path in files.existing(part.files.train, files.SUFFIXES))),
                1.0,
            )
        else:
            repository = Repository(part.repository, part.revision)
            card = DataCard(repository, part.config)
            size = float(sum(repository.sizes[path] for path in card.splits.get("train", [])))
            rows = card.rows.get("train")
            share = min(1.0, part.max_train_rows / rows) if part.max_train_rows and rows else 1.0
        total, kept = total + size, kept + size * share
    return total, kept / total if total else 1.0


def operations_per_second(threads: int) -> float:
    """Measure a matrix product of a training step's size in the fastest precision, in operations a second."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(threads)
    a, b = (torch.ones(size, dtype=torch.bfloat16, device=device) for size in ((2048, 768), (768, 3072)))
    for _ in range(3):
        product = a @ b
    start = time.perf_counter()
    for _ in range(10):
        product = a @ b
    product.sum().item()
    return 10 * 2 * 2048 * 768 * 3072 / (time.perf_counter() - start)


def long_stages_are_done() -> bool:
    """Whether DVC has nothing to run up to the distillation, such as after `make pull` or on a second run."""
    command = ["dvc", "status", "--quiet", "download", "teacher", "distill"]
    return not subprocess.run(command, check=False).returncode


def main() -> None:
    """Print what the run needs; UserError if the disk or the memory cannot hold it."""
    params = load_params()
    if params.download.source == "embedded" and params.download.corpus.files is None:
        return
    if long_stages_are_done():
        return
    total, share = corpus_size(params.download.corpus)
    parameters = next((count for size, count in SIZES.items() if size in params.teacher.init), 23e6)
    needs = estimate(params, total, share, parameters)
    free = shutil.disk_usage(".").free
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    hours = needs.flops / (EFFICIENCY * operations_per_second(params.hardware.threads)) / 3600
    gib = 2.0**30
    print(
        f"profile {params.profile}: text to download {needs.download / gib:.1f} GiB; disk {needs.disk / gib:.1f} of "
        f"{free / gib:.0f} GiB free; memory {needs.memory / gib:.0f} of {memory / gib:.0f} GiB; distillation alone "
        f"very roughly {hours:.1f} hours here (`make repro TARGETS=download` fetches the data first)"
    )
    if needs.disk > free:
        raise UserError(f"disk: {needs.disk / gib:.0f} GiB needed, {free / gib:.0f} GiB free; lower max_train_rows")
    if needs.memory > memory:
        raise UserError(f"memory: {needs.memory / gib:.0f} GiB needed, {memory / gib:.0f} GiB there; a smaller teacher")


if __name__ == "__main__":
    entry.run(main)
