"""Models beside each other: what is retained of the teacher, and whether a score beats chance."""

from collections.abc import Callable, Sequence
from functools import partial

from stages.reporting.cells import Results
from stages.reporting.labels import (
    EQUAL,
    decimals,
    difference_texts,
    metric_name,
    number,
    percent,
    percent_range,
    spread_text,
    title,
)
from stages.reporting.markdown import DASH, Footnotes, aligned, markdown_table
from stages.reporting.paired import Pairs, mean_share
from stages.reporting.statistics import Interval
from stages.reporting.summary import TEACHER, Retained, Standings, mean_retained, retained

RETAINED = (
    "Retained = ({student} - chance) / ({teacher} - chance); ratio = {student} / {teacher}. A dash: {teacher} does not "
    "beat chance on the task, which then does not count in the average. Difference: {student} minus {teacher} on the "
    "same dev rows. Intervals: 95 %, paired bootstrap over the dev rows. {apart}"
)
AGAINST_CHANCE = (
    "Intervals: 95 %, bootstrap over the dev rows. Chance is the accuracy of the dev set's majority class, and 0 for "
    "correlations and F1. A model beats it where the interval lies above."
)


def retained_tables(results: Results, standings: Standings, pairs: Pairs) -> list[str]:
    """Lay out one table for each model that has the teacher beside it."""
    if TEACHER not in results.models:
        return []
    return [_retained_table(results, standings, pairs, model) for model in results.models if model != TEACHER]


def _retained_table(results: Results, standings: Standings, pairs: Pairs, model: str) -> str:
    notes, rows = Footnotes(), []
    shares = kept(results, standings, model)
    for task in results.all_tasks():
        teacher, student, text = standings[task, TEACHER], standings[task, model], _digits(task, 4)
        pair, name = pairs[task, model], task + notes.mark(task, results.first(task).note)
        differences = difference_texts(pair.difference, pair.interval, decimals(task))
        scores = [text(teacher.chance), spread_text(teacher.score, text), spread_text(student.score, text)]
        rows.append([name, metric_name(task), *scores, *differences, *_shares(shares[task], pair.share)])
    average = mean_share([pairs[task, model] for task in results.all_tasks()])
    rows.append(["average", *[""] * 6, *_shares(mean_retained(list(shares.values())), average)])
    header = ["Task", "Metric", "Chance", title(TEACHER), title(model), "Difference", "its 95 % interval"]
    header += ["Retained", "its 95 % interval", "Ratio"]
    explanation = RETAINED.format(student=title(model), teacher=title(TEACHER), apart=_apart(results, pairs, model))
    return _section(f"What {title(model)} retains", explanation, markdown_table(header, rows), notes.text())


def _apart(results: Results, pairs: Pairs, model: str) -> str:
    equal = not_told_apart(results, pairs, model)
    if not equal:
        return "**Every difference is more than chance among these rows.**"
    return f"**{EQUAL}: cannot be told apart from {title(TEACHER)} ({', '.join(equal)}).**"


def not_told_apart(results: Results, pairs: Pairs, model: str) -> list[str]:
    """List the tasks on which the dev rows show no difference between a model and the teacher."""
    return [task for task in results.all_tasks() if not pairs[task, model].told_apart]


def against_chance(results: Results, standings: Standings) -> str:
    """Lay out every score's 95 % interval beside what chance gives."""
    notes, rows = Footnotes(), []
    for task in results.all_tasks():
        cell, text = results.first(task), _digits(task, 3)
        beside = [standings[task, model] for model in results.models]
        intervals = [f"{text(one.interval.low)} to {text(one.interval.high)}" for one in beside]
        name = task + notes.mark(task, cell.note)
        rows.append([name, metric_name(task), f"{cell.dev_rows:,}", text(beside[0].chance), *intervals])
    header = ["Task", "Metric", "Dev rows", "Chance", *(title(model) for model in results.models)]
    statement = f"{AGAINST_CHANCE} {_statement(standings)}"
    return _section("Against chance", statement, markdown_table(header, rows), notes.text())


def _statement(standings: Standings) -> str:
    below = [f"{title(model)} on {task}" for (task, model), standing in standings.items() if not standing.beats_chance]
    return (
        f"**Chance is not beaten by {', '.join(below)}.**" if below else "**Every model beats chance on every task.**"
    )


def terminal(results: Results, standings: Standings) -> str:
    """Lay out BERT, DistilBERT and what is retained, a task a row, for a terminal of 100 columns."""
    tasks = results.all_tasks()
    if not tasks:
        return "params.yaml lists no model or no task (glue.tasks, imdb.tasks, squad.tasks): nothing to compare"
    columns = [["Task", *tasks], ["Metric", *map(metric_name, tasks)]]
    columns.append(["Chance", *(_digits(task, 4)(standings[task, results.models[0]].chance) for task in tasks)])
    compared = TEACHER in results.models and len(results.models) > 1
    for model in sorted(results.models, key=lambda name: name != TEACHER):  # the teacher first, the others as listed
        columns.append([title(model), *(_digits(task, 4)(standings[task, model].score.median) for task in tasks)])
        if compared and model != TEACHER:
            shares = kept(results, standings, model)
            columns.append(["retained", *(_percent(shares[task]) for task in tasks)])
            columns[-1].append(_percent(mean_retained(list(shares.values()))))
    if compared:
        columns[0].append("average")
    rows = list(zip(*(column + [""] * (len(columns[0]) - len(column)) for column in columns), strict=True))
    return f"{_caption(results, compared)}\n\n{aligned(rows[0], rows[1:])}"


def _caption(results: Results, compared: bool) -> str:
    seeds = "1 seed" if len(results.seeds) == 1 else f"median of {len(results.seeds)} seeds"
    formula = "; retained = (score - chance) / (BERT - chance)" if compared else ""
    return f"profile {results.profile}, {seeds}{formula}"


def kept(results: Results, standings: Standings, model: str) -> dict[str, Retained | None]:
    """Compute what a model keeps of the teacher's scores, by task."""
    return {task: retained(standings[task, model], standings[task, TEACHER]) for task in results.all_tasks()}


def _digits(task: str, digits: int) -> Callable[[float], str]:
    """Return a writer of a task's score; SQuAD's 0-100 has two decimals, fractions have `digits`."""
    return partial(number, digits=decimals(task, digits))


def _shares(share: Retained | None, interval: Interval | None) -> Sequence[str]:
    if share is None or interval is None:
        return DASH, DASH, DASH
    return percent(share.corrected), percent_range(interval.low, interval.high), percent(share.ratio)


def _percent(share: Retained | None) -> str:
    return percent(share.corrected) if share else DASH


def _section(heading: str, *parts: str) -> str:
    return "\n\n".join([f"### {heading}", *(part for part in parts if part)])
