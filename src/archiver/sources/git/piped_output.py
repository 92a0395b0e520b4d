"""The output of a git process in a pipe that another process reads.

Then the bytes do not pass through this process, which would cost as much as hashing them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from archiver.sources.git.child import Child, enlarge


class _Pipe:
    """A pipe whose ends are closed once."""

    def __init__(self) -> None:
        self._open = set(ends := os.pipe())
        self.reader, self.writer = ends
        enlarge(self.writer)

    def close_reader(self) -> None:
        self._close(self.reader)

    def close_writer(self) -> None:
        self._close(self.writer)

    def _close(self, end: int) -> None:
        if end in self._open:
            self._open.remove(end)
            os.close(end)


@contextmanager
def open_pipe() -> Iterator[_Pipe]:
    pipe = _Pipe()
    try:
        yield pipe
    finally:
        pipe.close_writer()
        pipe.close_reader()


class PipedOutput:
    """Implements ``ports.source.Pipe``, but for its errors."""

    def __init__(self, child: Child, pipe: _Pipe) -> None:
        self.descriptor = pipe.reader
        self.close = pipe.close_reader
        self.finish = child.wrote_all
