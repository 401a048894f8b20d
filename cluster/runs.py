"""Single entries of DVC's run cache: what a stage made of the same inputs before, here or in a remote.

`dvc push --run-cache` and `dvc pull --run-cache` move all entries there are; here it is the one of a given stage.
"""

import time
from collections.abc import Callable
from typing import Any

from dvc.exceptions import DvcException
from dvc.fs import generic
from dvc.stage.cache import _can_hash, _get_stage_hash

PATIENCE_SECONDS = 600.0  # with a remote that is away, before a stage's hours of work count as lost
LONGEST_PAUSE_SECONDS = 30.0
REFUSALS = 3  # of a remote that answers, which may have been away for a moment only


def patiently(repo: Any, act: Callable[[], None]) -> None:
    """Call `act`, which uses the default remote, and again when that was away; raises DvcException if it stays so."""
    pause, give_up, refused = 1.0, time.monotonic() + PATIENCE_SECONDS, 0
    while True:
        try:
            return act()
        except Exception as error:
            absent = _absence(repo)
            refused += absent is None
            reason = f"the remote does not answer: {absent}" if absent else " ".join(str(error).split()) or repr(error)
            if refused == REFUSALS or time.monotonic() + pause > give_up:
                raise DvcException(reason) from error
            print(f"{reason}; trying again in {pause:g} s", flush=True)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _absence(repo: Any) -> str | None:
    """Say why the remote cannot be reached; None if it can."""
    try:
        remote = _remote(repo)
        remote.fs.exists(remote.path)
    except Exception as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None


def push(repo: Any, stage: Any) -> None:
    """Send what the stage made, then the entry that names it, so that a remote never names what it lacks."""
    key = _key(stage)
    for value in _values(repo.cache.legacy, key):
        for objects in repo.stage_cache.get_used_objs([(key, value)]).values():
            if failed := repo.cloud.push(objects).failed:  # which DVC only counts
                raise DvcException(f"{len(failed)} files of {stage.addressing} could not be sent to the remote")
        _copy(repo.cache.legacy, _remote(repo), key, value)


def fetch(repo: Any, stage: Any) -> None:
    """Bring the stage's entries from the remote, and what they name; nothing where there are none."""
    with repo.lock:
        stage.save_deps()
    if not _can_hash(stage):
        return
    key, remote = _key(stage), _remote(repo)
    for value in _values(remote, key):
        _copy(remote, repo.cache.legacy, key, value)
        for objects in repo.stage_cache.get_used_objs([(key, value)]).values():
            repo.cloud.pull(objects)


def _key(stage: Any) -> str:
    return str(_get_stage_hash(stage))


def _remote(repo: Any) -> Any:
    return repo.cloud.get_remote_odb(hash_name="md5-dos2unix")  # beside whose objects DVC keeps the entries


def _folder(store: Any, key: str) -> str:
    return str(store.fs.join(store.path, "runs", key[:2], key))


def _values(store: Any, key: str) -> list[str]:
    folder = _folder(store, key)
    return sorted(store.fs.name(path) for path in store.fs.find(folder)) if store.fs.exists(folder) else []


def _copy(source: Any, target: Any, key: str, value: str) -> None:
    into = _folder(target, key)
    target.fs.makedirs(into, exist_ok=True)
    generic.copy(source.fs, source.fs.join(_folder(source, key), value), target.fs, target.fs.join(into, value))
