"""Schemas, and data sets and corpora from files of one's own."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import write_damaged

from stages.core.errors import UserError
from stages.core.params import Corpus, Files
from stages.sources import corpus, files
from stages.sources.output import ParquetSink, describe
from stages.sources.schema import GLUE, IMDB, SQUAD, conform

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
    assert record["note"].startswith("files of one's own")


def test_text_that_is_only_in_part_ones_own_says_so() -> None:
    own, hub = {"source": "files"}, {"source": "hub", "repository": "owner/wiki"}
    splits = {"train": {"rows": 5, "available": 5}}
    for first, second in ((own, hub), (hub, own)):
        record = describe("corpus", first | {"and_also": [second]}, splits)
        assert (record["note"], record["complete"]) == ("in part files of one's own", False)
    assert describe("corpus", hub | {"and_also": [hub]}, splits)["complete"]


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
