"""Sends results to the remote and brings them here, and says what is wrong where that fails: `make push`, `make pull`.

DVC does the work. It neither names the objects that a remote lacks or holds damaged, nor replaces damaged ones, since
it takes an object that is there for sound: that is what is added here.
"""

import argparse
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from stages.core.entry import run
from stages.core.errors import UserError

SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Stored:
    """An object of this version's outputs in the remote."""

    name: str  # path of an output that it is the content of
    digest: str
    output: str  # digest of that output as a whole: of the list of files where it is a folder

    def lies_in(self, store: Any) -> bool:
        """Whether a DVC object store has it, sound or not."""
        return bool(store.exists(self.digest))

    def is_damaged(self, store: Any) -> bool:
        """Whether its content, which is read in full, has another digest than its name says."""
        from dvc_data.hashfile.hash import hash_file

        found = store.get(self.digest)
        _, actual = hash_file(found.path, found.fs, store.hash_name)
        return str(actual.value).partition(".")[0] != self.digest.partition(".")[0]


@contextmanager
def opened() -> Iterator[tuple[Any, Any]]:
    """Yield DVC's repository and the default remote's object store.

    Raises UserError if there is no remote, if it is away or refuses, or if that happens while it is looked through.
    Every storage library has exceptions of its own, some of them of no common kind, so that all are taken for that.
    """
    from dvc.repo import Repo

    with Repo() as repo:
        try:
            store = repo.cloud.get_remote_odb()
        except Exception as error:
            raise UserError(f"{_reason(error)}; `make remote URL=...` names a remote") from error
        where = store.fs.unstrip_protocol(store.path)
        try:
            store.fs.exists(store.path)
        except Exception as error:
            raise UserError(
                f"{where}: cannot be reached ({_reason(error)}); `make remote URL=...` names another"
            ) from error
        try:
            yield repo, store
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{where}: could not be looked through to the end ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def used(repo: Any) -> list[Stored]:
    """List what this version's outputs consist of; of a folder whose list of files is not here, that list alone."""
    found: dict[str, Stored] = {}
    for out in repo.index.outs:
        if not out.use_cache or not out.hash_info:
            continue
        whole = out.hash_info.value
        found[whole] = Stored(out.def_path, whole, whole)
        if out.hash_info.isdir and repo.cache.local.exists(whole):  # DVC would ask whether to go on without it
            infos = [info for infos in out.get_used_objs().values() for info in infos]
            found |= {info.value: Stored(info.obj_name, info.value, whole) for info in infos}
    return sorted(found.values(), key=lambda stored: stored.name)


def is_empty(store: Any) -> bool:
    """Whether nothing has been sent to a DVC object store."""
    return not store.fs.exists(store.path) or not store.fs.ls(store.path, detail=False)


def refuse_empty() -> None:
    """Raise UserError if files have to come from the remote and there are none in it."""
    with opened() as (repo, store):
        if is_empty(store) and not all(stored.lies_in(repo.cache.local) for stored in used(repo)):
            raise UserError(
                f"{store.fs.unstrip_protocol(store.path)}: the remote is empty; `make push` where the pipeline was run "
                "fills it, `make remote URL=...` with a folder, ssh://host/folder or s3://bucket/folder points "
                "elsewhere, `make repro` makes the files here"
            )


def all_named_is_here(repo: Any) -> bool:
    """Whether DVC misses nothing but results of stages that were not run yet, for which it fails as well."""
    outs = [out for out in repo.index.outs if out.use_cache]
    with repo.lock:
        return not all(out.hash_info for out in outs) and all(
            out.exists and not out.changed_checksum() for out in outs if out.hash_info
        )


def pull() -> None:
    """Bring files and the run cache here; UserError if the remote is empty, lacks files or holds them damaged."""
    refuse_empty()
    if subprocess.run(["dvc", "pull", "--run-cache"], check=False).returncode == 0:
        return
    with opened() as (repo, store):
        if all_named_is_here(repo):
            print("all that dvc.lock names is here; it names no results of some stages, and `make repro` runs the rest")
            return
        wanted = [stored for stored in used(repo) if not stored.lies_in(repo.cache.local)]
        lacking = [stored for stored in wanted if not stored.lies_in(store)]
        there = [stored for stored in wanted if stored not in lacking]
        damaged = [stored for stored in _checking(there) if stored.is_damaged(store)]
        where = store.fs.unstrip_protocol(store.path)
    problems = []
    if damaged:
        problems.append(
            f"holds {_names(damaged)} damaged; `make repro` makes it here, then `make push REPAIR=1` replaces it there"
        )
    if lacking:
        problems.append(
            f"lacks {_names(lacking)}; `make push` where the pipeline was run fills it, `make remote URL=...` names "
            "another, `make repro` makes the files here"
        )
    raise UserError(f"{where}: " + ("; it ".join(problems) or "not all could be brought here; DVC says above why"))


def push(repair: bool) -> None:
    """Send files and the run cache; with `repair` read what the remote has first, and replace what is damaged."""
    with opened() as (repo, store):  # which says in a line if it is away
        if repair:
            _remove_damaged(repo, store)
    if subprocess.run(["dvc", "push", "--run-cache"], check=False).returncode:
        raise UserError("not all was sent; DVC says above why, and `make push` carries on from here")


def _remove_damaged(repo: Any, store: Any) -> None:
    """Remove what is damaged in the remote and sound here, so that DVC sends it again; UserError if it is not here."""
    from dvc_data.hashfile.db import get_index

    there = _checking([one for one in used(repo) if one.lies_in(store)])
    damaged = [one for one in there if one.is_damaged(store)]
    if lost := [one for one in damaged if not one.lies_in(repo.cache.local)]:
        raise UserError(f"{_names(lost)}: damaged in the remote and missing here; run `make repro` first")
    # While the list of a folder's files is there, DVC takes the files for there too.
    for digest in {digest for one in damaged for digest in (one.digest, one.output)}:
        if store.exists(digest):
            store.fs.remove(store.get(digest).path)
    get_index(store).clear()  # what DVC remembers to be there
    repo.drop_data_index()
    for one in damaged:
        print(f"{one.name}: damaged in the remote, is replaced")


def _checking(stored: list[Stored]) -> Iterable[Stored]:
    """Iterate with a progress bar, since what lies in a remote is read in full."""
    bar: Iterable[Stored] = tqdm(stored, desc="checking the remote", unit="file", leave=False, disable=None)
    return bar


def _names(stored: Iterable[Stored]) -> str:
    names = [one.name for one in stored]
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def main() -> None:
    """Do what the command line names."""
    parser = argparse.ArgumentParser(description="Send results to the remote, or bring them here.")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("pull", help="bring files and the run cache here")
    sending = actions.add_parser("push", help="send files and the run cache")
    sending.add_argument("--repair", action="store_true", help="replace what is damaged in the remote")
    arguments = parser.parse_args()
    if arguments.action == "pull":
        pull()
    else:
        push(arguments.repair)


if __name__ == "__main__":
    run(main)
