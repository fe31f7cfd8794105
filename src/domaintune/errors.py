"""What ends a command with one message and no traceback."""


class UsageError(Exception):
    """The config or the data is wrong, and a person can mend it: one clear message, no traceback, exit status 2."""


class RunError(Exception):
    """A run can't go on, as where the disk is full: one clear message, no traceback, exit status 1."""
