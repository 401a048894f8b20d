"""Processes that measure: in turn, each failure told, and none left behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

from stages.core.errors import UserError
from stages.measurement import processes

ROOT = Path(__file__).resolve().parents[1]
Measured = Callable[..., Generator[dict[str, Any], None, None]]

# A worker that measures nothing: what it does is said by the specification.
WORKER = """
import json, os, subprocess, sys, threading, time
if sys.argv[1:] == ["deaf"]:
    time.sleep(600)
specification = json.loads(sys.stdin.readline())
def note(what):
    open(specification["log"], "a").write(f"{what} {specification.get('name')}\\n")
open(specification["pid"], "w").write(str(os.getpid()))
note("starts")
if specification["do"] == "lack":
    sys.exit("error: a library is missing")
if specification["do"] == "chat":
    print("a library's greeting", flush=True)
print("ready", flush=True)
if not sys.stdin.readline():
    sys.exit(1)
def watch():
    sys.stdin.read()
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()
note("measures")
if specification["do"] == "fail":
    sys.exit("error: the model is damaged")
if specification["do"] == "quit":
    sys.exit(3)
if specification["do"] == "cut":
    print('{"value":', end="", flush=True)
if specification["do"] in ("die", "cut"):
    os.kill(os.getpid(), 9)
if specification["do"] == "wait":
    time.sleep(600)
note("has measured")
print(json.dumps({"value": 3}), flush=True)
time.sleep(600 if specification["do"] == "linger" else 0)
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, object]]:
    (tmp_path / "worker_for_tests.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")

    def run(what: str) -> dict[str, object]:
        return processes.measure(*request(tmp_path, what), module="worker_for_tests")

    return run


def request(folder: Path, do: str, name: str = "baseline") -> processes.Request:
    return {"do": do, "name": name, "pid": str(folder / f"{name}.pid"), "log": str(folder / "log")}, name


def is_gone(tmp_path: Path, *names: str) -> bool:
    return not any(psutil.pid_exists(int((tmp_path / f"{name}.pid").read_text())) for name in names or ["baseline"])


@pytest.mark.parametrize("what", ["succeed", "linger"])
def test_an_answer_ends_the_process(tmp_path: Path, worker: Callable[[str], dict[str, object]], what: str) -> None:
    assert worker(what) == {"value": 3}
    assert is_gone(tmp_path)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("lack", "a library is missing"),
        ("fail", "the model is damaged"),
        ("die", r"its process was killed \(signal 9\)"),
        ("cut", r"its process was killed \(signal 9\)"),
        ("chat", 'its process printed "a library\'s greeting"'),
        ("quit", "no message"),
    ],
)
def test_a_failed_measurement_says_what_failed(
    tmp_path: Path, worker: Callable[[str], dict[str, object]], what: str, message: str
) -> None:
    with pytest.raises(UserError, match=f"baseline: the measurement failed: {message}"):
        worker(what)
    assert is_gone(tmp_path)


@pytest.fixture
def measured(tmp_path: Path, worker: object, monkeypatch: pytest.MonkeyPatch) -> Measured:
    """What measures in processes of which two start together; takes what each is to do, by name."""
    monkeypatch.setattr(processes, "_cores", lambda: 2)

    def run(**what: str) -> Generator[dict[str, Any], None, None]:
        return processes.measured([request(tmp_path, do, name) for name, do in what.items()], "worker_for_tests")

    return run


def noted(tmp_path: Path) -> list[str]:
    log = tmp_path / "log"
    return log.read_text().splitlines() if log.exists() else []


