"""Standard streams that are closed, or that cannot be written."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDIN, STDOUT, STDERR = 0, 1, 2


def repair_streams() -> None:
    """Have messages never fail a command, and results fail in one sentence.

    A descriptor that is closed is opened on the null device: the next file would get its number,
    and what is meant for the stream. Streams that a test has replaced stay.
    """
    for number in (STDIN, STDOUT, STDERR):
        _reserve(number)
    if sys.stdout is None and sys.__stdout__ is None:
        sys.stdout = io.TextIOWrapper(_Closed(), write_through=True)
    if sys.stderr is sys.__stderr__:
        encoding = sys.stderr.encoding if sys.stderr else None
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(_Messages(STDERR, "w", closefd=False)),
            encoding=encoding,
            errors="backslashreplace",
            line_buffering=True,
        )


def _reserve(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


class _Messages(io.FileIO):
    """Drops what cannot be written."""

    def write(self, data: ReadableBuffer, /) -> int:
        with suppress(OSError):
            if written := super().write(data):
                return written
        return memoryview(data).nbytes


class _Closed(io.BufferedIOBase):
    """Standard output that was closed before the command began."""

    def writable(self) -> bool:
        return True

    def write(self, _data: ReadableBuffer, /) -> int:
        raise OSError(errno.EBADF, "standard output is closed")
