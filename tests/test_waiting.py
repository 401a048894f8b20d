"""Whose threads may poll while they wait for each other: one process's a machine, if nothing else computes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.core.waiting import ASLEEP, POLLING

ROOT = Path(__file__).resolve().parents[1]
CHOOSE = """
import sys, psutil
from stages.core import waiting
psutil.cpu_percent = lambda interval: float(sys.argv[1])
waiting.choose()
import os
print(os.environ.get("GOMP_SPINCOUNT"), flush=True)
sys.stdin.read()
"""


def start(folder: Path, percent: float = 0, **variables: str) -> "subprocess.Popen[str]":
    """A process that chooses on a machine so busy, tells, and stays until its input ends."""
    environment = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "RANK")}
    return subprocess.Popen(
        [sys.executable, "-c", CHOOSE, str(percent)],
        env={**environment, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def told(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_the_first_process_polls_and_those_beside_it_sleep(tmp_path: Path) -> None:
    with start(tmp_path) as first:
        assert told(first) == POLLING
        with start(tmp_path) as second:
            assert told(second) == ASLEEP
            second.communicate()
        first.communicate()
    with start(tmp_path) as next_one:
        assert told(next_one) == POLLING
        next_one.communicate()


@pytest.mark.parametrize(("cpus", "expected"), [(0.4, POLLING), (0.6, ASLEEP)])
def test_nobody_polls_where_something_else_computes(tmp_path: Path, cpus: float, expected: str) -> None:
    with start(tmp_path, percent=100 * cpus / (os.cpu_count() or 1)) as process:
        assert told(process) == expected
        process.communicate()


def test_the_user_s_choice_goes_before(tmp_path: Path) -> None:
    with start(tmp_path, GOMP_SPINCOUNT="7") as process:
        assert told(process) == "7"
        process.communicate()


def test_one_of_several_processes_of_a_training_sleeps(tmp_path: Path) -> None:
    with start(tmp_path, RANK="0") as process:
        assert told(process) == ASLEEP
        process.communicate()


def test_a_process_that_finds_the_machine_busy_keeps_no_other_from_polling(tmp_path: Path) -> None:
    with start(tmp_path, percent=100) as busy:
        assert told(busy) == ASLEEP
        with start(tmp_path) as process:
            assert told(process) == POLLING
            process.communicate()
        busy.communicate()


def test_without_a_place_for_the_lock_threads_sleep(tmp_path: Path) -> None:
    with start(tmp_path) as probe:
        told(probe)
        (lock,) = tmp_path.iterdir()
        probe.communicate()
    lock.unlink()
    lock.mkdir()
    with start(tmp_path) as process:
        assert told(process) == ASLEEP
        process.communicate()
