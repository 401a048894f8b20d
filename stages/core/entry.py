"""How every stage starts and ends: errors that are the user's to mend become one line and exit status 1."""

import os
import sys
from collections.abc import Callable

from stages.core.errors import DENIED, FULL, UserError

GROUP = "LOCAL_RANK"  # which `torchrun` and `stages.core.processes` set in each of several processes of a training


def in_group() -> bool:
    """Whether this is one of several processes of a training."""
    return GROUP in os.environ


def prepare_environment() -> None:
    """Set what the libraries read when they are imported, where the user has not set it."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # rayon threads would outnumber `hardware.threads`


def run(stage: Callable[[], None]) -> None:
    """Call a stage and leave the process with its exit status.

    A UserError, a full disk, a path that may not be written and an interrupt are told in one line; any other exception
    is a defect and keeps its traceback.
    """
    prepare_environment()
    try:
        stage()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted; `dvc repro` carries on from here", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno in FULL:
            sys.exit(
                f"error: {error.filename or 'output'}: no space left on the device; free some and run `dvc repro` again"
            )
        if error.errno in DENIED:
            what = f"{error.filename}: cannot be written or read ({error.strerror})" if error.filename else str(error)
            sys.exit(f"error: {' '.join(what.split())}; change its owner or permissions and run `dvc repro` again")
        raise
