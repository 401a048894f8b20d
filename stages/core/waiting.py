"""How the threads of a computation wait for each other: polling, or asleep."""

import fcntl
import os
import tempfile
from pathlib import Path

SPINS = "GOMP_SPINCOUNT"  # GNU libgomp manual, section 4.16
POLLING, ASLEEP = "300000", "1000"  # polls before a thread sleeps: libgomp's default, milliseconds; some microseconds
BUSY = 0.5  # CPUs in use by others
SAMPLE_SECONDS = 0.1


def choose() -> None:
    """Let this stage's threads poll if it has the machine to itself, for what imports torch from now on.

    Where nothing else computes, polling takes a fifth to a third off a small model's training on two virtual cores of
    an AMD EPYC, because waking a virtual core is slow. Two trainings that poll on the same cores, though, take two to
    eight times as long as two that do not (docs/scaling.md). So only one stage on a machine may poll, and none while
    something else computes there, nor one of several processes. What the variable GOMP_SPINCOUNT says goes before.
    """
    if SPINS not in os.environ:
        os.environ[SPINS] = POLLING if "RANK" not in os.environ and _alone() else ASLEEP


def _alone() -> bool:
    """Whether nothing else computes on this machine; no other stage is told so before this process has ended."""
    try:
        lock = os.open(Path(tempfile.gettempdir(), f"distilbert-dvc-{os.getuid()}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return False
    import psutil  # here, so that being told no is quick

    alone = psutil.cpu_percent(SAMPLE_SECONDS) / 100 * (os.cpu_count() or 1) < BUSY
    if not alone:
        os.close(lock)
    return alone
