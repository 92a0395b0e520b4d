"""How an operation of the client fails: an exit code for scripts and a sentence for people."""

from __future__ import annotations

from archiver.client.text import printable


class CommandFailed(Exception):
    """Ends a command with ``exit_code``, and ``message`` on standard error.

    A message may quote a server or a file, so anything unprintable in it is escaped. ``code`` names
    the failure for programs: the class of this failure, or the code that Archiver sent. ``hint``
    says what the user of the command can do next. ``elsewhere`` is set if another server may
    respond differently, because it is not Archiver that refused.
    """

    exit_code = 1
    code = "failed"
    hint = ""
    elsewhere = False

    def __init__(self, message: str, *, code: str = "", hint: str = "") -> None:
        self.message = "\n".join(map(printable, message.split("\n")))
        self.code = code or self.code
        self.hint = hint or self.hint
        super().__init__(self.message)


class NotArchiver(CommandFailed):
    """The response is not one of Archiver: a proxy or another program may have sent it."""

    elsewhere = True


class InvalidUsage(CommandFailed):
    """An argument or a setting is wrong."""

    exit_code = 2
    code = "invalid_usage"


class NotFound(CommandFailed):
    """Archiver or the version-control host reports that it does not exist."""

    exit_code = 3
    code = "not_found"
    hint = "Check the names. An archive or a task may also be private: see ARCHIVER_TOKEN."


class TimedOut(CommandFailed):
    exit_code = 4
    code = "timed_out"
    hint = "Run the same command again, or allow more time with --timeout."


class WrongBytes(CommandFailed):
    """The downloaded bytes differ from the promised size or sha256."""

    exit_code = 5
    code = "wrong_bytes"
    hint = "Do not use these bytes. Download them again, or report them to the server's operator."


class RetryLater(CommandFailed):
    """A server does not respond or is busy, and may recover. EX_TEMPFAIL in sysexits.h."""

    exit_code = 75
    code = "try_again"
    hint = "Run the same command again later."
    elsewhere = True


class Unfinished(RetryLater):
    """The archive is still being built, and the user does not wait longer."""

    elsewhere = False


class BeingWritten(RetryLater):
    """Another process writes the same archive to the same place."""


class Declined(RetryLater):
    """Archiver itself responded, with a problem code that no proxy sends."""


class LimitReached(Declined):
    """A limit does not allow this now. After ``pause_s`` seconds, it may."""

    elsewhere = False

    def __init__(self, message: str, *, code: str = "", pause_s: float) -> None:
        super().__init__(message, code=code)
        self.pause_s = pause_s


class NoResponse(RetryLater):
    """There was no HTTP response at all."""

    hint = "Run the same command again later. --server or ARCHIVER_URL names another server."


class Interrupted(CommandFailed):
    """A signal ended the command: 128 plus the number of SIGINT."""

    exit_code = 130
    code = "interrupted"
