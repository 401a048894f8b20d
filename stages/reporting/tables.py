"""The report's Markdown: scores beside published ones, the distillation, and what is retained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from stages.reporting import published
from stages.reporting.beside import Beside
from stages.reporting.cells import Cell, Results
from stages.reporting.comparison import against_chance, retained_tables
from stages.reporting.labels import number, parameters_text, spread_text, title
from stages.reporting.markdown import Footnotes, markdown_table, section
from stages.reporting.paired import Pairs
from stages.reporting.published import PublishedRow
from stages.reporting.retention import beside_published
from stages.reporting.summary import GLUE_TASKS, Standings, named, own, paper

GENERATED = (
    "These are scores on a generated English world, made to be quick to learn: they do not compare with published "
    "scores, so none stand beside them."
)
GLUE = (
    "CoLA: Matthews correlation; STS-B: Pearson correlation; the others: accuracy (MNLI matched, MNLI-mm mismatched)."
)
GLUE_PAPER = "The same x100, but MRPC and QQP as mean of accuracy and F1, STS-B as mean of Pearson and Spearman."
PUBLISHED = "Rows marked published are other people's figures, on the complete data sets unless they say otherwise."

HELD_OUT = {
    "loss": "weighted sum of the losses",
    "mlm_loss": "masked language modelling loss",
    "distill_loss": "KL divergence from the teacher, scaled by the squared temperature",
    "cosine_loss": "cosine loss of hidden states",
    "accuracy": "masked tokens predicted right by the student",
    "teacher_accuracy": "masked tokens predicted right by the teacher",
}
TEACHER_NOTES = {
    "sentence-transformers/all-MiniLM-L6-v2": (
        "The teacher, all-MiniLM-L6-v2, was trained on sentence pairs that include NLI, Quora duplicates and SQuAD "
        "questions, which helps its MNLI, QQP and QNLI scores."
    )
}


@dataclass(frozen=True)
class Column:
    """A column of scores: its heading, the task it belongs to and how to read the score from a cell."""

    heading: str
    task: str
    score: Callable[[Cell], float]


def render(
    results: Results, standings: Standings, pairs: Pairs, distillation: Mapping[str, object], corpus_note: str
) -> str:
    """Write the sections about scores and the distillation; those of suites that were not run are left out.

    `corpus_note` says what the text of the distillation lacks of the official one.
    """
    sections = []
    if results.tasks["glue"]:
        sections += [_glue(results), _glue_paper(results)]
    if results.tasks["imdb"]:
        columns = [Column("accuracy", "IMDb", named("accuracy"))]
        sections.append(f"### IMDb\n\n{_scores(results, columns, 4, published.imdb_rows())}")
    if results.tasks["squad"]:
        columns = [Column(heading, "SQuAD", named(heading)) for heading in ("exact_match", "f1")]
        sections.append(f"### SQuAD 1.1\n\n{_scores(results, columns, 2, published.squad_rows())}")
    if results.all_tasks():
        sections += [*retained_tables(results, standings, pairs), *beside_published(results, standings, pairs)]
        sections.append(against_chance(results, standings))
    sections.append(_distillation(distillation, corpus_note))
    return "\n\n".join(sections) + "\n"


def introduction(results: Results) -> str:
    """Say what was run, on which data and with which seeds."""
    seeds = ", ".join(str(seed) for seed in results.seeds)
    spread = "fine-tuning seed" if len(results.seeds) == 1 else "median (lowest to highest) over the fine-tuning seeds"
    lines = [f"Profile `{results.profile}`, dev sets, {spread} {seeds}."]
    sources = {results.first(task).source for task in results.all_tasks()}
    lines += [GENERATED] if "embedded" in sources else []
    lines += [PUBLISHED] if "hub" in sources else []
    lines += [TEACHER_NOTES[results.teacher]] if "hub" in sources and results.teacher in TEACHER_NOTES else []
    return " ".join(lines)


def _glue(results: Results) -> str:
    columns = _glue_columns(results, own, named("accuracy_mismatched"))
    return f"### GLUE\n\n{GLUE}\n\n{_scores(results, columns, 4, published.glue_rows())}"


def _glue_paper(results: Results) -> str:
    columns = _glue_columns(results, paper, lambda cell: 100 * cell.scores["accuracy_mismatched"])
    table = _scores(results, columns, 2, published.glue_paper_rows())
    return f"### GLUE in the paper's convention\n\n{GLUE_PAPER}\n\n{table}"


def _glue_columns(
    results: Results, score: Callable[[Cell], float], mismatched: Callable[[Cell], float]
) -> list[Column]:
    columns = []
    for task in results.tasks["glue"]:
        columns.append(Column(task, task, score))
        if task == "MNLI":
            columns.append(Column("MNLI-mm", task, mismatched))
    return columns


def _scores(results: Results, columns: Sequence[Column], digits: int, rows: Sequence[PublishedRow]) -> str:
    """Lay out models as rows, then published rows in the columns whose data comes from the hub, as theirs did."""
    notes, text = Footnotes(), partial(number, digits=digits)
    headings = [column.heading for column in columns]
    marks = [notes.mark(column.task, results.first(column.task).note) for column in columns]
    averaged = [column for column in columns if column.heading in GLUE_TASKS]
    with_average = len(averaged) == len(GLUE_TASKS)
    ours = {model: _medians(results, columns, averaged if with_average else [], model) for model in results.models}
    body = [_model_row(results, columns, ours[model], model, text) for model in results.models]
    comparable = {column.heading for column in columns if results.first(column.task).source == "hub"}
    if with_average:
        headings, marks = [*headings, "average"], [*marks, ""]
        comparable |= {"average"} if comparable.issuperset(GLUE_TASKS) else set()
    body += Beside(["Parameters", *headings], ours, title, comparable).lines(rows, notes)
    header = ["Model", "Parameters", *map("".join, zip(headings, marks, strict=True))]
    return "\n\n".join(part for part in (markdown_table(header, body), notes.text()) if part)


def _medians(results: Results, columns: Sequence[Column], averaged: Sequence[Column], model: str) -> dict[str, float]:
    """Return a model's medians by heading, and the average of those that make one."""
    found = {column.heading: results.spread(column.task, model, column.score).median for column in columns}
    return found | ({"average": fmean(found[column.heading] for column in averaged)} if averaged else {})


def _model_row(
    results: Results,
    columns: Sequence[Column],
    medians: Mapping[str, float],
    model: str,
    text: Callable[[float], str],
) -> list[str]:
    row = [title(model), parameters_text(results.cells[columns[0].task, model][0])]
    row += [spread_text(results.spread(column.task, model, column.score), text) for column in columns]
    return row + ([text(medians["average"])] if "average" in medians else [])


def _distillation(metrics: Mapping[str, object], corpus_note: str) -> str:
    notes, rows = Footnotes(), []
    for name, value in metrics.items():
        mark = notes.mark("held-out text", corpus_note) if name in HELD_OUT else ""
        rows.append([HELD_OUT.get(name, name.replace("_", " ")) + mark, _figure(value)])
    note = (
        "Losses and tokens predicted right are on held-out text, at the end. Tokens are masked as in training, rarer "
        "ones more often, as `distill.mlm_smoothing` says."
    )
    return section("Distillation", note, ["Figure", "Value"], rows, notes)


def _figure(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else str(value)
