"""Lets a parser read a stream sequentially while its chunks arrive.

Parsers are generators. They yield whenever they need bytes that have not arrived yet.
"""

from collections.abc import Callable, Generator
from typing import TypeAlias

from archiver.errors import CorruptArchive, TruncatedArchive

Parsing: TypeAlias = Generator[None, None, None]
"""A running parser."""


class ByteReader:
    """The bytes of a stream that have arrived. ``position`` is the number of bytes read.

    Holds at most one chunk, plus what a parser requests with ``read_exactly``.
    """

    def __init__(self) -> None:
        self._held = b""
        self._at = 0
        self._dropped = 0
        self._ended = False

    @property
    def position(self) -> int:
        return self._dropped + self._at

    def append(self, chunk: bytes) -> None:
        self._held = self._held[self._at :] + chunk
        self._dropped += self._at
        self._at = 0

    def mark_end(self) -> None:
        self._ended = True

    def read_buffered(self, size: int) -> bytes:
        """Return the next *size* bytes if they have arrived, else nothing. Avoids a generator."""
        end = self._at + size
        if end > len(self._held):
            return b""
        block = self._held[self._at : end]
        self._at = end
        return block

    def view_buffered(self, size: int) -> memoryview | None:
        """Return a view of the next *size* bytes if they have arrived. Copies nothing."""
        end = self._at + size
        if end > len(self._held):
            return None
        view = memoryview(self._held)[self._at : end]
        self._at = end
        return view

    def skip_buffered(self, size: int) -> bool:
        """Skip *size* bytes if they have arrived; return whether they had."""
        end = self._at + size
        if end > len(self._held):
            return False
        self._at = end
        return True

    def read_exactly(self, size: int) -> Generator[None, None, bytes]:
        """Return the next *size* bytes. Raises TruncatedArchive if the stream has fewer."""
        while self._at + size > len(self._held):
            yield from self._wait()
        return self.read_buffered(size)

    def read_some(self, max_size: int) -> Generator[None, None, bytes]:
        """Return one to *max_size* bytes, or nothing at the end of the stream."""
        while self._at == len(self._held):
            if self._ended:
                return b""
            yield
        block = self._held[self._at : self._at + max_size]
        self._at += len(block)
        return block

    def view_some(self, max_size: int) -> Generator[None, None, memoryview]:
        """Return a view of one to *max_size* bytes. Raises TruncatedArchive at the end."""
        while self._at == len(self._held):
            yield from self._wait()
        view = memoryview(self._held)[self._at : self._at + max_size]
        self._at += len(view)
        return view

    def unread(self, size: int) -> None:
        """Push back the last *size* bytes of the preceding ``read_some``."""
        self._at -= size

    def skip(self, size: int) -> Parsing:
        """Skip *size* bytes. Raises TruncatedArchive if the stream has fewer."""
        while size > (available := len(self._held) - self._at):
            self._at += available
            size -= available
            yield from self._wait()
        self._at += size

    def require_end(self) -> Parsing:
        """Return at the end of the stream. Raises CorruptArchive if more bytes follow."""
        if (yield from self.read_some(1)):
            raise CorruptArchive("there are bytes after the end of the archive")

    def _wait(self) -> Parsing:
        if self._ended:
            raise TruncatedArchive("the archive is truncated")
        yield


class IncrementalParser:
    """Runs a parser on the chunks that it is fed."""

    def __init__(self, parse: Callable[[ByteReader], Parsing]) -> None:
        self._reader = ByteReader()
        self._parsing = parse(self._reader)

    def feed(self, data: bytes) -> None:
        """Parse *data*. Raises BadArchive as early as possible, and on every later call."""
        self._reader.append(data)
        try:
            next(self._parsing)
        except StopIteration:
            raise CorruptArchive("there are bytes after the end of the archive") from None

    def close(self) -> None:
        """Mark the end of the stream. Raises BadArchive if the parser expects more."""
        self._reader.mark_end()
        for _ in self._parsing:
            raise CorruptArchive("there are bytes after the end of the archive")
