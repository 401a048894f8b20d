"""Runs stages in forks of one process that has already imported the heavy libraries.

A fine-tuning cell of the default profile trains for seconds, and importing torch, transformers and datasets takes as
long again, for each of dozens of cells. The first stage that needs them therefore starts a server on a Unix socket in
`.cache/`, which imports them once; every such stage is then a fork of it, with the caller's arguments, environment,
folder and terminal. The project's own modules are imported after the fork, so that an edit always takes effect. The
server ends by itself when idle; `hold` starts one in advance. Where forking is not safe (no Linux, a GPU driver), under
`torchrun`, or with `DISTILBERT_WARM=0`, a stage simply runs by itself.
"""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import hashlib
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from stages.core import entry, waiting

IDLE_SECONDS = 30.0
START_SECONDS = 120.0
ACCEPTED = b"+"
PRELOAD = (
    "torch",
    "transformers.trainer",
    "transformers.models.bert.modeling_bert",
    "transformers.models.distilbert.modeling_distilbert",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "accelerate",
    "datasets",
    "evaluate",
    "networkx",  # this and onnxscript's are of the export to ONNX: its first call in a process is 1.1 s longer without
    "onnxscript.function_libs.torch_lib.ops",
    "pandas",
    "pydantic",
    "pyarrow.parquet",
    "ruamel.yaml",
    "scipy.stats",
    "sklearn.metrics",
)
# Libraries read these when they are imported: a server started with other values must not be used.
IMPORT_TIME_VARIABLES = (
    "CUDA",
    "GOMP",
    "HF_",
    "HOME",
    "KMP",
    "LD_",
    "MKL",
    "OMP",
    "OPENBLAS",
    "PYTHON",
    "PYTORCH",
    "TORCH",
    "TRANSFORMERS",
)


def run(module: str) -> None:
    """Run `module.main()` in a warm fork, or here where there can be none, and leave with its exit status."""
    entry.prepare_environment()
    waiting.choose()
    if entry.in_group():
        importlib.import_module("stages.core.processes").run_one(module)
        return
    status = _run_warm(module) if _possible() else None
    if status is None:
        entry.run(importlib.import_module(module).main)
    else:
        sys.exit(status)


def hold() -> None:
    """Keep a server for stages with this environment until standard input ends: `python -m stages.core.warm`.

    They then need not wait for its imports. It ends with this process if it was started for it.
    """
    entry.prepare_environment()
    path = _socket_path()
    if not _possible():
        return
    connection = _connect(path) or _start_server(path, lambda: bool(select.select([sys.stdin], [], [], 0)[0]))
    if connection is not None:
        with connection:
            sys.stdin.buffer.read()
            server, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            with contextlib.suppress(ChildProcessError, ProcessLookupError):
                os.waitpid(server, os.WNOHANG)  # an error if another process started it
                os.kill(server, signal.SIGTERM)


def origin() -> int | None:
    """Return the process that imported the libraries, if this one is a fork of it."""
    pid = getattr(sys.modules["__main__"], "server", None)
    return pid if isinstance(pid, int) else None


def _possible() -> bool:
    gpu = (
        Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()
    )  # a driver opened before a fork breaks in the child
    wanted = os.environ.get("DISTILBERT_WARM") != "0" and "TORCHELASTIC_RUN_ID" not in os.environ
    return sys.platform == "linux" and hasattr(os, "pidfd_open") and not gpu and wanted


def _socket_path() -> Path:
    """Relative, since a Unix socket's path may have 107 bytes at most; named by what its imports depend on.

    Not by the folder, which comes first in the path: copies of the working tree that share `.cache` share the server.
    """
    variables = {key: value for key, value in os.environ.items() if key.startswith(IMPORT_TIME_VARIABLES)}
    key = hashlib.sha256(json.dumps([sys.executable, sys.path[1:], variables], sort_keys=True).encode()).hexdigest()[
        :12
    ]
    return Path(".cache") / f"warm-{key}.sock"


