"""Stage `report`: gathers the evaluation cells into metrics, tables and a comparison of BERT and DistilBERT."""

import argparse
from pathlib import Path

from stages import entry
from stages.artifacts import atomic_path, read_json, write_rows
from stages.params import load_params
from stages.reporting import compressed, devices, figures
from stages.reporting.cells import Results, load_results
from stages.reporting.comparison import terminal
from stages.reporting.summary import glue_metrics, own, paper, single_metrics, standing
from stages.reporting.tables import render

METRICS = Path("metrics")
SUMMARY = Path("data/eval/speed/summary.json")
OUTPUT = Path("plots/report")


def main() -> None:
    """Write metrics and tables from the cells that params.yaml names; with --show only print the comparison."""
    parser = argparse.ArgumentParser(prog="python -m stages.report", description=main.__doc__)
    parser.add_argument(
        "--show", action="store_true", help="print BERT, DistilBERT and what is retained; write nothing"
    )
    show = parser.parse_args().show
    results = load_results(load_params())
    standings = {
        (task, model): standing(results, task, model) for task in results.all_tasks() for model in results.models
    }
    if show:
        print(terminal(results, standings))
        return
    measurements = compressed.load_measurements(METRICS, SUMMARY, results.models)
    android = devices.load_devices(METRICS)
    write_metrics(results)
    tables = render(results, standings, read_json(METRICS / "distill.json"))
    with atomic_path(OUTPUT) as folder:
        folder.mkdir()
        text = "\n\n".join([tables.strip(), compressed.render(measurements), devices.render(android)])
        (folder / "tables.md").write_text(f"{text}\n", encoding="utf-8")
        figures.pareto(measurements, folder)
        figures.latency(measurements, folder)
    print(f"{METRICS}/ and {OUTPUT}/ written; `python -m stages.report --show` prints the comparison")


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
