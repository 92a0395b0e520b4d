"""How an operation of the client fails: an exit code for scripts and a sentence for people."""

from __future__ import annotations

from archiver.client.text import printable


class CommandFailed(Exception):
    """Ends a command with ``exit_code`` and ``message`` on standard error.

    A message may quote a server or a file, so anything unprintable in it is escaped.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        self.message = "\n".join(map(printable, message.split("\n")))
        super().__init__(self.message)


class InvalidUsage(CommandFailed):
    """An argument or a setting is wrong."""

    exit_code = 2


class NotFound(CommandFailed):
    """Archiver or the version-control host reports that it does not exist."""

    exit_code = 3


class TimedOut(CommandFailed):
    exit_code = 4


class WrongBytes(CommandFailed):
    """The downloaded bytes differ from the promised size or sha256."""

    exit_code = 5


class RetryLater(CommandFailed):
    """A server does not respond or is busy, and may recover. EX_TEMPFAIL in sysexits.h."""

    exit_code = 75


class Unfinished(RetryLater):
    """The archive is still being built, and the user does not wait longer."""


class BeingWritten(RetryLater):
    """Another process writes the same archive to the same place."""


class Declined(RetryLater):
    """Archiver itself responded, with a problem code that no proxy sends."""


class LimitReached(Declined):
    """A limit does not allow this now. After ``pause_s`` seconds, it may."""

    def __init__(self, message: str, *, pause_s: float) -> None:
        super().__init__(message)
        self.pause_s = pause_s


class NoResponse(RetryLater):
    """There was no HTTP response at all."""


class Interrupted(CommandFailed):
    """A signal ended the command: 128 plus the number of SIGINT."""

    exit_code = 130
