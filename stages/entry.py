"""How every stage starts and ends: errors that are the user's to mend become one line and exit status 1."""

import errno
import os
import sys
from collections.abc import Callable

from stages.errors import UserError


def prepare_environment() -> None:
    """Set what the libraries read when they are imported, where the user has not set it."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Threads that spin for long while they wait make training 10 to 20 times slower as soon as anything else runs on a
    # core; those that sleep at once make it 20 % slower on an idle machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # rayon threads would outnumber `hardware.threads`


def run(stage: Callable[[], None]) -> None:
    """Call a stage and leave the process with its exit status.

    A UserError, a full disk and an interrupt are told in one line; any other exception is a defect and keeps its
    traceback.
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
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.exit(
            f"error: {error.filename or 'output'}: no space left on the device; free some and run `dvc repro` again"
        )
