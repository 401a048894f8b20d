"""Peak memory as growth of resident memory over what the process held before."""

import ctypes
import mmap
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import psutil

SAMPLING_SECONDS = 0.002
CLEAR_REFS = Path("/proc/self/clear_refs")


class PeakMemory:
    """Context that measures, in bytes, how far resident memory rises above its value on entry.

    On Linux the kernel's own high-water mark is reset and read (proc(5), clear_refs and VmHWM), which misses no peak;
    elsewhere, and where the kernel does not allow that, a thread samples every 2 ms.
    """

    def __init__(self) -> None:
        self.growth = 0
        self._process = psutil.Process()
        self._done = threading.Event()
        self._sampler: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            CLEAR_REFS.write_text("5")
        except OSError:
            self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._before = self._peak = self._process.memory_info().rss
        if self._sampler is not None:
            self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sampler is None:
            self._peak = _high_water_mark()
        else:
            self._done.set()
            self._sampler.join()
        self.growth = max(0, self._peak - self._before)

    def _sample(self) -> None:
        while not self._done.wait(SAMPLING_SECONDS):
            self._peak = max(self._peak, self._process.memory_info().rss)


def page_in_libraries(origin: int) -> None:
    """In a fork, make the libraries' pages resident that were so in the process `origin` that it comes from.

    A fork begins without the pages of mapped files and faults them in one by one, which would count as growth. Which
    pages those are stands in bit 63 of the entries of /proc/<pid>/pagemap (proc_pid_pagemap(5)).
    """
    with Path(f"/proc/{origin}/pagemap").open("rb", buffering=0) as pagemap:
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, access, _, _, inode, *_ = line.split()
            if inode == "0" or not access.startswith("r"):
                continue
            start, end = (int(address, 16) for address in addresses.split("-"))
            pagemap.seek(start // mmap.PAGESIZE * 8)
            entries = np.frombuffer(pagemap.read((end - start) // mmap.PAGESIZE * 8), np.uint64)
            content = np.frombuffer(memoryview((ctypes.c_ubyte * (end - start)).from_address(start)), np.uint8)
            content[:: mmap.PAGESIZE][: len(entries)][entries >> 63 == 1].max(initial=0)


def _high_water_mark() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kibibytes) * 1024
