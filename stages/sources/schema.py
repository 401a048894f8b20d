"""The labelled data sets: their places on the hub, columns, labels and official sizes, and checks of all that."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from stages.core.errors import UserError

ANSWERS = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))])
TRAIN_DEV = {"train": "train", "dev": "validation"}


@dataclass(frozen=True)
class Task:
    """One labelled data set.

    `labels` names the labels 0, 1, … as the hub does; it is empty for a similarity score of 0 to 5, None for answers.
    `official` are the rows of each split as the data set's authors publish it.
    """

    name: str
    folder: str
    config: str
    texts: tuple[str, ...]
    labels: tuple[str, ...] | None
    official: Mapping[str, int]
    splits: Mapping[str, str] = field(default_factory=lambda: TRAIN_DEV)

    @property
    def classes(self) -> int | None:
        """Return the number of labels; 0 for a similarity score, None for answers."""
        return None if self.labels is None else len(self.labels)

    @property
    def columns(self) -> pa.Schema:
        """Names and types of the columns, in their order."""
        fields = [pa.field(name, pa.string()) for name in self.texts]
        if self.classes is None:
            return pa.schema([*fields, pa.field("answers", ANSWERS)])
        return pa.schema([*fields, pa.field("label", pa.int64() if self.classes else pa.float32())])


# Rows: the `dataset_info` of nyu-mll/glue, stanfordnlp/imdb and rajpurkar/squad at the revisions in `params.yaml`;
# they are those of Wang et al. 2018 (GLUE), Maas et al. 2011 (IMDb) and Rajpurkar et al. 2016 (SQuAD 1.1).
# Labels: the same `dataset_info`'s `class_label`.
_PAIR = ("sentence1", "sentence2")
_ENTAILED = ("entailment", "not_entailment")
_MNLI = {"train": "train", "dev": "validation_matched", "dev_mismatched": "validation_mismatched"}
GLUE: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            "CoLA", "glue/CoLA", "cola", ("sentence",), ("unacceptable", "acceptable"), {"train": 8_551, "dev": 1_043}
        ),
        Task(
            "MNLI",
            "glue/MNLI",
            "mnli",
            ("premise", "hypothesis"),
            ("entailment", "neutral", "contradiction"),
            {"train": 392_702, "dev": 9_815, "dev_mismatched": 9_832},
            _MNLI,
        ),
        Task("MRPC", "glue/MRPC", "mrpc", _PAIR, ("not_equivalent", "equivalent"), {"train": 3_668, "dev": 408}),
        Task("QNLI", "glue/QNLI", "qnli", ("question", "sentence"), _ENTAILED, {"train": 104_743, "dev": 5_463}),
        Task(
            "QQP",
            "glue/QQP",
            "qqp",
            ("question1", "question2"),
            ("not_duplicate", "duplicate"),
            {"train": 363_846, "dev": 40_430},
        ),
        Task("RTE", "glue/RTE", "rte", _PAIR, _ENTAILED, {"train": 2_490, "dev": 277}),
        Task("SST-2", "glue/SST-2", "sst2", ("sentence",), ("negative", "positive"), {"train": 67_349, "dev": 872}),
        Task("STS-B", "glue/STS-B", "stsb", _PAIR, (), {"train": 5_749, "dev": 1_500}),
        Task("WNLI", "glue/WNLI", "wnli", _PAIR, ("not_entailment", "entailment"), {"train": 635, "dev": 71}),
    )
}
IMDB = Task(
    "IMDb",
    "imdb",
    "plain_text",
    ("text",),
    ("neg", "pos"),
    {"train": 25_000, "dev": 25_000},
    {"train": "train", "dev": "test"},
)
SQUAD = Task(
    "SQuAD", "squad", "plain_text", ("id", "title", "context", "question"), None, {"train": 87_599, "dev": 10_570}
)


def conform(table: pa.Table, task: Task, where: str) -> pa.Table:
    """Return the task's columns of a table, with its types; `where` names the table in errors.

    Raises UserError for a missing column, a wrong type, a missing value, a label out of range, or an answer outside its
    context.
    """
    columns = {expected.name: _column(table, expected, where) for expected in task.columns}
    checked = pa.table(columns, schema=task.columns)
    if task.classes is None:
        _check_answers(checked, where)
    else:
        _check_labels(checked["label"], task.classes, where)
    return checked


def _column(table: pa.Table, expected: pa.Field, where: str) -> pa.ChunkedArray:
    if expected.name not in table.column_names:
        raise UserError(f"{where}: no column {expected.name!r}; it has {', '.join(table.column_names)}")
    column = table[expected.name]
    if not _fits(column.type, expected.type):
        raise UserError(f"{where}: column {expected.name!r} holds {column.type}, expected {expected.type}")
    if column.null_count:
        raise UserError(f"{where}: row {_first(column.is_null())}: {expected.name!r} is missing")
    try:
        return column.cast(expected.type)
    except pa.ArrowInvalid as error:
        raise UserError(f"{where}: {_unfit(column, expected) or f'column {expected.name!r}: {error}'}") from error


def _unfit(column: pa.ChunkedArray, expected: pa.Field) -> str | None:
    """Tell the first value that has no equal in the expected type, None if each has."""
    for row, value in enumerate(column, start=1):
        try:
            value.cast(expected.type)
        except pa.ArrowInvalid:
            return f"row {row}: {expected.name!r} is {value.as_py()!r:.60}, expected {expected.type}"
    return None


def _fits(given: pa.DataType, expected: pa.DataType) -> bool:
    """Whether a column may be cast without a change of meaning."""
    if pa.types.is_dictionary(given):
        return _fits(given.value_type, expected)
    if pa.types.is_string(expected):
        return bool(pa.types.is_string(given) or pa.types.is_large_string(given) or pa.types.is_string_view(given))
    if pa.types.is_integer(expected):
        return bool(pa.types.is_integer(given))
    if pa.types.is_floating(expected):
        return bool(pa.types.is_floating(given) or pa.types.is_integer(given))
    if pa.types.is_struct(expected):
        return pa.types.is_struct(given) and all(
            given.get_field_index(part.name) >= 0 and _fits(given.field(part.name).type, part.type) for part in expected
        )
    is_list = pa.types.is_list(given) or pa.types.is_large_list(given)
    return is_list and _fits(given.value_type, expected.value_type)


def _check_labels(labels: pa.ChunkedArray, classes: int, where: str) -> None:
    highest = classes - 1 if classes else 5
    inside = pc.and_(pc.greater_equal(labels, 0), pc.less_equal(labels, highest))  # NaN is outside
    if not pc.all(inside, min_count=0).as_py():
        row = _first(pc.invert(inside))
        allowed = "a score of 0 to 5" if not classes else f"a class of 0 to {highest}"
        raise UserError(f"{where}: row {row}: label {labels[row - 1].as_py()} is not {allowed}")


def _check_answers(table: pa.Table, where: str) -> None:
    """Raise UserError unless every question has answers, each with an offset within its context."""
    rows = zip(table["context"].to_pylist(), table["answers"].to_pylist(), strict=True)
    for row, (context, answers) in enumerate(rows, start=1):
        texts, starts = answers["text"] or [], answers["answer_start"] or []
        if not texts or len(texts) != len(starts) or None in texts or None in starts:
            raise UserError(f"{where}: row {row}: 'answers' needs at least one text and as many answer_start")
        for text, start in zip(texts, starts, strict=True):
            if not 0 <= start <= start + len(text) <= len(context):
                raise UserError(f"{where}: row {row}: answer {text!r} at character {start} reaches beyond the context")


def check_spans(table: pa.Table, where: str) -> None:
    """Raise UserError unless each answer of checked SQuAD rows is the text at its offset, in characters."""
    rows = zip(table["context"].to_pylist(), table["answers"].to_pylist(), strict=True)
    for row, (context, answers) in enumerate(rows, start=1):
        for text, start in zip(answers["text"], answers["answer_start"], strict=True):
            if not text or context[start : start + len(text)] != text:
                raise UserError(
                    f"{where}: row {row}: answer {text!r} does not stand at character {start} of the context"
                )


def _first(mask: pa.ChunkedArray) -> int:
    """Return the number, from 1, of the first row for which a mask is true."""
    return int(pc.index(mask, True).as_py()) + 1
