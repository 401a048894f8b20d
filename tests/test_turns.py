"""The benchmarks' turns: who is called when, in processes of their own, and how the figures are shown."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from turns import Measured, by_turns, machine


def noting(name: str, log: Path) -> Callable[[], float]:
    """Prepare a call that notes its name and process, and returns how often the log was written to."""

    def call() -> float:
        with log.open("a") as stream:
            stream.write(f"{name} {os.getpid()}\n")
        return float(len(log.read_text().splitlines()))

    return call


def test_every_call_has_its_turn_in_its_own_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    found = by_turns({name: partial(noting, name, log) for name in ("a", "b")}, rounds=2, warmup=1, threads=1)
    names, processes = zip(*(line.split() for line in log.read_text().splitlines()), strict=True)
    assert "".join(names) == "ababab"
    assert len(set(processes) | {str(os.getpid())}) == 3
    assert {name: (len(result.seconds), result.value) for name, result in found.items()} == {
        "a": (2, 1.0),
        "b": (2, 2.0),
    }


def test_the_median_is_shown_with_the_lowest_and_the_highest() -> None:
    found = Measured([0.1, 0.4, 0.2], 0.0, 0.0)
    assert found.milliseconds == "200.0 (100.0 to 400.0)"
    assert found.shown(lambda seconds: 2 / seconds) == "10.0 (5.0 to 20.0)"


@pytest.mark.parametrize("what", ["processor", "cores", "threads 3", "instruction_sets", "torch", "onnxruntime"])
def test_the_machine_is_named(what: str) -> None:
    assert what in machine(3)
