"""Stage `report`: gathers the evaluation cells into metrics, tables, figures and a page that tells the whole story."""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core import entry
from stages.core.artifacts import atomic_path, read_json, write_rows
from stages.core.params import load_params
from stages.reporting import devices, figures, findings, page, score_figures, tables, variant_tables
from stages.reporting.cautions import cautions
from stages.reporting.cells import Results, load_results
from stages.reporting.comparison import kept, terminal
from stages.reporting.compressed import CORPUS, Making, Measurements, libraries_text, load_measurements, machine_text
from stages.reporting.exported import task_rows
from stages.reporting.folding import fold, ordered, plain
from stages.reporting.paired import Pairs, compare, mean_share
from stages.reporting.summary import (
    TEACHER,
    Standings,
    glue_metrics,
    mean_retained,
    own,
    paper,
    single_metrics,
    standing,
)

METRICS = Path("metrics")
DATA = Path("data")
CURVES = Path("plots/distill")
DEVICES = Path("plots/android-bench-collect/latency.png")
OUTPUT = Path("plots/report")


def main() -> None:
    """Write metrics and tables from the cells that params.yaml names; with --show only print the comparison."""
    parser = argparse.ArgumentParser(prog="python -m stages.report", description=main.__doc__)
    parser.add_argument(
        "--show", action="store_true", help="print BERT, DistilBERT and what is retained; write nothing"
    )
    show = parser.parse_args().show
    params = load_params()
    results = load_results(params)
    standings = {
        (task, model): standing(results, task, model) for task in results.all_tasks() for model in results.models
    }
    if show:
        print(terminal(results, standings))
        return
    measurements = load_measurements(METRICS, DATA, results.models, params.onnx_export.tasks, Making.of(params))
    write(results, standings, measurements)
    print(f"{METRICS}/ and {OUTPUT}/ written; {OUTPUT}/index.html tells it all, `dvc metrics show` prints the figures")


def write(results: Results, standings: Standings, measurements: Measurements) -> None:
    """Write the metrics of the cells, the tables as Markdown, the figures and the page."""
    pairs, android = compare(results, standings), devices.load_devices(METRICS)
    write_metrics(results)
    write_rows(METRICS / "onnx_tasks", task_rows(measurements.onnx))
    introduction, warnings = tables.introduction(results), cautions(results, pairs, measurements)
    written = [
        tables.render(results, standings, pairs, read_json(METRICS / "distill.json"), measurements.notes[CORPUS]),
        variant_tables.render(measurements),
        devices.render(android, measurements.published_size),
    ]
    sections = ordered("\n\n".join(written))
    noted = "\n".join(f"- {warning}" for warning in warnings)
    document = "\n\n".join([introduction, f"What these figures cannot tell:\n\n{noted}", fold(sections)])
    with atomic_path(OUTPUT) as folder, tempfile.TemporaryDirectory() as vectors:
        folder.mkdir()
        (folder / "tables.md").write_text(f"{document}\n", encoding="utf-8")
        drawn = draw(results, standings, measurements, folder, Path(vectors))
        story = tell(results, headline(results, standings, pairs), measurements, android, warnings, drawn)
        text = page.render(story, f"{introduction}\n\n{plain(sections)}")
        (folder / "index.html").write_text(text, encoding="utf-8")


def headline(results: Results, standings: Standings, pairs: Pairs) -> findings.Kept | None:
    """Average what DistilBERT keeps; None where it or the teacher is no row, or nothing can be kept."""
    if not {TEACHER, findings.STUDENT} <= set(results.models):
        return None
    shares = [share for share in kept(results, standings, findings.STUDENT).values() if share]
    average = mean_retained(list(shares))
    interval = mean_share([pair for (_, model), pair in pairs.items() if model == findings.STUDENT])
    if average is None or interval is None:
        return None
    return findings.Kept(average, interval, len(shares), len(results.seeds))


def draw(
    results: Results, standings: Standings, measurements: Measurements, folder: Path, vectors: Path
) -> list[page.Figure]:
    """Draw every figure, as a picture into `folder` and as SVG into `vectors`; returns the latter for the page."""
    made = []

    def add(name: str, function: Callable[[list[Path]], None], data: str, caption: str) -> None:
        vector = vectors / f"{name}.svg"
        function([folder / f"{name}.png", vector])
        made.append(page.Figure(name, caption, data, vector))

    over = ": medians over the fine-tuning seeds (dots)" if len(results.seeds) > 1 else ""
    add(
        "tasks",
        lambda paths: score_figures.tasks(results, standings, paths),
        "data/eval/{glue,imdb,squad}/*/*/*/result.json",
        f"Scores on every task{over}; lines: 95 % intervals over the dev rows.",
    )
    add(
        "losses",
        lambda paths: score_figures.losses(CURVES, paths),
        f"{CURVES}/plots/metrics/*/*.tsv",
        "The three losses of distillation, in training and on held-out text.",
    )
    add(
        "pareto",
        lambda paths: figures.pareto(measurements, paths),
        "metrics/compression/*.json, metrics/quality/*.json",
        "Size, latency and loss of the student's variants.",
    )
    add(
        "latency",
        lambda paths: figures.latency(measurements, paths),
        "metrics/compression/*.json",
        "Latency by length: medians; bars reach to the 90th percentile.",
    )
    return made


def tell(
    results: Results,
    kept: findings.Kept | None,
    measurements: Measurements,
    android: Mapping[str, Mapping[str, Any]],
    warnings: Sequence[str],
    drawn: list[page.Figure],
) -> page.Story:
    """Put together what the page tells beside the tables."""
    if any(row["status"] == devices.MEASURED for row in android.values()):
        caption = "Latency on Android devices: medians; bars reach to the 90th percentile."
        drawn = [*drawn, page.Figure("android", caption, "android/results/*.json", DEVICES)]
    machine = measurements.summary["machine"]
    return page.Story(
        title="BERT and DistilBERT, side by side",
        facts={
            "Profile": results.profile,
            "Teacher": results.teacher,
            "Models": ", ".join(results.models) or "none",
            "Fine-tuning seeds": ", ".join(map(str, results.seeds)),
            "Training": measurements.making.training,
            "Commit before the run": page.commit(),
            "Machine of the speeds": machine_text(machine),
            "Libraries": libraries_text(machine),
        },
        headlines=findings.headlines(measurements, kept),
        answers=findings.answers(measurements, android),
        warnings=warnings,
        figures=drawn,
    )


def write_metrics(results: Results, root: Path = METRICS) -> None:
    """One JSON file a model in each folder, `{}` where nothing was run; rows of models that are gone disappear.

    The files exist even when empty, because git keeps no empty folder and DVC wants its outputs to be there.
    """
    rows = {
        "glue": {model: glue_metrics(results, model, own, digits=4) for model in results.models},
        "glue_paper": {model: glue_metrics(results, model, paper, digits=2) for model in results.models},
        "imdb": {model: single_metrics(results, "imdb", model) for model in results.models},
        "squad": {model: single_metrics(results, "squad", model) for model in results.models},
    }
    for name, models in rows.items():
        write_rows(root / name, models)


if __name__ == "__main__":
    entry.run(main)
