"""Repositories of the hub: what they announce, and how files arrive from a hub on loopback."""

from typing import Any

import pytest

from stages.errors import UserError
from stages.sources import tasks
from stages.sources.datacard import DataCard, _by_name, _by_pattern
from stages.sources.hub import Repository
from stages.sources.schema import GLUE, IMDB, Task

# --- which files make a split


def test_splits_follow_the_readmes_patterns_or_the_paths() -> None:
    paths = ["en/train-0.parquet", "en/train-1.parquet", "en/validation-0.parquet", "fr/train-0.parquet"]
    listed = [{"split": "train", "path": "en/train-*"}, {"split": "validation", "path": ["en/validation-*"]}]
    assert _by_pattern(paths, listed) == {"train": paths[:2], "validation": paths[2:3]}
    assert _by_pattern(paths, "fr/*") == {"train": paths[3:]}
    converted = ["plain_text/partial-train/0000.parquet", "plain_text/test/0000.parquet", "data/latest.parquet"]
    assert _by_name(converted) == {"train": converted[:1], "test": converted[1:2]}
    assert _by_name(["a.parquet"]) == {"train": ["a.parquet"]}


# --- which labels a repository announces


def announce(task: Task, names: Any) -> dict[str, Any]:
    """A README's head that announces a task's labels."""
    features = [{"name": "label", "dtype": {"class_label": {"names": names}}}]
    return {"dataset_info": [{"config_name": task.config, "features": features}]}


def announced(monkeypatch: pytest.MonkeyPatch, task: Task, names: Any) -> None:
    """Read a task from a repository whose README announces these labels and which holds no files."""
    monkeypatch.setattr(DataCard, "_metadata", announce(task, names))
    monkeypatch.setattr(Repository, "sizes", {"README.md": 1})
    tasks._from_hub(task, Repository("a/b", "0" * 40))


@pytest.mark.parametrize("task", [task for task in (*GLUE.values(), IMDB) if task.labels], ids=lambda task: task.name)
def test_labels_in_another_order_are_refused(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    assert task.labels
    right = list(task.labels)
    for same in (right, dict(enumerate(right)), {str(code): name for code, name in reversed([*enumerate(right)])}, []):
        with pytest.raises(UserError, match="no parquet files"):
            announced(monkeypatch, task, same)
    for other in (right[::-1], right[1:], [*right, "unknown"]):
        with pytest.raises(UserError) as error:
            announced(monkeypatch, task, other)
        assert str(error.value) == (
            f"dataset a/b at revision {'0' * 40}: {task.config} announces the labels {', '.join(other)}; {task.name} "
            f"needs, in this order, {', '.join(right)}"
        )
