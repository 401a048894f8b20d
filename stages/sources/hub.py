"""Repositories of the hub at a pinned revision: listing, download with retries, and digests checked."""

import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx2
from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    hf_hub_download,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._validators import validate_repo_id
from tqdm import tqdm

from stages.core.artifacts import file_sha256
from stages.core.errors import DENIED, FULL, UserError

ATTEMPTS = 8  # a download in full; the hub's client itself resumes a file whose connection breaks
PROBES = 3  # of a hub that was not heard yet
PROBE_SECONDS = 10.0
LONGEST_WAIT = 30.0  # seconds between two attempts
WAY_OUT = "check the network, set HF_ENDPOINT to a mirror"
REFUSALS = set(range(400, 500)) - {408, 429}  # HTTP statuses that another attempt does not change

Result = TypeVar("Result")


class _NoBar(tqdm):  # type: ignore[misc]
    """For a listing, which needs no progress bar."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **(options | {"disable": True}))


@dataclass(frozen=True)
class Repository:
    """A data set or model of the hub at one commit; what was fetched once is served from the client's cache."""

    name: str
    revision: str
    kind: Literal["dataset", "model"] = "dataset"
    way_out: str = "use `download.source: embedded` or files of your own"

    def __post_init__(self) -> None:
        """Raise UserError for a name that the hub's client refuses wherever it is given."""
        try:
            validate_repo_id(self.name)
        except HFValidationError as error:
            raise UserError(f"{self}: no name of a repository ({error}); correct it") from error

    def __str__(self) -> str:
        return f"{self.kind} {self.name} at revision {self.revision}"

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Path -> bytes of every file; from the cache if it is there, else asked from the hub.

        Raises UserError within seconds if the hub cannot be reached, or has no such repository or revision.
        """
        try:
            return self._cached_sizes()
        except CachedRepoTreeNotFoundError:
            _ = self._answers
            self._retry(ATTEMPTS, self._fetch_listing)
            return self._cached_sizes()

    @cached_property
    def _answers(self) -> bool:
        """True once the hub has told that it has the repository, so that a hub out of reach is noticed in seconds."""
        api = HfApi()
        self._retry(
            PROBES,
            lambda: api.repo_info(self.name, repo_type=self.kind, revision=self.revision, timeout=PROBE_SECONDS),
        )
        return True

    def _cached_sizes(self) -> Mapping[str, int]:
        tree = get_cached_repo_tree(self.name, repo_type=self.kind, revision=self.revision)
        return {file.path: file.size for file in tree}

    def _fetch_listing(self) -> str:
        smallest = ["config.json" if self.kind == "model" else "README.md"]
        return snapshot_download(
            self.name, repo_type=self.kind, revision=self.revision, allow_patterns=smallest, tqdm_class=_NoBar
        )

    def fetch(self, path: str) -> Path:
        """Return the local path of one file, downloaded if need be, with the size and digest that the hub announces.

        Raises UserError if that fails repeatedly.
        """
        if path in self._checked:
            return self._checked[path]
        if cached(self, path) is None:
            _ = self._answers
        for _ in range(2):
            local = Path(self._retry(ATTEMPTS, lambda: self._download(path)))
            if self._intact(local, path):
                self._checked[path] = local
                return local
            local.resolve().unlink()  # damaged in the cache, or on the way
            local.unlink(missing_ok=True)
        raise UserError(f"{self}: {path} arrives with another size or digest than announced; {self._advice}")

    @cached_property
    def _checked(self) -> dict[str, Path]:
        return {}

    def _download(self, path: str) -> str:
        return hf_hub_download(self.name, path, repo_type=self.kind, revision=self.revision)

    def _intact(self, local: Path, path: str) -> bool:
        return local.stat().st_size == self.sizes[path] and digest_fits(local)

    @property
    def _advice(self) -> str:
        return f"{WAY_OUT}, or {self.way_out}"

    def _retry(self, attempts: int, action: Callable[[], Result]) -> Result:
        """Return the action's result, tried again with growing pauses after faults that may pass."""
        for attempt in range(1, attempts + 1):
            try:
                return action()
            except (OSError, RuntimeError, httpx2.TransportError) as error:  # RuntimeError: hf-xet's network faults
                if isinstance(error, OSError) and error.errno in FULL:
                    raise
                problem = self._final(error)
                if problem is None and attempt == attempts:
                    problem = f"the hub at {constants.ENDPOINT} does not deliver ({_brief(error)}); {self._advice}"
                if problem is not None:
                    raise UserError(f"{self}: {problem}") from error
                wait = min(0.5 * 2 ** (attempt - 1), LONGEST_WAIT)
                print(f"{self.name}: {_brief(error)}; trying again in {wait:g} s", file=sys.stderr)
                time.sleep(wait)
        raise AssertionError("attempts is at least 1")

    def _final(self, error: BaseException) -> str | None:
        """Return what to tell about an error that no retry mends, None if one may."""
        hub = constants.ENDPOINT
        for link in (error, error.__cause__, error.__context__):
            match link:
                case OSError(errno=number) if number in DENIED:
                    place = link.filename or constants.HF_HUB_CACHE
                    return f"{place} cannot be written ({link.strerror}); set HF_HOME to a folder that can"
                case OfflineModeIsEnabled():
                    return (
                        f"not in the local cache, and HF_HUB_OFFLINE forbids to fetch it; unset that, or {self.way_out}"
                    )
                case GatedRepoError():
                    return f"gated: accept its terms on {hub} and set HF_TOKEN, or {self.way_out}"
                case RepositoryNotFoundError():
                    return f"not on {hub}; correct the name, set HF_TOKEN if it is private, or {self.way_out}"
                case RevisionNotFoundError():
                    return "no such revision; copy the commit's full hash from the repository's history"
                case HfHubHTTPError() if link.response.status_code in REFUSALS:
                    return f"the hub at {hub} refuses it ({_brief(link)}); {self._advice}"
        return None


def cached(repository: Repository, path: str) -> Path | None:
    """Return where the client's cache holds a file, None if it does not."""
    found = try_to_load_from_cache(repository.name, path, repo_type=repository.kind, revision=repository.revision)
    return Path(found) if isinstance(found, str) else None


def digest_fits(local: Path) -> bool:
    """Whether a file in the client's cache has the digest by which the cache names its blob, SHA-256 or git's."""
    announced = local.readlink().name if local.is_symlink() else ""
    if re.fullmatch("[0-9a-f]{64}", announced):
        return file_sha256(local) == announced
    if re.fullmatch("[0-9a-f]{40}", announced):
        return _git_sha1(local) == announced
    return True  # a file system without links: the size has to do


def _brief(error: BaseException) -> str:
    """Put an error in one line of bounded length, without the signed addresses that the client's messages carry."""
    if isinstance(error, HfHubHTTPError):
        return f"HTTP {error.response.status_code}"
    text = re.sub(r"https?://\S+", "…", " ".join(str(error.__cause__ or error).split()))
    return f"{type(error).__name__}: {text[:120]}"


def _git_sha1(path: Path) -> str:
    """Return the digest by which git names a file's content."""
    total = hashlib.sha1(f"blob {os.path.getsize(path)}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            total.update(block)
    return total.hexdigest()
