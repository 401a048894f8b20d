"""Parameter files that DVC parses a dozen times for each stage: here once, for as long as they are the same."""

import os
from copy import deepcopy
from typing import Any

from dvc.dependency import param
from dvc.fs import LocalFileSystem
from dvc.utils import serialize

_load = serialize.load_path
_parsed: dict[str, tuple[tuple[int, ...], Any]] = {}


def parse_once() -> None:
    """Have DVC in this process keep what it parsed of each parameter file; it takes a tenth of a second a stage."""
    serialize.load_path = param.load_path = _load_once  # `dvc.parsing` imports it where it uses it


def _load_once(path: str, fs: Any, **how: Any) -> Any:
    if how or not isinstance(fs, LocalFileSystem):
        return _load(path, fs, **how)
    found = os.stat(path)  # before it is read, so that a change meanwhile is seen next time
    state = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if path not in _parsed or _parsed[path][0] != state:
        _parsed[path] = state, _load(path, fs)
    return deepcopy(_parsed[path][1])
