"""Calls timed by turns, each in a process of its own: a noisy machine disturbs all alike, and memory is each one's."""

import os
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median

import torch

from stages.measurement.machine import describe

MIB = 2**20
Prepare = Callable[[], Callable[[], float]]


@dataclass(frozen=True)
class Measured:
    """Seconds of the calls that count, what the first call returned, and peak memory of device or process in MiB."""

    seconds: list[float]
    value: float
    peak_mib: float

    @property
    def median(self) -> float:
        """Seconds."""
        return median(self.seconds)

    @property
    def milliseconds(self) -> str:
        """Median, lowest and highest."""
        return self.shown(lambda seconds: 1000 * seconds)

    def shown(self, figure: Callable[[float], float]) -> str:
        """Write what a figure made of the seconds is at their median, and its lowest and highest."""
        ends = sorted(figure(end(self.seconds)) for end in (min, max))
        return f"{figure(self.median):.1f} ({ends[0]:.1f} to {ends[1]:.1f})"


def machine(threads: int) -> str:
    """Say what the figures are taken on: processor, cores, threads, instruction sets, memory, versions, and any GPU."""
    found = describe(threads)
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return ", ".join(f"{key} {value}" for key, value in found.items())


def by_turns(calls: Mapping[str, Prepare], rounds: int, warmup: int, threads: int) -> dict[str, Measured]:
    """Have each process prepare its call, then call them one after the other, `warmup + rounds` times.

    A call returns a number, that of the first call being reported. While one runs, the others wait for a message.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # idle threads are to leave the cores to whose turn it is
    context = get_context("spawn")
    pipes, processes = {}, []
    for name, prepare in calls.items():
        pipes[name], other = context.Pipe()
        processes.append(context.Process(target=_serve, args=(other, prepare, threads), daemon=True))
        processes[-1].start()
        other.close()
        pipes[name].recv()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    values = {}
    for turn in range(warmup + rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            took, value = pipe.recv()
            values.setdefault(name, value)
            if turn >= warmup:
                seconds[name].append(took)
    peaks = {}
    for name, pipe in pipes.items():
        pipe.send(False)
        peaks[name] = pipe.recv()
    for process in processes:
        process.join()
    return {name: Measured(seconds[name], values[name], peaks[name]) for name in calls}


def _serve(pipe: Connection, prepare: Prepare, threads: int) -> None:
    torch.set_num_threads(threads)
    call = prepare()
    pipe.send(None)
    while pipe.recv():
        start = time.perf_counter()
        value = call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        pipe.send((time.perf_counter() - start, value))
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send(torch.cuda.max_memory_allocated() / MIB if torch.cuda.is_available() else kilobytes / 1024)
