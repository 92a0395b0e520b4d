"""Bytes that come when they come, for a parser that reads on as if they were all there."""

from collections.abc import Callable, Generator, Iterator
from typing import TypeAlias

from archiver.errors import CorruptArchive, TruncatedArchive

Waiting: TypeAlias = Generator[None, None, None]
"""A parser. It yields whenever it needs bytes that have not come yet."""


class Incoming:
    """What has come of a stream. ``position`` counts the bytes that were taken from it.

    Holds no more than one chunk and what a parser asked for with ``exactly``.
    """

    def __init__(self) -> None:
        self._held = b""
        self._at = 0
        self._dropped = 0
        self._ended = False

    @property
    def position(self) -> int:
        return self._dropped + self._at

    def add(self, chunk: bytes) -> None:
        self._held = self._held[self._at :] + chunk
        self._dropped += self._at
        self._at = 0

    def end(self) -> None:
        self._ended = True

    def at_hand(self, size: int) -> bytes:
        """Return the next *size* bytes if they have come; else nothing. For who is in a hurry."""
        end = self._at + size
        if end > len(self._held):
            return b""
        block = self._held[self._at : end]
        self._at = end
        return block

    def skip_at_hand(self, size: int) -> bool:
        """Pass over *size* bytes if they have come; tell whether they had."""
        end = self._at + size
        if end > len(self._held):
            return False
        self._at = end
        return True

    def exactly(self, size: int) -> Generator[None, None, bytes]:
        """Return the next *size* bytes. Raises TruncatedArchive if so many never come."""
        end = self._at + size
        while end > len(self._held):
            yield from self._more()
            end = self._at + size
        block = self._held[self._at : end]
        self._at = end
        return block

    def some(self, most: int) -> Generator[None, None, bytes]:
        """Return at least one byte and at most *most*; nothing if the stream has ended."""
        while self._at == len(self._held):
            if self._ended:
                return b""
            yield
        block = self._held[self._at : self._at + most]
        self._at += len(block)
        return block

    def unread(self, size: int) -> None:
        """Give back the last *size* bytes of what ``some`` returned just now."""
        self._at -= size

    def skip(self, size: int) -> Waiting:
        """Pass over *size* bytes. Raises TruncatedArchive if so many never come."""
        while size > (here := len(self._held) - self._at):
            self._at += here
            size -= here
            yield from self._more()
        self._at += size

    def nothing(self) -> Waiting:
        """Return when the stream ends here. Raises CorruptArchive if it goes on."""
        if (yield from self.some(1)):
            raise CorruptArchive("something follows the end of the archive")

    def _more(self) -> Waiting:
        if self._ended:
            raise TruncatedArchive("the archive ended before its end")
        yield


class Parser:
    """Runs a parser on the chunks that it is fed."""

    def __init__(self, parse: Callable[[Incoming], Waiting]) -> None:
        self._incoming = Incoming()
        self._steps = parse(self._incoming)

    def feed(self, data: bytes) -> None:
        """Read on. Raises BadArchive as soon as it is certain, and of all that comes after."""
        self._incoming.add(data)
        try:
            next(self._steps)
        except StopIteration:
            raise CorruptArchive("something follows the end of the archive") from None

    def steps(self, data: bytes) -> Iterator[None]:
        """Read on, in one step."""
        self.feed(data)
        yield

    def close(self) -> None:
        """Return if the parser is content that this is the end. Raises BadArchive if it is not."""
        self._incoming.end()
        for _ in self._steps:
            raise CorruptArchive("the archive goes on after its end")