def test_processes_start_together_and_measure_one_after_the_other(tmp_path: Path, measured: Measured) -> None:
    assert list(measured(**dict.fromkeys("abcde", "succeed"))) == 5 * [{"value": 3}]
    lines = noted(tmp_path)
    for first, second, begin in (("a", "b", 0), ("c", "d", 6)):
        assert sorted(lines[begin : begin + 2]) == [f"starts {first}", f"starts {second}"]
        turns = [f"measures {first}", f"has measured {first}", f"measures {second}", f"has measured {second}"]
        assert lines[begin + 2 : begin + 6] == turns
    assert lines[12:] == ["starts e", "measures e", "has measured e"]
    assert is_gone(tmp_path, *"abcde")


@pytest.mark.parametrize(("first", "second", "failed"), [("fail", "succeed", "a"), ("succeed", "lack", "b")])
def test_a_failure_ends_those_that_wait_for_their_turn(
    tmp_path: Path,
    measured: Measured,
    first: str,
    second: str,
    failed: str,
) -> None:
    with pytest.raises(UserError, match=f"{failed}: the measurement failed: "):
        list(measured(a=first, b=second))
    assert not {"has measured a", "measures b"} & set(noted(tmp_path))
    assert is_gone(tmp_path, *"ab")


def test_measurements_that_nobody_asks_for_any_more_are_not_made(tmp_path: Path, measured: Measured) -> None:
    found = measured(a="succeed", b="succeed")
    next(found)
    found.close()
    assert "measures b" not in noted(tmp_path)
    assert is_gone(tmp_path, *"ab")


def test_a_process_that_is_killed_before_its_turn_is_told(tmp_path: Path, measured: Measured) -> None:
    found = measured(a="succeed", b="succeed")
    next(found)
    psutil.Process(int((tmp_path / "b.pid").read_text())).kill()
    with pytest.raises(UserError, match=r"b: the measurement failed: its process was killed \(signal 9\)"):
        next(found)


@pytest.mark.usefixtures("worker")
def test_a_process_that_does_not_read_what_it_is_asked_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "ANSWER_SECONDS", 2.0)
    more_than_a_pipe_holds = {"kind": "deaf", "pairs": ["x" * 200_000]}
    with pytest.raises(UserError, match="baseline: the measurement failed: no answer in 2 seconds"):
        processes.measure(more_than_a_pipe_holds, "baseline", module="worker_for_tests")


def test_a_hung_measurement_is_ended_and_names_the_model(
    tmp_path: Path, worker: Callable[[str], dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "ANSWER_SECONDS", 5.0)
    with pytest.raises(UserError, match="baseline: the measurement failed: no answer in 5 seconds") as caught:
        worker("wait")
    assert "\n" not in str(caught.value)
    assert is_gone(tmp_path)


@pytest.mark.parametrize("phase", ["starts b", "measures a"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.usefixtures("worker")
def test_processes_do_not_outlive_the_one_that_asked(tmp_path: Path, how: signal.Signals, phase: str) -> None:
    requests = json.dumps([request(tmp_path, "wait", name) for name in "ab"])
    code = f"""
import json, signal
from stages.measurement import processes
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job begins without
processes._cores = lambda: 2
list(processes.measured(json.loads({requests!r}), "worker_for_tests"))
"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as parent:
        while not {"starts a", "starts b", phase} <= set(noted(tmp_path)):
            assert parent.poll() is None
            time.sleep(0.02)
        parent.send_signal(how)
        parent.wait(120)
    for _ in range(500):
        if is_gone(tmp_path, *"ab"):
            return
        time.sleep(0.02)
    pytest.fail("a process still runs")


def test_ctrl_c_while_a_limit_is_set_leaves_none_that_would_be_waited_for(
    worker: Callable[[str], dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(threading.Timer):
        def start(self) -> None:
            super().start()
            raise KeyboardInterrupt

    monkeypatch.setattr(threading, "Timer", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        worker("succeed")
    left = [thread for thread in threading.enumerate() if isinstance(thread, Interrupted)]
    ended = [thread.finished.is_set() for thread in left]  # as a timer that is cancelled
    for thread in left:
        thread.cancel()  # or pytest would wait for it
    assert all(ended)
