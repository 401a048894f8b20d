"""The one kind of error that is the user's to mend."""


class UserError(Exception):
    """Something outside the program is wrong; the message says, in one line, what, where and what to do."""
