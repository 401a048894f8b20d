"""How close `make repro JOBS=n` comes to the bound, on the grid of the `paper` profile with sleeps in place of stages.

    python benchmarks/simulated_cluster.py --jobs 8 --work 2400

Lays out a repository whose stages sleep, in proportion to what they take on one GPU (estimates, in minutes, below),
and have as many inputs as the pipeline's; runs `python -m cluster` in it and prints its time beside the bound: the
longer of the critical path and of all work over the workers. `--work` is what all sleeps add up to, in seconds;
`--known` tells the scheduler beforehand how long stages take, as a former run would.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML
from turns import machine

ROOT = Path(__file__).resolve().parents[1]
SEEDS = range(5)
MODULES = 20  # that a stage of the pipeline depends on
MODELS = {"bert": 1.0, "distilbert": 0.5}
TASKS = {
    "MNLI": 40.0, "QQP": 37.0, "QNLI": 11.0, "SST-2": 7.0, "CoLA": 1.0, "STS-B": 0.7, "MRPC": 0.5, "RTE": 0.4,
    "WNLI": 0.2, "IMDb": 6.0, "SQuAD": 15.0,
}  # fmt: skip
# Distillation is taken on eight GPUs; on one, nothing else would matter.
OTHERS = {
    "download": 10.0,
    "teacher": 1.0,
    "distill": 45.0,
    "prune": 1.0,
    "quantize": 1.0,
    "onnx-export": 2.0,
    "report": 0.2,
}
NEEDS = {
    "teacher": ["download"], "distill": ["teacher"], "prune": ["distill"], "quantize": ["prune"],
    "onnx-export": ["prune"],
}  # fmt: skip
EXPORTED = {"distilbert": "distill", "pruned": "prune"}  # models of which task models are exported, and what makes them
EXPORTED_TASKS = ("SST-2", "SQuAD")
SCORING = 2.0  # of a task model in ONNX Runtime, on CPUs


def graph() -> tuple[dict[str, float], dict[str, list[str]]]:
    """Return the minutes of every stage and the stages that it needs, in an order in which they can run."""
    minutes, needs = dict(OTHERS), {stage: list(NEEDS.get(stage, [])) for stage in OTHERS}
    del minutes["report"], needs["report"]
    for model, made in EXPORTED.items():
        for task in EXPORTED_TASKS:
            cell = f"cell@onnx-{model}-{task}"
            minutes[cell], needs[cell] = MODELS["distilbert"] * TASKS[task] + SCORING, [made, "download"]
    for model, share in MODELS.items():
        for task, length in TASKS.items():
            for seed in SEEDS:
                cell = f"cell@{model}-{task}-{seed}"
                minutes[cell], needs[cell] = share * length, ["teacher" if model == "bert" else "distill", "download"]
    needs["report"], minutes["report"] = list(minutes), OTHERS["report"]
    return minutes, needs


def bound(seconds: dict[str, float], needs: dict[str, list[str]], jobs: int) -> tuple[float, float]:
    """Return the critical path and the work of one worker, in seconds."""
    ends: dict[str, float] = {}
    for stage in seconds:
        ends[stage] = seconds[stage] + max((ends[needed] for needed in needs[stage]), default=0.0)
    return max(ends.values()), sum(seconds.values()) / jobs


def lay_out(folder: Path, seconds: dict[str, float], needs: dict[str, list[str]]) -> None:
    """Write a repository whose stages sleep and write a line; its cells are one definition, as the pipeline's are."""
    modules = [f"code/{number}" for number in range(MODULES)]

    def stage(name: str, length: str, needed: list[str]) -> dict[str, object]:
        command = f"sleep {length} && mkdir -p out && echo {name} > out/{name}"
        return {"cmd": command, "deps": [*modules, *(f"out/{one}" for one in needed)], "outs": [f"out/{name}"]}

    cells = {
        name.partition("@")[2]: {"seconds": f"{seconds[name]:.2f}", "model": needs[name][0]}
        for name in needs
        if "@" in name
    }
    stages = {name: stage(name, f"{seconds[name]:.2f}", needs[name]) for name in needs if "@" not in name}
    every = stage("cell@${key}", "${item.seconds}", ["${item.model}", "download"])
    stages["cell"] = {"foreach": cells, "do": every}
    (folder / "code").mkdir()
    for number in range(MODULES):
        (folder / f"code/{number}").write_text(f"module {number}\n")
    (folder / ".gitignore").write_text("/out/\n")
    (folder / "params.yaml").write_text((ROOT / "profiles/tiny.yaml").read_text())
    with (folder / "dvc.yaml").open("w") as stream:
        YAML().dump({"stages": stages}, stream)
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["git", "add", "-A"]):
        subprocess.run(command, cwd=folder, check=True)


def main() -> None:
    """Run the simulation and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--work", type=float, default=2400.0, help="seconds that all sleeps add up to")
    parser.add_argument("--known", action="store_true", help="how long stages take is known")
    options = parser.parse_args()
    minutes, needs = graph()
    seconds = {stage: length * options.work / sum(minutes.values()) for stage, length in minutes.items()}
    path, share = bound(seconds, needs, options.jobs)
    with tempfile.TemporaryDirectory() as name:
        lay_out(Path(name), seconds, needs)
        command = [sys.executable, "-m", "cluster", f"--jobs={options.jobs}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
        # One thread a stage, so that a job is a slot.
        params = Path(name, "params.yaml")
        params.write_text(params.read_text().replace("threads: 2", "threads: 1"))
        if options.known:
            told = Path(name, ".dvc/tmp/cluster/seconds.json")
            told.parent.mkdir(parents=True)
            told.write_text(json.dumps(seconds))
        start = time.monotonic()
        subprocess.run(command, cwd=name, env=environment, check=True, stdout=subprocess.DEVNULL)
        took = time.monotonic() - start
    least = max(path, share)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(machine(threads=1))
    print(f"{len(seconds)} stages, {options.jobs} at once: {took:.0f} s; critical path {path:.0f} s, work over workers")
    print(f"{share:.0f} s; {took / least:.3f} of the bound; the head took {used.ru_utime + used.ru_stime:.0f} s of CPU")


if __name__ == "__main__":
    main()
