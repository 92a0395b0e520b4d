"""How a command can fail: an exit code for scripts, a sentence for people."""

import click

from archiver.cli.terminal import printable


class CommandFailed(click.ClickException):
    """Ends the command; click writes the message to standard error.

    A message may quote a server or a file, so nothing but text of it reaches the terminal.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(map(printable, message.split("\n"))))


class Misused(CommandFailed):
    """An argument or a setting is wrong."""

    exit_code = 2


class NotFound(CommandFailed):
    """There is no such thing, on the word of the one who would know."""

    exit_code = 3


class TookTooLong(CommandFailed):
    exit_code = 4


class WrongBytes(CommandFailed):
    """What was downloaded is not what was promised."""

    exit_code = 5


class RetryLater(CommandFailed):
    """Someone does not answer, who may answer soon. EX_TEMPFAIL of sysexits.h."""

    exit_code = 75


class Declined(RetryLater):
    """Archiver itself says so, with a code: no proxy or other server does."""


class Interrupted(CommandFailed):
    """A signal ended the command. 128 and the number of SIGINT."""

    exit_code = 130


class NoAnswer(RetryLater):
    """There was no HTTP answer at all."""
