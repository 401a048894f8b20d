"""Stages in forks of a warm process behave as if run by themselves."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from stages.core import waiting

ROOT = Path(__file__).resolve().parents[1]
STAGE = """
import atexit, os, sys, threading, time
def main() -> None:
    print("out", sys.argv[1:], os.environ["MARK"], os.getcwd(), "torch" in sys.modules)
    print("err", file=sys.stderr)
    if sys.argv[1] == "error":
        from stages.core.errors import UserError
        raise UserError("this is wrong")
    if sys.argv[1] == "defect":
        raise ValueError("this was not foreseen")
    if sys.argv[1] == "leave":
        atexit.register(print, "at exit")
        threading.Thread(target=lambda: (time.sleep(0.2), print("a thread that is no daemon"))).start()
        sys.exit(int(sys.argv[2]))
    if sys.argv[1] == "crash":
        os.kill(os.getpid(), 9)
    if sys.argv[1] == "hang":
        open("started", "w").write(str(os.getpid()))
        time.sleep(60)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose one stage tells what it sees; its server is ended afterwards."""
    with project(tmp_path_factory.mktemp("project")) as folder:
        yield folder


@contextmanager
def project(folder: Path) -> Iterator[Path]:
    (folder / "stages").symlink_to(ROOT / "stages")
    (folder / "probe.py").write_text(STAGE)
    yield folder
    for process in servers(folder):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def servers(folder: Path) -> list[psutil.Process]:
    """Return the servers of a project, with their forks."""
    return [
        process
        for process in psutil.process_iter(["cwd", "cmdline"])
        if process.info["cwd"] == str(folder) and "stages.core.warm" in (process.info["cmdline"] or ())
    ]


def start(
    folder: Path, *arguments: str, warm: str = "1", pythonpath: Path | None = None, **environment: str
) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", "from stages.core import warm; warm.run('probe')", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(pythonpath or folder),
            "MARK": "mine",
            "DISTILBERT_WARM": warm,
            waiting.SPINS: waiting.ASLEEP,  # otherwise which server it gets depends on what else computes here
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a background job begins without
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or Path("/dev/nvidiactl").exists(), reason="stages are forked on Linux without a GPU only"
)


def test_output_arguments_environment_and_status_are_the_caller_s(folder: Path) -> None:
    status, out, err = finish(start(folder, "fine", "x y"))
    assert (status, err) == (0, "err\n")
    assert out == f"out ['fine', 'x y'] mine {folder} True\n"
    assert finish(start(folder, "fine", "x y", warm="0")) == (0, out.replace("True", "False"), err)


def test_errors_are_told_and_returned(folder: Path) -> None:
    status, _, err = finish(start(folder, "error"))
    assert status == 1
    assert err.splitlines()[-1] == "error: this is wrong"
    assert finish(start(folder, "crash"))[0] == 137
    status, _, err = finish(start(folder, "defect"))
    assert status == 1
    assert err.splitlines()[1] == "Traceback (most recent call last):"
    assert err.splitlines()[-1] == "ValueError: this was not foreseen"


@pytest.mark.parametrize("status", [0, 3])
def test_a_stage_ends_as_by_itself(folder: Path, status: int) -> None:
    ended, out, err = finish(start(folder, "leave", str(status)))
    assert ended == status
    assert out.splitlines()[1:] == ["a thread that is no daemon", "at exit"]
    assert finish(start(folder, "leave", str(status), warm="0")) == (ended, out.replace("True", "False"), err)


def test_output_that_cannot_be_written_is_no_success(folder: Path) -> None:
    with start(folder, "fine") as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()  # which the stage finds out at its end only
        assert process.wait(120) == 1
        assert process.stderr.read().splitlines()[-1] == "BrokenPipeError: [Errno 32] Broken pipe"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_caller_that_is_gone_takes_its_stage_along(folder: Path, sent: int) -> None:
    (folder / "started").unlink(missing_ok=True)
    process = start(folder, "hang")
    while not (folder / "started").exists() or not (folder / "started").read_text():
        assert process.poll() is None
        time.sleep(0.05)
    stage = int((folder / "started").read_text())
    process.send_signal(sent)
    status, _, err = finish(process)
    assert status == (130 if sent == signal.SIGINT else -9)
    if sent == signal.SIGINT:
        assert "interrupted" in err
    for _ in range(200):
        if not Path(f"/proc/{stage}").exists():
            return
        time.sleep(0.05)
    pytest.fail("the stage is still running")


def test_an_edit_takes_effect_at_once(folder: Path) -> None:
    finish(start(folder, "fine"))
    (folder / "probe.py").write_text("def main() -> None:\n    print('edited, and longer than before')\n")
    assert finish(start(folder, "fine"))[1] == "edited, and longer than before\n"
    (folder / "probe.py").write_text(STAGE)


@pytest.mark.parametrize("early", [True, False])
def test_a_server_started_in_advance_serves_until_its_starter_ends(tmp_path: Path, early: bool) -> None:
    with project(tmp_path) as folder:
        holder = subprocess.Popen(
            [sys.executable, "-m", "stages.core.warm"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), waiting.SPINS: waiting.ASLEEP},
            stdin=subprocess.PIPE,
        )
        while not early and not list(folder.glob(".cache/warm-*.sock")):
            assert holder.poll() is None
            time.sleep(0.05)
        if not early:
            status, out, _ = finish(start(folder, "fine"))
            assert (status, out.split()[-1]) == (0, "True")
            assert len(list(folder.glob(".cache/warm-*.sock"))) == 1
        holder.communicate()
        give_up = time.monotonic() + 20
        while servers(folder):
            assert time.monotonic() < give_up
            time.sleep(0.05)


def test_two_at_once(folder: Path) -> None:
    both = [start(folder, "fine", str(n)) for n in range(2)]
    for n, process in enumerate(both):
        status, out, _ = finish(process)
        assert status == 0
        assert f"['fine', '{n}']" in out


def test_a_copy_of_the_project_shares_the_server_but_not_the_code(folder: Path, tmp_path: Path) -> None:
    status, _, _ = finish(start(folder, "fine"))
    assert status == 0
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    with (tmp_path / "stages/core/errors.py").open("a") as code:
        code.write("UserError.__str__ = lambda self: 'the copy'\n")
    (tmp_path / "probe.py").write_text(STAGE)
    (tmp_path / ".cache").symlink_to(folder / ".cache", target_is_directory=True)
    servers = len(list((folder / ".cache").glob("warm-*.sock")))
    status, out, err = finish(start(tmp_path, "error", pythonpath=folder))
    assert (status, err.splitlines()[-1]) == (1, "error: the copy")
    assert str(tmp_path) in out
    assert len(list((folder / ".cache").glob("warm-*.sock"))) == servers


def test_stages_that_start_at_once_start_one_server(tmp_path: Path) -> None:
    with project(tmp_path):
        both = [start(tmp_path, str(number)) for number in range(2)]
        assert [finish(process)[0] for process in both] == [0, 0]
        assert len(servers(tmp_path)) == 1


@pytest.mark.parametrize("stage", ["glue_eval", "imdb_eval", "squad_eval"])
def test_an_evaluation_asks_for_its_fork_without_the_libraries(stage: str) -> None:
    code = f"import sys, stages.{stage}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"numpy", "pyarrow", "pydantic", "ruamel.yaml", "torch"} & set(done.stdout.split())
