"""The download stage: from the embedded world and own files, and from a hub on loopback, with and without faults."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from stages.core.artifacts import digest
from stages.core.errors import UserError
from stages.download import main
from stages.sources.hub import Repository
from stages.sources.schema import GLUE, IMDB, SQUAD

ALL = (*GLUE.values(), IMDB, SQUAD)
FETCHED = ("MNLI", "RTE", "STS-B", "WNLI")  # from the mirror in the shorter tests
NOT_FETCHED = tuple(name for name in GLUE if name not in FETCHED)


def write_params(project_root: Path, folder: Path, **download: Any) -> None:
    """Write the default parameters with a small world and changes to `download`, section by section."""
    params = YAML().load(project_root / "profiles" / "tiny.yaml")
    params["download"]["embedded"].update({"corpus_paragraphs": 20, "train_rows": 24, "dev_rows": 16})
    for section, changes in download.items():
        if isinstance(changes, dict):
            params["download"][section].update(changes)
        else:
            params["download"][section] = changes
    YAML().dump(params, folder / "params.yaml")


def command(project_root: Path, folder: Path, endpoint: str, **more: str) -> dict[str, Any]:
    """Arguments for `subprocess` that run the stage in a folder, against a hub, with a cache of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    home = {"HF_HOME": str(folder / "hf"), "HF_ENDPOINT": endpoint, "PYTHONPATH": str(project_root)}
    return {
        "args": [sys.executable, "-m", "stages.download"],
        "cwd": folder,
        "env": kept | home | more,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


def download(project_root: Path, folder: Path, endpoint: str = "http://127.0.0.1:9", **more: str) -> Any:
    return subprocess.run(**command(project_root, folder, endpoint, **more), check=False, timeout=120)


def own_files(folder: Path, glue: Sequence[str] = ()) -> dict[str, Any]:
    """Parameters that take all but GLUE, and these tasks of it, from small files of one's own."""
    (folder / "text.txt").write_text("\n".join(f"paragraph {number}" for number in range(30)))
    (folder / "imdb.jsonl").write_text("\n".join(json.dumps({"text": "x", "label": n % 2}) for n in range(8)))
    answers = {"text": ["b"], "answer_start": [2]}
    squad = {"id": "1", "title": "t", "context": "a b", "question": "q", "answers": answers}
    (folder / "squad.jsonl").write_text(json.dumps(squad))
    row = {name: "x" for task in GLUE.values() for name in task.texts} | {"label": 1}
    (folder / "glue.jsonl").write_text(json.dumps(row))
    return {
        "glue": {"files": {name: all_three("glue.jsonl") if name == "MNLI" else both("glue.jsonl") for name in glue}},
        "corpus": {"files": both("text.txt")},
        "imdb": {"files": both("imdb.jsonl")},
        "squad": {"files": both("squad.jsonl")},
    }


def both(name: str) -> dict[str, Any]:
    return {"train": [name], "dev": [name], "dev_mismatched": []}


def all_three(name: str) -> dict[str, Any]:
    return both(name) | {"dev_mismatched": [name]}


def record(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "data" / name / "dataset.json").read_text())
    return content


# --- without a network


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_embedded_world_makes_every_data_set_twice_the_same(project_root: Path, here: Path) -> None:
    write_params(project_root, here, imdb={"max_train_rows": 6})
    main()
    for task in ALL:
        assert record(here, task.folder)["source"] == "embedded"
        for split in task.splits:
            table = pq.read_table(here / "data" / task.folder / f"{split}.parquet")
            assert table.schema.equals(task.columns)
            assert len(table) == (6 if (task.name, split) == ("IMDb", "train") else 24 if split == "train" else 16)
    assert Counter(pq.read_table(here / "data/imdb/train.parquet")["label"].to_pylist()) == {0: 3, 1: 3}
    assert record(here, "imdb")["note"].endswith("cut: 6 of 24 training rows")
    assert pq.read_table(here / "data/corpus/train.parquet").schema.names == ["text"]
    first = digest(here / "data")
    main()
    assert digest(here / "data") == first


