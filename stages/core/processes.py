"""Training in several processes of `torch.distributed`: one a GPU, or as many as `resources` asks for.

A stage that is started alone starts the processes itself; under `torchrun`, over several machines, it is one of them.
"""

import atexit
import importlib
import logging
import os
import socket
import sys
import time
from datetime import timedelta

import torch
from accelerate import PartialState
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from stages.core import entry, waiting
from stages.core.params import Params, Stage

RANK = "RANK"  # which `torchrun` and this module set, and accelerate reads
WORDLESS_SECONDS = 15.0
LONGEST_WAIT = timedelta(days=2)  # of the others while one packs the corpus


def spread(module: str, stage: Stage, params: Params) -> bool:
    """Run `module.main()` in several processes if there should be; False if it is to go on in this one.

    Leaves the program with the status of a process that fails, after the others have been ended.
    """
    wanted = params.resources_of(stage).processes or max(1, torch.cuda.device_count())
    if wanted == 1 or RANK in os.environ:
        return False
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ[waiting.SPINS] = waiting.ASLEEP
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # that it ends the others
    try:
        start_processes(  # type: ignore[no-untyped-call]
            _become, (wanted, port, module, sys.argv), nprocs=wanted, start_method="spawn"
        )
    except ProcessExitedException as error:
        sys.exit(error.exit_code)
    return True


def _become(rank: int, processes: int, port: int, module: str, arguments: list[str]) -> None:
    os.environ |= {
        RANK: str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    sys.argv = arguments
    try:
        entry.run(importlib.import_module(module).main)
    except SystemExit:
        if rank:
            time.sleep(WORDLESS_SECONDS)  # what befalls all is told by the first, whose end ends the others
        raise
    finally:
        _leave()


def state() -> PartialState:
    """Return what this process is among the others, or alone, and join them."""
    if RANK not in os.environ:
        return PartialState(cpu=not torch.cuda.is_available())
    atexit.register(_leave)
    return PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get(RANK, 0)) == 0


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
