"""Training in several processes of `torch.distributed`: one a GPU, or as many as `resources` asks for.

A stage that is started alone starts the processes itself; under `torchrun`, over several machines, it is one of them.
"""

import importlib
import logging
import os
import signal
import socket
import sys
import time
import traceback
from datetime import timedelta
from typing import NoReturn

import torch
from accelerate import PartialState
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, start_processes

from stages.core import entry, waiting
from stages.core.errors import UserError
from stages.core.params import Params, Stage

RANK = "RANK"  # which `torchrun` and this module set, and accelerate reads
WORDLESS_SECONDS = 15.0
END_SECONDS = 5.0  # for processes that were interrupted
LONGEST_WAIT = timedelta(days=2)  # of the others while one packs the corpus


def spread(module: str, stage: Stage, params: Params, shares: int) -> bool:
    """Run `module.main()` in several processes if there should be; False if it is to go on in this one.

    By default there is one for each GPU, or as many as divide a batch of `shares` evenly. Leaves the program with the
    status of a process that fails, after the others have been ended. Raises UserError if there are too few GPUs.
    """
    if entry.in_group() or (wanted := _wanted(stage, params, shares)) == 1:
        return False
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ[waiting.SPINS] = waiting.ASLEEP
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # that it ends the others
    group: ProcessContext = start_processes(  # type: ignore[no-untyped-call]
        _become, (wanted, port, module, sys.argv), nprocs=wanted, join=False, start_method="spawn"
    )
    try:
        while not group.join():
            pass
    except ProcessExitedException as error:
        if error.exit_code >= 0:
            sys.exit(error.exit_code)
        print(f"error: {module}: process {error.error_index} was killed (signal {-error.exit_code})", file=sys.stderr)
        sys.exit(128 - error.exit_code)  # as a shell says it
    finally:
        _end_group(group)
    return True


def _wanted(stage: Stage, params: Params, shares: int) -> int:
    """Return how many processes there should be."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0  # counts those, too, that torch cannot use
    asked = params.resources_of(stage).processes
    if asked and gpus and asked > gpus:
        raise UserError(
            f"params.yaml: resources.{stage}.processes: {asked}, but only {gpus} GPU{'s' * (gpus > 1)} can be seen"
        )
    return asked or max(n for n in range(1, max(1, gpus) + 1) if shares % n == 0)


def _end_group(group: ProcessContext) -> None:
    """End what still runs, such as a process whose peer was interrupted and that waits for it on its GPU."""
    give_up = time.monotonic() + END_SECONDS
    try:
        for process in group.processes:
            if process.is_alive():
                os.kill(process.pid, signal.SIGINT)
        for process in group.processes:
            process.join(max(0.0, give_up - time.monotonic()))
    finally:
        for process in group.processes:
            process.kill()


def _become(rank: int, processes: int, port: int, module: str, arguments: list[str]) -> None:
    if sys.platform == "linux":  # one that waits on its GPU would outlive a parent that is killed
        torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGKILL)  # type: ignore[attr-defined]
    os.environ |= {
        RANK: str(rank),
        entry.GROUP: str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    sys.argv = arguments
    run_one(module)


def run_one(module: str) -> None:
    """Run `module.main()` as one of the processes, and leave the others in good order, or at once if it fails."""
    try:
        entry.run(importlib.import_module(module).main)
    except BaseException as error:
        _fail(error)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _fail(error: BaseException) -> NoReturn:
    """End without the good order, in which NCCL would wait for the others, which wait for this process."""
    code = error.code if isinstance(error, SystemExit) else 1
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
    elif isinstance(code, str) and not is_first():
        time.sleep(WORDLESS_SECONDS)  # what befalls all is told by the first, whose end ends the others
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def state() -> PartialState:
    """Return what this process is among the others, or alone, and join them."""
    joins = {"timeout": LONGEST_WAIT} if entry.in_group() else {}
    return PartialState(cpu=not torch.cuda.is_available(), **joins)


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get(RANK, 0)) == 0
