"""What a model keeps of its teacher's scores, as a plain ratio, beside what was published, each in its convention."""

from collections.abc import Callable, Mapping
from statistics import fmean

from stages.reporting import published
from stages.reporting.cells import Cell, Results
from stages.reporting.labels import EQUAL, title
from stages.reporting.markdown import DASH, Footnotes, section
from stages.reporting.paired import Pairs
from stages.reporting.published import PAPER, REPRODUCTION, PublishedRow
from stages.reporting.summary import GLUE_TASKS, TEACHER, Standings, own, paper, unlike_published

AVERAGE = "GLUE average"
OTHER_METRICS = ("MRPC", "QQP", "STS-B")  # the paper's convention has other scores of them than the interval is of
NOTE = (
    "Score of {student} / score of {teacher}, not corrected for chance, since chance was not published: in the paper's "
    "convention beside {paper}, in the reproduction's beside the reproduction with 1,000 samples a task. "
    "Differences in points. A dash: {teacher} does not beat chance here; averages are over all nine, as published. "
    "{equal}: the dev rows show no difference between {student} and {teacher}.{other}"
)
OTHER = " Ours are on other data or of other models than the published ones: only the ratios compare."


def beside_published(results: Results, standings: Standings, pairs: Pairs) -> list[str]:
    """Lay out a table for each model of which a ratio to the teacher was published."""
    if TEACHER not in results.models:
        return []
    return [
        _table(results, model, standings, pairs)
        for model in results.models
        if model in published_ratios(published.glue_paper_rows())
    ]


def published_ratios(rows: list[PublishedRow]) -> dict[str, dict[str, float]]:
    """Divide the published figures of every model by those of the teacher in the same source."""
    teacher = next(row for row in rows if row.model == TEACHER)
    ratios: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.source == teacher.source and row.model != TEACHER:
            figures = {task: (row.figures[task], teacher.figures[task]) for task in GLUE_TASKS}
            ratios[row.model] = {task: ours / theirs for task, (ours, theirs) in figures.items()}
            ratios[row.model][AVERAGE] = _average(row) / _average(teacher)
    return ratios


def _average(row: PublishedRow) -> float:
    """Return the average as published, else that of the nine tasks."""
    return row.figures.get("average", fmean(row.figures[task] for task in GLUE_TASKS))


def _others(figures: Mapping[str, Mapping[str, Mapping[str, float]]], model: str) -> dict[str, float]:
    """Divide IMDb's accuracy and SQuAD's F1."""
    return {
        task: figures[suite][model][key] / figures[suite][TEACHER][key]
        for task, suite, key in (("IMDb", "imdb", "accuracy"), ("SQuAD", "squad", "f1"))
    }


def _table(results: Results, model: str, standings: Standings, pairs: Pairs) -> str:
    sides = []
    for name, rows, score in (
        ("paper", published.glue_paper_rows(), paper),
        ("reproduction", published.glue_rows(), own),
    ):
        figures = published.load_published(name)
        sides.append((ours(results, model, score), published_ratios(rows)[model] | _others(figures, model)))
    tasks = [task for task in (*GLUE_TASKS, AVERAGE, "IMDb", "SQuAD") if task in sides[0][0]]
    header = ["Task", "here, paper's convention", PAPER, "difference"]
    header += ["here, reproduction's convention", REPRODUCTION, "difference"]
    notes = Footnotes()
    marks = {task: notes.mark(task, results.first(task).note) for task in tasks if task != AVERAGE}
    body = []
    for task in tasks:
        nothing_kept = task != AVERAGE and not standings[task, TEACHER].beats_chance
        equal = EQUAL if task != AVERAGE and not pairs[task, model].told_apart else ""
        marks_of_sides = ("" if task in OTHER_METRICS else equal, equal)
        row = [
            _cells(None if nothing_kept else here[task], there[task], mark)
            for (here, there), mark in zip(sides, marks_of_sides, strict=True)
        ]
        body.append([task + marks.get(task, ""), *(cell for side in row for cell in side)])
    other = OTHER if unlike_published(results) else ""
    note = NOTE.format(student=title(model), teacher=title(TEACHER), paper=PAPER, equal=EQUAL, other=other)
    return section(f"Retention of {title(model)} beside the published", note, header, body, notes)


def _cells(ours: float | None, theirs: float, mark: str) -> list[str]:
    if ours is None:
        return [DASH, f"{100 * theirs:.1f} %", DASH]
    return [f"{100 * ours:.1f} %{mark}", f"{100 * theirs:.1f} %", f"{100 * (ours - theirs):+z.1f}"]


def ours(results: Results, model: str, score: Callable[[Cell], float]) -> dict[str, float | None]:
    """Divide our medians by the teacher's, by task; None where the teacher's score is not above 0."""
    medians = {
        task: tuple(results.spread(task, name, _scorer(results, task, score)).median for name in (model, TEACHER))
        for task in results.all_tasks()
    }
    if set(GLUE_TASKS) <= set(medians):
        glue = [medians[task] for task in GLUE_TASKS]
        medians[AVERAGE] = (fmean(pair[0] for pair in glue), fmean(pair[1] for pair in glue))
    return {task: pair[0] / pair[1] if pair[1] > 0 else None for task, pair in medians.items()}


def _scorer(results: Results, task: str, score: Callable[[Cell], float]) -> Callable[[Cell], float]:
    return score if task in results.tasks["glue"] else own
