"""Errors that a command turns into an exit code: 1 for what failed, 2 for how it was called, 130 for Ctrl-C."""


class UsageError(Exception):
    """The command line is wrong: exit code 2. `command` is named in the message."""

    def __init__(self, message: str, command: str = "hf-labels") -> None:
        super().__init__(message)
        self.command = command


class CommandError(Exception):
    """The command could not do its work: exit code 1."""


class Interrupted(Exception):
    """The user pressed Ctrl-C: exit code 130; the message says how to go on."""
