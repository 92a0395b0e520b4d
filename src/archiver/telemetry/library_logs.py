"""Keeps the texts of libraries out of the log: they may quote addresses and credentials."""

import errno
import logging
import socket
import ssl

_CONNECTION_ERRNOS = {None, errno.ENETUNREACH, errno.EHOSTUNREACH}
"""Plain OSErrors of failed connections. asyncio merges several failures into one without errno."""


class LibraryFilter(logging.Filter):
    """Replaces the text of a library's log record by its place in the library's code.

    Drops asyncio's reports of failed connections, because the code that connects reports them too.
    Other reports stay: for example, nothing else says that a process has too many open files.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] == "archiver":
            return True
        exc = record.exc_info[1] if record.exc_info else None
        if record.name == "asyncio" and (_is_connection_error(exc) or _is_eof_warning(record)):
            return False
        record.msg, record.args = "library.spoke", None
        record.library, record.place = record.name, f"{record.module}:{record.lineno}"
        record.exc_text = record.stack_info = None
        return True


def _is_connection_error(exc: BaseException | None) -> bool:
    if isinstance(exc, (ConnectionError, TimeoutError, ssl.SSLError, socket.gaierror)):
        return True
    return isinstance(exc, OSError) and exc.errno in _CONNECTION_ERRNOS


def _is_eof_warning(record: logging.LogRecord) -> bool:
    """Return whether this is asyncio's warning at the end of every TLS connection of nats-py.

    Bug: https://github.com/nats-io/nats.py/issues/574
    """
    return isinstance(record.msg, str) and record.msg.startswith("returning true from eof_received")
