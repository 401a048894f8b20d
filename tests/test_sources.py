"""Sampling, schemas, own files and what is written: no network."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import write_damaged
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import UserError
from stages.params import Corpus, Files
from stages.sources import corpus, files, tasks
from stages.sources.datacard import DataCard, _by_name, _by_pattern
from stages.sources.hub import Repository
from stages.sources.output import ParquetSink, describe, write_parquet
from stages.sources.sampling import Scatter, draw, equal_shares, generator
from stages.sources.schema import GLUE, IMDB, SQUAD, Task, conform

LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=60)
SOME = settings(max_examples=60, deadline=None)


@SOME
@given(LABELS, st.integers(1, 70), st.integers(0, 2**31 - 1))
def test_a_limit_keeps_that_many_distinct_rows_as_balanced_as_the_data_allow(
    labels: list[int], limit: int, seed: int
) -> None:
    kept = draw(len(labels), limit, generator(seed, "x"), labels)
    assert len(kept) == len(set(kept.tolist())) == min(limit, len(labels))
    have, got = Counter(labels), Counter(labels[index] for index in kept)
    # a class falls behind the largest by more than one only if it has no more rows
    assert all(got[label] == have[label] or got[label] >= max(got.values()) - 1 for label in have)


@SOME
@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 120))
def test_equal_shares_add_up_and_fit(sizes: list[int], total: int) -> None:
    shares = equal_shares(sizes, total)
    assert sum(shares) == min(total, sum(sizes))
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))


def test_a_draw_depends_on_seed_and_name_only_and_is_shuffled() -> None:
    sorted_labels = [0] * 500 + [1] * 500
    first = draw(1000, 100, generator(1, "IMDb/train"), sorted_labels)
    assert np.array_equal(first, draw(1000, 100, generator(1, "IMDb/train"), sorted_labels))
    assert not np.array_equal(first, draw(1000, 100, generator(2, "IMDb/train"), sorted_labels))
    assert not np.array_equal(first, draw(1000, 100, generator(1, "IMDb/dev"), sorted_labels))
    assert 10 < sum(sorted_labels[index] for index in first[:50]) < 40


def test_no_limit_keeps_the_order() -> None:
    assert draw(5, None, generator(0, "x")).tolist() == draw(5, 9, generator(0, "x")).tolist() == [0, 1, 2, 3, 4]


@SOME
@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.data())
def test_a_stream_is_scattered_into_disjoint_samples_of_the_wanted_sizes(
    lengths: list[int], data: st.DataObject
) -> None:
    total = sum(lengths)
    first = data.draw(st.integers(0, total))
    wanted = [first, data.draw(st.integers(0, total - first))]
    draws = Scatter(total, wanted, generator(data.draw(st.integers(0, 1000)), "x"))
    taken: list[list[int]] = [[], []]
    for start, length in zip(np.cumsum([0, *lengths]).tolist(), lengths, strict=False):
        for sample, picks in zip(taken, draws.picks(length), strict=True):
            assert picks.tolist() == sorted(picks.tolist())
            sample += [start + pick for pick in picks.tolist()]
    assert [len(sample) for sample in taken] == wanted
    assert len(set(taken[0]) | set(taken[1])) == sum(wanted)


def test_a_scattered_sample_is_uniform() -> None:
    hits = np.zeros(40)
    random = generator(3, "uniform")
    for _ in range(2000):
        draws = Scatter(40, [10], random)
        for start, length in ((0, 25), (25, 5), (30, 10)):
            hits[start + draws.picks(length)[0]] += 1
    assert np.all(np.abs(hits / 2000 - 0.25) < 0.05)  # five standard deviations


# --- schemas


PAIR = {"sentence1": "a", "sentence2": "b", "label": 1}
ANSWERED = {
    "id": "1",
    "title": "t",
    "context": "Él ate the tofu.",
    "question": "What?",
    "answers": {"text": ["tofu"], "answer_start": [11]},
}


def test_columns_come_in_the_tasks_order_and_types_without_the_others() -> None:
    given_ = pa.Table.from_pylist([{"idx": 0, "label": 1, "sentence2": "b", "sentence1": "a"}])
    assert conform(given_, GLUE["RTE"], "x").schema == GLUE["RTE"].columns
    encoded = pa.table({"text": pa.array(["a", "a"]).dictionary_encode(), "label": pa.array([0, 1], pa.int8())})
    assert conform(encoded, IMDB, "x").to_pylist() == [{"text": "a", "label": 0}, {"text": "a", "label": 1}]
    large = pa.table({"text": pa.array(["a"], pa.large_string()), "label": [0]})
    assert conform(large, IMDB, "x").schema == IMDB.columns


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        ("RTE", [PAIR, PAIR | {"label": -1}], "own: row 2: label -1 is not a class of 0 to 1"),
        ("RTE", [PAIR | {"label": 2}], "own: row 1: label 2 is not a class of 0 to 1"),
        ("MNLI", [{"premise": "a", "hypothesis": "b", "label": 3}], "row 1: label 3 is not a class of 0 to 2"),
        ("STS-B", [PAIR | {"label": 5.5}], "row 1: label 5.5 is not a score of 0 to 5"),
        ("STS-B", [PAIR | {"label": float("nan")}], "row 1: label nan is not a score of 0 to 5"),
        ("RTE", [PAIR | {"label": 0.5}], "column 'label' holds double, expected int64"),
        ("RTE", [PAIR | {"label": "yes"}], "column 'label' holds string, expected int64"),
        ("RTE", [PAIR, PAIR | {"sentence2": None}], "row 2: 'sentence2' is missing"),
        ("RTE", [{"sentence1": "a", "label": 0}], "no column 'sentence2'; it has sentence1, label"),
    ],
)
def test_a_violated_schema_is_told_in_one_line(task: str, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError) as error:
        conform(pa.Table.from_pylist(rows), GLUE[task], "own")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"text": [], "answer_start": []}, "row 1: 'answers' needs at least one text"),
        ({"text": ["tofu"], "answer_start": []}, "row 1: 'answers' needs at least one text"),
        ({"text": ["tofu"], "answer_start": [-1]}, "row 1: answer 'tofu' at character -1 reaches beyond"),
        ({"text": ["tofu"], "answer_start": [14]}, "row 1: answer 'tofu' at character 14 reaches beyond"),
        ({"text": ["tofu"], "answer_start": [12]}, "row 1: answer 'tofu' does not stand at character 12"),  # bytes
    ],
)
def test_an_answer_must_be_where_it_claims_to_be(tmp_path: Path, answers: dict[str, Any], message: str) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps(ANSWERED | {"answers": answers}))
    with pytest.raises(UserError, match=message):
        files.read_task([str(own)], SQUAD)


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        ("RTE", pa.array([1, 2**63], pa.uint64()), "own: row 2: 'label' is 9223372036854775808, expected int64"),
        ("STS-B", pa.array([1, 2**40]), "own: row 2: 'label' is 1099511627776, expected float"),
    ],
)
def test_a_number_too_large_for_its_column_is_told_in_one_line(task: str, labels: pa.Array, message: str) -> None:
    table = pa.table({"sentence1": ["a", "a"], "sentence2": ["b", "b"], "label": labels})
    with pytest.raises(UserError) as error:
        conform(table, GLUE[task], "own")
    assert str(error.value) == message


def test_an_offset_too_large_for_its_column_is_told_in_one_line() -> None:
    rows = [ANSWERED, ANSWERED | {"answers": {"text": ["tofu"], "answer_start": [2**40]}}]
    with pytest.raises(UserError, match=r"^own: row 2: 'answers' is .*1099511627776.*, expected struct"):
        conform(pa.Table.from_pylist(rows), SQUAD, "own")


# --- files of one's own


def test_tasks_come_from_several_files_of_both_kinds(tmp_path: Path) -> None:
    rows = [PAIR, PAIR | {"sentence1": "ü", "label": 0}, PAIR]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows[:2]) + "\n\n")
    pq.write_table(pa.Table.from_pylist(rows[2:]), tmp_path / "b.parquet")
    read = files.read_task([str(tmp_path / "a.jsonl"), str(tmp_path / "b.parquet")], GLUE["RTE"])
    assert read.to_pylist() == rows
    (tmp_path / "s.jsonl").write_text(json.dumps(ANSWERED))
    assert files.read_task([str(tmp_path / "s.jsonl")], SQUAD).to_pylist() == [ANSWERED]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "row 2: not valid JSON"),
        ("[1]", "row 2: expected an object, found list"),
        ('{"sentence1": "a", "label": 0}', "row 2: no key 'sentence2'; it has sentence1, label"),
        ('{"sentence1": "a", "sentence2": 3, "label": 0}', "row 2: 'sentence2' is 3, expected string"),
        ('{"sentence1": "a\\ud800", "sentence2": "b", "label": 0}', "row 2: 'sentence1' is text with half a surrogate"),
        (
            '{"sentence1": "a", "sentence2": "b", "label": 18446744073709551615}',
            "row 2: 'label' is 18446744073709551615,",
        ),
        ('{"sentence1": "a", "sentence2": null, "label": 0}', "row 2: 'sentence2' is null, expected string"),
        ('{"sentence1": "a", "sentence2": "b", "label": 0.5}', "row 2: 'label' is 0.5, expected int64"),
        ('{"sentence1": "a", "sentence2": "b", "label": true}', "row 2: 'label' is true, expected int64"),
        ('{"sentence1": "a", "sentence2": "b", "label": 7}', "row 2: label 7 is not a class of 0 to 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(PAIR) + "\n" + line + "\n")
    with pytest.raises(UserError) as error:
        files.read_task([str(path)], GLUE["RTE"])
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"), [("absent.jsonl", "no such file"), ("own.csv", "expected a file that ends")]
)
def test_missing_and_unknown_files_are_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "own.csv").touch()
    with pytest.raises(UserError, match=f"{name}: {message}"):
        files.read_task([str(tmp_path / name)], GLUE["RTE"])


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match=r"own\.parquet: damaged, or no parquet file \(.*\); replace it"):
        files.read_task([str(tmp_path / "own.parquet")], GLUE["RTE"])


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_a_parquet_file_with_a_flipped_byte_is_named(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "own.parquet"
    write_damaged(path, {name: [f"{name} {number}" for number in range(999)] for name in PAIR}, compression)
    with pytest.raises(UserError, match=r"own\.parquet: damaged, or no parquet file \(.*\); replace it"):
        files.read_task([str(path)], GLUE["RTE"])
    with pytest.raises(UserError, match=r"own\.parquet: damaged, or no parquet file \(.*\); replace it"):
        list(files.text_batches(path, "sentence1"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\ntwo\n", ["one", "two"]),
        ("one\ntwo\n\n\n", ["one", "two"]),
        ("one,\nstill one\n\n \ntwo\n", ["one, still one", "two"]),
        ("\ufeffone\r\n\r\ntwo", ["one", "two"]),
    ],
)
def test_text_files_have_a_paragraph_a_line_or_blank_lines_between(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    (tmp_path / "own.txt").write_bytes(text.encode())
    (batch,) = files.text_batches(tmp_path / "own.txt", "text")
    assert corpus.paragraphs(batch).to_pylist() == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": "a\\udc00"}', "row 1: 'text' is text with half a surrogate pair, '\\udc00', expected text"),
        ('{"text": 3}', "row 1: 'text' is 3, expected text"),
        ('{"text": null}', "row 1: 'text' is null, expected text"),
        ('{"txt": "a"}', "row 1: 'text' is null, expected text"),
    ],
)
def test_text_that_is_none_is_named(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "own.jsonl").write_text(row)
    with pytest.raises(UserError) as error:
        list(files.text_batches(tmp_path / "own.jsonl", "text"))
    assert str(error.value) == f"{tmp_path / 'own.jsonl'}: {message}"


def test_rows_are_split_at_blank_lines_and_empty_ones_dropped() -> None:
    rows = pa.array(["first\nline\n\nsecond \n \n third", "", None, " = Title = \n"])
    assert corpus.paragraphs(rows).to_pylist() == ["first\nline", "second", "third", "= Title ="]


# --- the corpus


def own_corpus(folder: Path, limits: tuple[int | None, int | None], **more: Any) -> Corpus:
    lines = [f"training paragraph {number}" for number in range(50)]
    (folder / "a.txt").write_text("\n".join(lines[:20]))
    pq.write_table(pa.table({"body": lines[20:40]}), folder / "b.parquet")
    (folder / "c.jsonl").write_text("\n".join(json.dumps({"body": line}) for line in lines[40:]))
    (folder / "d.txt").write_text("\n".join(f"held-out paragraph {number}" for number in range(9)))
    own = Files(train=[str(folder / name) for name in ("a.txt", "b.parquet", "c.jsonl")], dev=[str(folder / "d.txt")])
    values: dict[str, Any] = {"repository": "a/b", "revision": "0" * 40, "config": None, "text_column": "body"}
    return Corpus(**values, max_train_rows=limits[0], max_dev_rows=limits[1], files=own, **more)


def texts_of(folder: Path, split: str) -> list[str]:
    column: list[str] = pq.read_table(folder / f"{split}.parquet")["text"].to_pylist()
    return column


def test_a_corpus_of_own_files_keeps_document_order(tmp_path: Path) -> None:
    record = corpus.write(own_corpus(tmp_path, (None, None)), "embedded", 1, None, tmp_path / "out")
    assert texts_of(tmp_path / "out", "train") == [f"training paragraph {number}" for number in range(50)]
    assert len(texts_of(tmp_path / "out", "dev")) == 9
    assert json.loads((tmp_path / "out" / "dataset.json").read_text()) == record
    assert record["splits"] == {"train": {"rows": 50, "available": 50}, "dev": {"rows": 9, "available": 9}}
    assert list(record["files"]["dev"]) == [str(tmp_path / "d.txt")]


def test_a_limit_reads_no_more_files_than_it_needs(tmp_path: Path) -> None:
    spec = own_corpus(tmp_path, (8, 3))
    record = corpus.write(spec, "embedded", 1, None, tmp_path / "out")
    train = texts_of(tmp_path / "out", "train")
    numbers = [int(text.split()[-1]) for text in train]
    assert len(train) == len(set(train)) == 8
    assert numbers == sorted(numbers)
    assert "drawn from 1 of 3 files" in record["note"]
    assert "cut: 3 of 9 dev rows" in record["note"]
    assert record["complete"] is False
    again = corpus.write(spec, "embedded", 1, None, tmp_path / "again")
    assert again == record
    assert (tmp_path / "again" / "train.parquet").read_bytes() == (tmp_path / "out" / "train.parquet").read_bytes()
    corpus.write(spec, "embedded", 2, None, tmp_path / "other")
    assert texts_of(tmp_path / "other", "train") != train


def test_and_also_appends(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    more = own_corpus(tmp_path / "more", (5, 2))
    record = corpus.write(own_corpus(tmp_path, (None, None), and_also=[more]), "embedded", 1, None, tmp_path / "out")
    assert record["splits"]["train"]["rows"] == len(texts_of(tmp_path / "out", "train")) == 55
    assert record["splits"]["dev"] == {"rows": 11, "available": 18}
    assert len(record["and_also"]) == 1


@pytest.mark.parametrize("limits", [(None, None), (200, 7), (None, 7), (10_000, 10_000)])
def test_dev_text_is_held_out_where_the_source_has_none(tmp_path: Path, limits: tuple[int | None, int | None]) -> None:
    rows = corpus.RowShards([{"text": f"paragraph {number}"} for number in range(1000)])
    sinks = [ParquetSink(tmp_path / f"{split}.parquet", corpus.SCHEMA) for split in ("train", "dev")]
    poured = corpus._pour_both(corpus.Text("x", {}, rows, None, limits), sinks[0], sinks[1], 1)
    for sink in sinks:
        sink.close()
    train, dev = texts_of(tmp_path, "train"), texts_of(tmp_path, "dev")
    assert not set(train) & set(dev)
    assert len(dev) == poured[1].rows == min(100, limits[1] or 100)
    assert len(train) == poured[0].rows == min(limits[0] or 1000, 1000 - len(dev))
    assert poured[0].available == 1000 - len(dev)


# --- what is written


@SOME
@given(st.lists(st.text(max_size=5), max_size=40), st.lists(st.integers(0, 40), max_size=4), st.integers(1, 9))
def test_a_sinks_bytes_do_not_depend_on_the_batches(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], cuts: list[int], group: int
) -> None:
    folder = tmp_path_factory.mktemp("sink")
    whole = pa.table({"text": pa.array(texts, pa.string())})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.sources.output.ROW_GROUP", group)
        write_parquet(folder / "whole.parquet", whole)
        sink = ParquetSink(folder / "parts.parquet", whole.schema)
        edges = [0, *sorted(min(cut, len(texts)) for cut in cuts), len(texts)]
        for start, stop in pairwise(edges):
            sink.write(whole[start:stop])
        sink.close()
    assert pq.read_table(folder / "parts.parquet").equals(whole)
    assert (folder / "parts.parquet").read_bytes() == (folder / "whole.parquet").read_bytes()


def test_the_note_tells_cuts_and_what_is_not_official() -> None:
    hub = {"source": "hub", "repository": "a/b", "revision": "0" * 40}
    whole = {"rows": 277, "available": 277, "official": 277}
    assert describe("RTE", hub, {"dev": whole})["complete"] is True
    assert describe("RTE", hub, {"dev": whole})["note"] == ""
    small = describe("RTE", hub, {"train": {"rows": 1000, "available": 2000, "official": 2490}, "dev": whole})
    assert small["complete"] is False
    assert small["note"] == (
        "the repository holds 2,000 of the official 2,490 training rows; cut: 1,000 of 2,000 training rows"
    )
    assert describe("RTE", {"source": "embedded"}, {"dev": {"rows": 5, "available": 5}})["note"].startswith("generated")


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
