"""`dvc plots show` draws the curves that trainings write over their updates."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvclive.live import Live

ROOT = Path(__file__).resolve().parents[1]
CURVES: dict[str, dict[str, Any]] = {
    name: curve for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"] for name, curve in plot.items()
}
STEPS = (0, 7, 20)  # unlike row numbers


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The Vega specifications of a project in which the trainings have logged three points of everything drawn."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    for stage in ("teacher", "distill"):
        live = Live(str(folder / f"plots/{stage}"), dvcyaml=False, report=None, save_dvc_exp=False)
        files = {Path(file): column for curve in CURVES.values() for file, column in curve["y"].items()}
        for step in STEPS:
            live.step = step
            for file, column in files.items():
                if file.parts[1] == stage:
                    live.log_metric(f"{file.parent.name}/{column}", 3.0 - step / 10)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "-q"], cwd=folder, check=True)
    done = subprocess.run([*dvc, "plots", "show", "--json"], cwd=folder, capture_output=True, text=True, check=False)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))  # files of other stages are missing
    specifications: dict[str, Any] = json.loads(line)["data"]
    return specifications


@pytest.mark.parametrize("name", CURVES)
def test_curves_are_drawn_over_the_updates(shown: dict[str, Any], name: str) -> None:
    (plot,) = shown[name]
    axis = plot["content"]["encoding"]["x"]
    assert (axis["field"], axis["type"], axis["title"]) == ("step", "quantitative", "update")
    for column in CURVES[name]["y"].values():
        points = [row for row in plot["content"]["data"]["values"] if column in row]
        assert [int(row["step"]) for row in points] == list(STEPS)
        assert [float(row[column]) for row in points] == [3.0 - step / 10 for step in STEPS]
