"""What a worker is told of its stage, and what a person sees of a run."""

import io
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dvc.dependency import param
from dvc.fs import LocalFileSystem
from dvc.parsing.context import Context
from dvc.repo import Repo
from dvc.stage.serialize import to_pipeline_file, to_single_stage_lockfile
from dvc.utils import serialize
from rich.console import Console
from ruamel.yaml import YAML

from cluster import parameters
from cluster.__main__ import how_to_wait, threads
from cluster.display import Display
from cluster.pipeline import DvcPipeline
from cluster.scheduler import Board, State
from stages.core.params import validate
from stages.core.waiting import ASLEEP, POLLING

ROOT = Path(__file__).resolve().parents[1]


def test_a_worker_reads_its_stage_as_the_whole_pipeline_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, alone = tmp_path / "whole", tmp_path / "alone"
    for folder in (whole, alone):
        (folder / ".dvc").mkdir(parents=True)
        subprocess.run(["git", "init", "-q", folder], check=True)
        (folder / ".dvc/config").touch()
        shutil.copy(ROOT / "params.yaml", folder)
    for name in ("dvc.yaml", "dvc.lock"):
        shutil.copy(ROOT / name, whole)
    monkeypatch.chdir(whole)
    pipeline = DvcPipeline(Repo())
    stages = {stage.addressing: stage for stage in Repo().index.stages}
    assert set(pipeline.upstream) == set(stages)
    monkeypatch.chdir(alone)
    for name, stage in stages.items():
        for file, text in zip(("dvc.yaml", "dvc.lock"), pipeline.reduced(name), strict=True):
            Path(file).write_text(text)
        with Repo() as repo:
            (read,) = repo.stage.collect(name)
            assert to_pipeline_file(read) == to_pipeline_file(stage)
            needed = sorted(pipeline.upstream[name])
            others = [other for other in repo.index.stages if other.addressing != name]
            assert [made(other) for other in others] == [made(stages[other]) for other in needed]


def made(stage: Any) -> Any:
    """The outputs of a stage, with the digests that `dvc.lock` has of them."""
    return to_single_stage_lockfile(stage)["outs"]


def test_what_stands_in_a_command_after_dvc_filled_it_in_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    Path(".dvc/config").touch()
    entry = """\
stages:
  say:
    foreach: [a, b]
    do:
      cmd: echo ${item} \\${HOME} "\\\\" > ${item}
      outs: ['${item}']
"""
    Path("dvc.yaml").write_text(entry)
    for name, expected in (("say@a", 'echo a ${HOME} "\\\\" > a'), ("say@b", 'echo b ${HOME} "\\\\" > b')):
        with Repo() as repo:
            (stage,) = repo.stage.collect(name)
            assert stage.cmd == expected
        text, _ = DvcPipeline(Repo()).reduced(name)
        Path("dvc.yaml").write_text(text)
        with Repo() as repo:
            (stage,) = repo.stage.collect(name)
            assert stage.cmd == expected
        Path("dvc.yaml").write_text(entry)


def test_the_table_shows_what_each_running_stage_printed_last(tmp_path: Path) -> None:
    (tmp_path / "distill.log").write_text("loaded\ndistill 1/9: loss 7\rdistill 2/9: loss 6\r\n\n")
    board = Board({"download": frozenset(), "distill": frozenset(), "teacher": frozenset(), "report": frozenset()})
    board.end("download", State.DONE, 0.0)
    for stage in ("distill", "teacher"):
        board.hand_on(stage)
        board.begin(stage, 0.0)
    for width, shown in ((100, "distill 2/9: loss 6"), (32, "distill 2/9")):
        stream = io.StringIO()
        with Display(Console(file=stream, force_terminal=True, width=width, color_system=None), tmp_path) as display:
            display.show(board)
        lines = [line.strip() for line in stream.getvalue().splitlines()]
        assert "1 of 4 stages" in stream.getvalue()
        row = next(line for line in lines if line.startswith("distill "))
        assert shown in row
        assert len(row) <= width
        assert "loaded" not in stream.getvalue()
        assert any(line.startswith("teacher ") for line in lines)  # which has printed nothing yet


def test_a_parameter_file_is_parsed_once_for_as_long_as_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []

    original = parameters._load

    def load(path: str, fs: Any) -> Any:
        parsed.append(path)
        return original(path, fs)

    for module in (param, serialize):
        monkeypatch.setattr(module, "load_path", module.load_path)  # as it is now, at the end
    monkeypatch.setattr(parameters, "_load", load)
    parameters.parse_once()
    file, fs = tmp_path / "params.yaml", LocalFileSystem()
    for number in (1, 2):
        file.write_text(f"a: {{b: {number}}}")  # of the same size
        os.utime(file, ns=(number, number))
        for read in (param.read_param_file(fs, str(file)), Context.load_from(fs, str(file)).data):
            assert read == {"a": {"b": number}}
            read["a"]["b"] = 0  # what one does with it is nothing to others
    assert len(parsed) == 2
    file.unlink()
    with pytest.raises(FileNotFoundError):
        param.read_param_file(fs, str(file))


@pytest.mark.parametrize(
    ("stage", "own", "shared"),
    [
        ("distill", 3, 4),
        ("prune", 3, 4),
        ("glue-eval@bert-RTE-42", 2, 4),
        ("squad-eval@bert-SQuAD-1", 2, 4),
        ("teacher", 5, 4),
        ("quality-eval", 4, 4),
        ("onnx-eval@pruned-SST-2", 4, 4),
    ],
)
def test_a_stage_counts_for_as_many_cpus_as_it_has_threads(stage: str, own: int, shared: int) -> None:
    values = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    values["hardware"]["threads"] = 4
    assert threads(stage, validate(values)) == shared
    values["teacher"]["threads"], values["distill"]["threads"], values["finetune"]["threads"] = 5, 3, 2
    assert threads(stage, validate(values)) == own


def test_stages_beside_others_sleep_unless_the_user_says_otherwise() -> None:
    assert how_to_wait(None, POLLING, alone=False) == ASLEEP
    assert how_to_wait(None, POLLING, alone=True) == POLLING
    assert how_to_wait(None, None, alone=True) is None  # on a cluster, where the stage looks at its own machine
    assert {how_to_wait("7", "7", alone) for alone in (True, False)} == {"7"}