def _run_warm(module: str) -> int | None:
    """Exit status of the stage, or None if no server could be had (nothing has run then)."""
    connection = _connect(_socket_path()) or _start_server(_socket_path())
    if connection is None:
        return None
    request = json.dumps({"module": module, "argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd()}).encode()
    with connection:
        try:
            socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
            connection.sendall(request)
            if not connection.recv(len(ACCEPTED)):
                return None
        except ConnectionError:
            return None  # the server ended just now
        try:
            answer = connection.recv(8)
        except KeyboardInterrupt:
            connection.shutdown(socket.SHUT_WR)  # the fork takes the end of the stream for ctrl-C
            answer = connection.recv(8)
    if not answer:
        print("error: the process that ran the stage was killed; `dvc repro` carries on from here", file=sys.stderr)
    return int(answer) if answer else 1


def _connect(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    return connection


def _start_server(path: Path, abandoned: Callable[[], bool] = lambda: False) -> socket.socket | None:
    """Start a server, unless another stage is just doing that, and wait until it has imported the libraries."""
    path.parent.mkdir(exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if connection := _connect(path):
            return connection
        server = subprocess.Popen(
            [sys.executable, "-m", "stages.core.warm", str(path)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up and server.poll() is None and not abandoned():
            if connection := _connect(path):
                return connection
            time.sleep(0.05)
        server.kill()
        return None


def serve(path: Path) -> None:
    """Import the libraries, then answer each connection with a fork until none has come for IDLE_SECONDS."""
    for name in PRELOAD:
        importlib.import_module(name)
    if threading.active_count() > 1:  # a fork would copy locks that other threads hold
        sys.exit("error: importing the libraries started threads")
    gc.collect()
    gc.freeze()  # keeps the forks from copying pages only to look for garbage
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        private = path.with_suffix(f".{os.getpid()}")
        listener.bind(str(private))
        private.chmod(0o600)
        listener.listen()
        mine = private.stat().st_ino
        private.replace(path)  # appears only when it is ready
        connection = _accept(listener)
        if connection is None:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == mine:  # and not that of a server that took this one's place
                    path.unlink()
    if connection is not None:
        _leave(lambda: _handle(connection))


def _accept(listener: socket.socket) -> socket.socket | None:
    """Fork for each connection: the forks return theirs, the server returns None when it has been idle for long."""
    handlers: set[int] = set()
    idle_since = time.monotonic()
    while handlers or time.monotonic() - idle_since < IDLE_SECONDS:
        readable, _, _ = select.select([listener], [], [], 0.5)
        for pid in list(handlers):
            if os.waitpid(pid, os.WNOHANG)[0]:
                handlers.discard(pid)
                idle_since = time.monotonic()
        if readable:
            connection, _ = listener.accept()
            pid = os.fork()
            if not pid:
                return connection
            handlers.add(pid)
            connection.close()
    return None


def _handle(connection: socket.socket) -> None:
    """In a fork: run the stage in a further one and report its status; pass a lost caller on as ctrl-C."""
    header, fds, _, _ = socket.recv_fds(connection, 8, 3)
    size, request = int.from_bytes(header, "big"), b""
    while len(request) < size and (part := connection.recv(size - len(request))):
        request += part
    if len(request) < size or len(fds) < 3:
        return
    connection.sendall(ACCEPTED)
    stage = os.fork()
    if not stage:
        connection.close()
        _leave(lambda: _become(json.loads(request), fds))
    pidfd = os.pidfd_open(stage)
    if connection.fileno() in select.select([connection.fileno(), pidfd], [], [])[0]:
        os.kill(stage, signal.SIGINT)
        if not select.select([pidfd], [], [], 10.0)[0]:
            os.kill(stage, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(stage, 0)[1])
    with contextlib.suppress(OSError):  # the caller may be gone
        connection.sendall(str(code if code >= 0 else 128 - code).encode())


def _become(request: dict[str, Any], fds: list[int]) -> None:
    """Take the caller's place: its terminal, environment, folder and arguments."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
        os.close(fd)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - buffered as the caller's own would be
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv, sys.path[0] = request["argv"], request["cwd"]
    for name in [name for name in sys.modules if name.partition(".")[0] == "stages"]:
        del sys.modules[name]
    importlib.import_module("stages.core.entry").run(importlib.import_module(request["module"]).main)


def _leave(run: Callable[[], None]) -> NoReturn:
    """Do this and end the process, a fork, as Python would, but without taking its modules apart.

    That would write to most of the memory that it shares with the server, and so copy 73,000 pages: 0.4 s of a stage,
    and as much again of the process that waits for it, beside the next one. `multiprocessing` leaves its forks so, too.
    """
    status = 1
    try:
        status = _status(run)
        # Threads that are no daemons first; then what Python and C libraries have not written yet.
        for step in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush, _flush_c):  # type: ignore[attr-defined]
            status = _status(step) or status
    finally:
        os._exit(status)


def _flush_c() -> None:
    ctypes.CDLL(None).fflush(None)


def _status(run: Callable[[], object]) -> int:
    """Return the exit status that Python would leave with after this, and print what it would."""
    try:
        run()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 1:
        hold()
    else:
        server = os.getpid()  # which the forks inherit
        serve(Path(sys.argv[1]))
