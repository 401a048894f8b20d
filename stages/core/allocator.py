"""How glibc's allocator treats freed memory (mallopt(3)); other C libraries go on as they do."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of malloc.h
LARGE = 128 * 1024  # bytes: both thresholds, where a process begins


def keep_freed_memory() -> None:
    """Reuse the memory of freed tensors, of which every training step needs as much again.

    By default glibc maps each large tensor anew and gives it back when freed; faulting the pages in took an eighth of a
    step of BERT-base's distillation in a virtual machine (`benchmarks/distillation.py`).
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Take large blocks from the system and give them back when they are freed; what is free now goes back, too.

    glibc begins so, but keeps ever larger blocks for later as some are freed. Whether the next one fits in those
    differs from process to process: by 15 MiB, a quarter of what an INT8 model of 19 million parameters takes.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_TRIM_THRESHOLD, LARGE)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
