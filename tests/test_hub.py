"""Repositories of the hub: what they announce, and how files arrive from a hub on loopback."""

from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_hub import small_hub, use_hub

from stages.core.errors import UserError
from stages.core.params import Corpus
from stages.sources import corpus, tasks
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


# --- a hub on loopback


REVISION = "5" * 40
TEXTS = {split: [f"{split} paragraph {number}" for number in range(400)] for split in ("train", "validation")}


def parquet(texts: list[str]) -> bytes:
    stream = BytesIO()
    pq.write_table(pa.table({"text": texts}), stream)
    return stream.getvalue()


FILES = {
    "README.md": b"---\nconfigs: []\n---\n",
    **{f"data/{split}-0.parquet": parquet(texts) for split, texts in TEXTS.items()},
}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.sources.hub.LONGEST_WAIT", 0.0)


def fetch_corpus(folder: Path, **changes: str) -> dict[str, Any]:
    values: dict[str, Any] = {"repository": "own/text", "revision": REVISION, "config": None, "files": None} | changes
    spec = Corpus(**values, text_column="text", max_train_rows=None, max_dev_rows=None)
    return corpus.write(spec, "hub", 1, None, folder)


@pytest.mark.parametrize(("cuts", "busy"), [(0, 0), (2, 0), (0, 2)])
def test_a_pinned_repository_arrives_whole_and_is_then_in_the_cache(
    cuts: int, busy: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_hub("own/text", REVISION, FILES, cuts, busy) as hub:
        use_hub(hub.url, tmp_path / "cache", monkeypatch)
        record = fetch_corpus(tmp_path / "out")
        assert (hub.cuts, hub.busy) == (0, 0)
    assert (record["repository"], record["revision"]) == ("own/text", REVISION)
    for split, theirs in (("train", "train"), ("dev", "validation")):
        assert pq.read_table(tmp_path / f"out/{split}.parquet")["text"].to_pylist() == TEXTS[theirs]
    assert fetch_corpus(tmp_path / "again") == record  # the hub is gone


@pytest.mark.parametrize("head", [b"---\nconfigs: [\n---\n", b"---\nno settings\n---\n"])
def test_a_repository_that_describes_itself_in_no_yaml_is_named(
    head: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_hub("own/text", REVISION, FILES | {"README.md": head}) as hub:
        use_hub(hub.url, tmp_path / "cache", monkeypatch)
        with pytest.raises(UserError, match=r"^dataset own/text at .*: the head of its README.md is no YAML "):
            fetch_corpus(tmp_path / "out")


def test_a_file_of_other_content_than_announced_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("small_hub.git_sha1", lambda content: "0" * 40)
    with small_hub("own/text", REVISION, FILES) as hub:
        use_hub(hub.url, tmp_path / "cache", monkeypatch)
        with pytest.raises(UserError, match=r"own/text at revision 5{40}: README\.md arrives with another .* digest"):
            fetch_corpus(tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repository": "own/other"}, r"dataset own/other at revision 5{40}: not on http://127\.0\.0\.1:\d+; correct"),
        ({"revision": "6" * 40}, "dataset own/text at revision 6{40}: no such revision; copy the commit's full hash"),
    ],
)
def test_what_the_hub_does_not_have_is_told(
    changes: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_hub("own/text", REVISION, FILES) as hub:
        use_hub(hub.url, tmp_path / "cache", monkeypatch)
        with pytest.raises(UserError, match=message):
            fetch_corpus(tmp_path / "out", **changes)
