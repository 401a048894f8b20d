"""What a data set repository says about itself: which parquet files make a split, how many rows, which features."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from typing import Any

import yaml
from huggingface_hub import metadata_load

from stages.core.errors import UserError
from stages.sources.hub import Repository


@dataclass(frozen=True)
class DataCard:
    """One configuration of a data set repository, as the YAML head of its README describes it."""

    repository: Repository
    config: str | None  # None: the only one

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        if "README.md" not in self.repository.sizes:
            return {}
        readme = self.repository.fetch("README.md")
        try:
            return metadata_load(readme) or {}
        except (yaml.YAMLError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{self.repository}: the head of its README.md is no YAML ({reason}); pin another revision"
            ) from error

    @cached_property
    def splits(self) -> Mapping[str, list[str]]:
        """Each split's parquet files, in order, as the README's `configs` or else the paths themselves tell.

        Raises UserError if the repository holds no parquet files or not this configuration.
        """
        files = sorted(path for path in self.repository.sizes if path.endswith(".parquet"))
        if not files:
            raise UserError(f"{self.repository}: no parquet files; name a parquet copy, or {self.repository.way_out}")
        configs = {
            entry.get("config_name", "default"): entry.get("data_files", [])
            for entry in self._metadata.get("configs") or []
        }
        known = list(configs) or sorted({path.split("/")[0] for path in files if "/" in path})
        if (self.config is None and len(configs) > 1) or (self.config is not None and self.config not in known):
            raise UserError(
                f"{self.repository}: configuration {self.config!r}? It has {', '.join(known) or 'only one'}"
            )
        data_files = configs[self.config or known[0]] if configs else []
        prefix = f"{self.config}/" if self.config else ""
        return _by_pattern(files, data_files) or _by_name([path for path in files if path.startswith(prefix)])

    @cached_property
    def _info(self) -> dict[str, Any]:
        """The configuration's `dataset_info`, empty if there is none."""
        infos = self._metadata.get("dataset_info") or []
        infos = [infos] if isinstance(infos, dict) else infos
        named = [info for info in infos if self.config is None or info.get("config_name", self.config) == self.config]
        return named[0] if len(named) == 1 else {}

    @property
    def rows(self) -> Mapping[str, int]:
        """Each split's rows, where they are announced."""
        splits = self._info.get("splits") or []
        return {split["name"]: split["num_examples"] for split in splits if {"name", "num_examples"} <= split.keys()}

    def labels(self, column: str) -> tuple[str, ...] | None:
        """Return the names that a column's classes are announced to have, by code; None if they are not announced."""
        for feature in self._info.get("features") or []:
            kind = feature.get("dtype")
            if feature.get("name") == column and isinstance(kind, dict) and "class_label" in kind:
                names = kind["class_label"].get("names", [])
                by_code = names if isinstance(names, dict) else dict(enumerate(names))
                return tuple(str(by_code[code]) for code in sorted(by_code, key=int)) or None
        return None


def _by_pattern(files: list[str], data_files: Any) -> dict[str, list[str]]:
    """Resolve a README's `data_files`: a list of {split, path}, or patterns of the only split, train."""
    entries = data_files if isinstance(data_files, list) else [data_files]
    splits: dict[str, list[str]] = {}
    for entry in entries:
        split, patterns = (entry["split"], entry["path"]) if isinstance(entry, dict) else ("train", entry)
        patterns = patterns if isinstance(patterns, list) else [patterns]
        found = [path for path in files if any(fnmatch(path, pattern) for pattern in patterns)]
        splits[split] = splits.get(split, []) + found
    return {split: found for split, found in splits.items() if found}


def _by_name(files: list[str]) -> dict[str, list[str]]:
    """Sort files into splits by a part of the path, as `data/train-0.parquet` and `partial-train/0000.parquet` have."""
    splits: dict[str, list[str]] = {}
    for path in files:
        if match := re.search(r"(?:^|/)(?:partial-)?(train|validation|dev|test)(?=[-_./])", path):
            splits.setdefault(match[1], []).append(path)
    return splits or {"train": files}
