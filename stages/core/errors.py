"""The one kind of error that is the user's to mend, and the faults of the system that are."""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT)  # of an OSError: no space left
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)  # the path may not be written or read


class UserError(Exception):
    """Something outside the program is wrong; the message says, in one line, what, where and what to do."""
