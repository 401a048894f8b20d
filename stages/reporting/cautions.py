"""What the figures cannot tell: said plainly, in a line each, on the page and above the tables."""

from stages.reporting.cells import Results
from stages.reporting.comparison import not_told_apart
from stages.reporting.compressed import ENOUGH_ROUNDS, TITLES, Measurements
from stages.reporting.labels import listed, percent_range, title
from stages.reporting.paired import Pairs
from stages.reporting.statistics import Interval
from stages.reporting.summary import TEACHER, unlike_published

FEW_ROWS = 1000


def cautions(results: Results, pairs: Pairs, found: Measurements) -> list[str]:
    """Say where counts make differences meaningless."""
    lines = [line for model in results.models if model != TEACHER for line in _model(results, pairs, model)]
    return [*_counts(results), *lines, *_variants(found)]


def _counts(results: Results) -> list[str]:
    lines = []
    small = [task for task in results.all_tasks() if results.first(task).dev_rows < FEW_ROWS]
    if results.all_tasks() and len(results.seeds) == 1:
        lines.append(
            "One fine-tuning seed: what another seed would change is not known, and no interval here covers it; "
            "`seeds` in params.yaml takes several."
        )
    apart = unlike_published(results)
    if apart and any(results.first(task).source == "hub" for task in results.all_tasks()):
        lines.append(
            f"Published scores stand beside ours for orientation. Ours are of {listed(apart)}, which a difference from "
            "them tells more of than of the method."
        )
    if small:
        lines.append(
            f"Fewer than {FEW_ROWS:,} dev rows ({', '.join(small)}): differences of a few points between two scores "
            "lie within their 95 % intervals and mean nothing."
        )
    return lines


def _model(results: Results, pairs: Pairs, model: str) -> list[str]:
    """Name the tasks on which a model and the teacher cannot be told apart, and shares that cannot be taken at word."""
    if TEACHER not in results.models:
        return []
    name, teacher, lines = title(model), title(TEACHER), []
    equal = not_told_apart(results, pairs, model)
    if equal:
        lines.append(
            f"{name} and {teacher} cannot be told apart on {listed(equal)}: the 95 % interval of their difference on "
            "the same rows includes 0."
        )
    kept = {task: share for task in results.all_tasks() if (share := pairs[task, model].share) is not None}
    text = {task: f"{task} ({percent_range(share.low, share.high)})" for task, share in kept.items()}
    above = [text[task] for task in kept if pairs[task, model].difference > 0]
    vague = [text[task] for task, share in kept.items() if share.low <= 0 and share.high >= 1]
    if above:
        lines.append(
            f"{name} retains more than all of {teacher}'s score on {listed(above)}, 95 % interval: no sign of a "
            "better student where the interval includes 100 %."
        )
    if vague:
        lines.append(f"What {name} retains may be anything from none to all of it on {listed(vague)}, 95 % interval.")
    return lines


def _variants(found: Measurements) -> list[str]:
    lines = []
    if found.making.random:
        lines.append("The weights are random: the table of quality only shows that every variant runs.")
    else:
        changes = {name: found.loss_change(name)[1] for name in found.quality if name != "baseline"}
        equal = [TITLES[name] for name, interval in changes.items() if interval.holds(0.0)]
        apart = f" {'; '.join(equal)}: not told apart from the student in PyTorch by the MLM loss." if equal else ""
        tokens = f"{found.masked_tokens:,} masked tokens"
        lines.append(
            f"The variants' losses are over {tokens}, of which one token is {100 / found.masked_tokens:.2f} points of "
            f"accuracy.{apart}"
        )
    changed = [
        str(model._replace(int8=False))
        for model, row in found.onnx.items()
        if "difference" in row and not Interval(row["difference_low"], row["difference_high"]).holds(0.0)
    ]
    if changed:
        lines.append(
            f"INT8 changes the score of some task models ({'; '.join(changed)}): the 95 % interval of the difference "
            "from fp32 on the same rows excludes 0."
        )
    if found.rounds < ENOUGH_ROUNDS:
        lines.append(
            f"{found.rounds} round{'s' if found.rounds != 1 else ''} of speed: fewer than {ENOUGH_ROUNDS} do not show "
            "what is noise, so that only large differences count; `speed_bench.rounds` takes more."
        )
    return lines
