"""Checkpoints that an interrupted stage resumes from, kept outside DVC's outputs until the stage has succeeded."""

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.core.artifacts import digest, read_json, write_json

CHECKPOINTS = Path(".cache/checkpoints")
LOCK = "lock"
COMPLETE = "complete.json"  # written last, so a checkpoint without it was cut short
ABANDONED_DAYS = 7  # until then a short run of other settings spares what a long one resumes from


class Checkpoints:
    """The checkpoints of one training, in a folder named after everything that its result depends on."""

    def __init__(self, stage: str, *parts: Any, root: Path = CHECKPOINTS) -> None:
        """Name the folder by `parts` (JSON values, or files and folders by content), this package and the libraries."""
        libraries = {name: version(name) for name in ("torch", "transformers", "accelerate", "tokenizers", "numpy")}
        sources = sorted(Path(__file__).parent.glob("*.py"))
        self.folder = root / stage / digest(*parts, libraries, *sources)[:32]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others off, such as a run that is just ending after an interruption: wait until they are gone."""
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock = self._lock.open("w")
            except FileNotFoundError:  # discarded since
                continue
            with lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    print(f"another run trains with {self.folder}; waiting for its end", file=sys.stderr)
                    fcntl.flock(lock, fcntl.LOCK_EX)
                if self._lock.is_file() and os.path.samestat(os.fstat(lock.fileno()), self._lock.stat()):
                    yield
                    return  # else the other run has discarded this lock's folder

    @property
    def _lock(self) -> Path:
        return self.folder / LOCK

    def latest(self) -> Path | None:
        """Return the newest complete checkpoint, if any; those cut short are removed."""
        found = sorted(self.folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        complete = [path for path in found if (path / COMPLETE).is_file()]
        for path in set(found) - set(complete):
            shutil.rmtree(path, ignore_errors=True)  # each process of a training does
        return complete[-1] if complete else None

    @staticmethod
    def mark_complete(checkpoint: Path, extra: dict[str, Any]) -> None:
        """Declare a checkpoint whole, with what the trainer keeps beside it."""
        write_json(checkpoint / COMPLETE, extra)

    @staticmethod
    def extra(checkpoint: Path) -> dict[str, Any]:
        """Return what was given to `mark_complete`."""
        values: dict[str, Any] = read_json(checkpoint / COMPLETE)
        return values

    def discard(self) -> None:
        """Remove them all, once the stage's outputs are written, unless another run has taken them up since.

        With them go those of the stage's other settings that no run holds and none has written to for a week.
        """
        _remove(self.folder)
        oldest = time.time() - ABANDONED_DAYS * 24 * 60 * 60
        for other in self.folder.parent.glob("*"):
            with suppress(OSError):  # gone meanwhile, or another user's: no reason for a finished training to fail
                if other.stat().st_mtime < oldest:  # of the folder: when a checkpoint last came or went
                    _remove(other)


def _remove(folder: Path) -> None:
    """Remove the checkpoints of a training, unless a run holds them."""
    path = folder / LOCK
    if not path.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        return
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint, ignore_errors=True)
        path.unlink()  # last, so that nobody begins meanwhile
        with suppress(OSError):  # not empty: another run has begun since
            folder.rmdir()