def test_own_files_take_the_place_of_any_data_set(
    project_root: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"sentence1": f"a {number}", "sentence2": "b", "label": number % 2} for number in range(9)]
    (here / "rte.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    write_params(project_root, here, **own_files(here) | {"glue": {"files": {"RTE": both("rte.jsonl")}}})
    main()
    assert pq.read_table(here / "data/glue/RTE/train.parquet").to_pylist() == rows
    assert record(here, "glue/RTE")["source"] == "files"
    assert list(record(here, "glue/RTE")["files"]["dev"]) == ["rte.jsonl"]
    assert record(here, "glue/CoLA")["source"] == "embedded"
    assert record(here, "corpus")["splits"]["train"]["rows"] == 30
    assert record(here, "imdb")["splits"]["train"]["rows"] == 8
    assert "RTE" in capsys.readouterr().out


def test_a_failed_download_leaves_the_old_data_alone(project_root: Path, here: Path) -> None:
    write_params(project_root, here, **own_files(here))
    main()
    before = digest(here / "data")
    (here / "imdb.jsonl").write_text(json.dumps({"text": "x", "label": 2}))
    with pytest.raises(UserError, match=r"^imdb\.jsonl: row 1: label 2 is not a class of 0 to 1$"):
        main()
    assert digest(here / "data") == before


def test_own_files_need_every_split_of_their_task(project_root: Path, here: Path) -> None:
    own = own_files(here, ["MNLI"])
    write_params(project_root, here, **own)
    main()
    assert set(record(here, "glue/MNLI")["splits"]) == {"train", "dev", "dev_mismatched"}
    own["glue"]["files"]["MNLI"] = both("glue.jsonl")
    write_params(project_root, here, **own)
    with pytest.raises(UserError, match=r"^params\.yaml: download\.glue: files\.MNLI: dev_mismatched is missing$"):
        main()


@pytest.mark.parametrize("offline", [{"HF_HUB_OFFLINE": "1"}, {}])
def test_without_a_hub_one_line_names_the_repository_and_the_way_out(
    project_root: Path, tmp_path: Path, offline: dict[str, str]
) -> None:
    write_params(project_root, tmp_path, source="hub", corpus={"repository": "local/gutenberg"})
    done = download(project_root, tmp_path, **offline)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: dataset local/gutenberg at revision b08601e0")
    assert "`download.source: embedded`" in last
    assert ("HF_HUB_OFFLINE" if offline else "HF_ENDPOINT") in last
    assert "Traceback" not in done.stderr
    assert not any((tmp_path / "data").iterdir())


# --- with the hub's mirror


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repository": "nobody/nothing"}, "dataset nobody/nothing at revision"),
        ({"repository": "nyu-mll/glue.git"}, "dataset nyu-mll/glue.git at revision"),
        ({"repository": "a--b/c"}, "no name of a repository (Cannot have -- or .. in"),
        ({"config": "latin"}, "configuration 'latin'? It has default"),
        ({"text_column": "body"}, "no column 'body'; it has text"),
        ({"repository": "nyu-mll/glue"}, "configuration None? It has cola, sst2"),
    ],
)
def test_a_wrong_name_is_told_in_one_line(
    project_root: Path, here: Path, hub: Path, changes: dict[str, str], message: str
) -> None:
    wanted = {"repository": "local/gutenberg", "config": None, "max_train_rows": 5, "max_dev_rows": 5} | changes
    write_params(project_root, here, source="hub", corpus=wanted)
    with pytest.raises(UserError) as error:
        main()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not any((here / "data").iterdir())


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_cache_that_cannot_be_written_is_told_at_once(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), "/cache/hub/blobs")

    monkeypatch.setattr("stages.sources.hub.hf_hub_download", refuse)
    monkeypatch.setattr(Repository, "_answers", True)
    with pytest.raises(UserError, match=r": /cache/hub/blobs cannot be written \(.*\); set HF_HOME") as error:
        Repository("a/b", "0" * 40).fetch("README.md")
    assert "\n" not in str(error.value)


def check_against_repository(folder: Path, names: Sequence[str] = FETCHED) -> None:
    """Compare what was written with the files in the hub's cache that it was made from."""
    (snapshot,) = (folder / "hf" / "hub" / "datasets--nyu-mll--glue" / "snapshots").iterdir()
    for task in (GLUE[name] for name in names):
        kept = record(folder, task.folder)["splits"]
        for split, theirs in task.splits.items():
            source = pa.concat_tables(
                [pq.read_table(path) for path in sorted(snapshot.glob(f"{task.config}/{theirs}-*"))]
            )
            written = pq.read_table(folder / "data" / task.folder / f"{split}.parquet")
            assert written.to_pydict() == source.select(task.columns.names).to_pydict()
            assert kept[split] == {"rows": len(source), "available": len(source), "official": task.official[split]}


