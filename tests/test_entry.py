"""How a stage ends: what the user can mend is one line, a defect keeps its traceback."""

import errno
import os
from collections.abc import Callable

import pytest

from stages.core.entry import run
from stages.core.errors import UserError


def failing(error: BaseException) -> Callable[[], None]:
    def stage() -> None:
        raise error

    return stage


def refusal(number: int) -> OSError:
    return OSError(number, os.strerror(number), "data/eval")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("params.yaml: seed"), "error: params.yaml: seed"),
        (refusal(errno.ENOSPC), "error: data/eval: no space left on the device; free some"),
        (refusal(errno.EDQUOT), "error: data/eval: no space left on the device; free some"),
        (refusal(errno.EACCES), "error: data/eval: cannot be written or read (Permission denied); change its owner"),
        (refusal(errno.EPERM), "error: data/eval: cannot be written or read (Operation not permitted); change"),
        (refusal(errno.EROFS), "error: data/eval: cannot be written or read (Read-only file system); change"),
        (OSError(errno.EACCES, "Failed to open 'x'"), "error: [Errno 13] Failed to open 'x'; change its owner"),
    ],
)
def test_what_the_user_can_mend_is_one_line(error: Exception, message: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(failing(error))
    assert str(exit_.value.code).startswith(message)
    assert "\n" not in str(exit_.value.code)


@pytest.mark.parametrize("error", [refusal(errno.EIO), ValueError("defect")])
def test_any_other_error_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        run(failing(error))
    assert raised.value is error