@pytest.mark.parametrize("faults", [{}, {"fail_every": 3}, {"truncate_every": 3}])
def test_everything_arrives_whole_whatever_the_network_does(
    project_root: Path, tmp_path: Path, mirror: Callable[..., str], faults: dict[str, int]
) -> None:
    write_params(project_root, tmp_path, source="hub", **own_files(tmp_path, NOT_FETCHED))
    done = download(project_root, tmp_path, mirror(**faults))
    assert done.returncode == 0, done.stderr
    assert ("HTTP 503; trying again" in done.stderr) == ("fail_every" in faults)
    assert ("Trying to resume" in done.stderr) == ("truncate_every" in faults)
    check_against_repository(tmp_path)
    assert record(tmp_path, "glue/RTE")["complete"] is True
    assert record(tmp_path, "glue/MNLI")["note"] == (
        "the repository holds 12,332 of the official 392,702 training rows, "
        "1,000 of the official 9,832 mismatched dev rows"
    )


@pytest.mark.long
@pytest.mark.parametrize("faults", [{"fail_every": 3}, {"truncate_every": 3}, {"fail_every": 4, "truncate_every": 3}])
def test_all_data_sets_arrive_whole(
    project_root: Path, tmp_path: Path, mirror: Callable[..., str], faults: dict[str, int]
) -> None:
    write_params(project_root, tmp_path, source="hub", corpus={"repository": "local/gutenberg", "config": None})
    assert download(project_root, tmp_path, mirror(**faults)).returncode == 0
    check_against_repository(tmp_path, tuple(GLUE))
    assert record(tmp_path, "imdb")["complete"] is True
    assert record(tmp_path, "corpus")["complete"] is True
    first = digest(tmp_path / "data")
    offline = download(project_root, tmp_path, HF_HUB_OFFLINE="1")  # all of it comes from the cache
    assert offline.returncode == 0, offline.stderr
    assert digest(tmp_path / "data") == first


def test_imdb_squad_and_a_corpus_are_cut_balanced(
    project_root: Path, tmp_path: Path, mirror: Callable[..., str]
) -> None:
    limits = {"max_train_rows": 101, "max_dev_rows": 50}
    corpus = {"repository": "local/gutenberg", "config": None, "revision": "0" * 40}
    own = {"glue": own_files(tmp_path, tuple(GLUE))["glue"]}
    write_params(project_root, tmp_path, source="hub", corpus=corpus | limits, imdb=limits, squad=limits, **own)
    done = download(project_root, tmp_path, mirror())
    assert done.returncode == 0, done.stderr
    labels = pq.read_table(tmp_path / "data/imdb/train.parquet")["label"].to_pylist()
    assert sorted(Counter(labels).values()) == [50, 51]
    assert labels != sorted(labels)
    assert record(tmp_path, "imdb")["splits"]["train"] == {"rows": 101, "available": 25000, "official": 25000}
    assert record(tmp_path, "squad")["splits"]["dev"]["rows"] == 50
    assert record(tmp_path, "corpus")["splits"]["train"]["rows"] == 101
    assert "drawn from 1 of 2 files of local/gutenberg" in record(tmp_path, "corpus")["note"]


def test_a_killed_download_leaves_nothing_half_and_the_next_one_carries_on(
    project_root: Path, tmp_path: Path, mirror: Callable[..., str]
) -> None:
    write_params(project_root, tmp_path, source="hub", **own_files(tmp_path, NOT_FETCHED))
    incoming = tmp_path / "data" / ".incoming" / "glue" / "RTE" / "dataset.json"
    process = subprocess.Popen(**command(project_root, tmp_path, mirror()), start_new_session=True)
    wait_for(incoming.exists, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".incoming"]
    fetched = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "hf" / "hub").glob("*/blobs/*") if path.suffix == ""
    }
    assert fetched
    done = download(project_root, tmp_path, mirror())
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["corpus", "glue", "imdb", "squad"]
    assert all(path.stat().st_mtime_ns == written for path, written in fetched.items())
    check_against_repository(tmp_path)


def test_a_damaged_cache_is_mended(project_root: Path, tmp_path: Path, mirror: Callable[..., str]) -> None:
    write_params(project_root, tmp_path, source="hub", **own_files(tmp_path, NOT_FETCHED))
    assert download(project_root, tmp_path, mirror()).returncode == 0
    before = digest(tmp_path / "data")
    largest = max((tmp_path / "hf" / "hub").glob("*/blobs/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    done = download(project_root, tmp_path, mirror())
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path / "data") == before
