"""Lets tarfile read the headers of a tar that arrives, and others the contents of its members."""

from __future__ import annotations

import re
from collections.abc import Iterator
from tarfile import BLOCKSIZE

from archiver.client.decompression import Readable

HEADER_MAX_BYTES = 65 * 1024
"""No header of a source archive is longer: tarfile reads a header of any size into the memory."""

DIGITS_MAX = 255
"""tarfile searches a header in a time that grows with the square of a row of digits."""

_READ_BYTES = 1024 * 1024
_DIGITS = re.compile(rb"[0-9]{%d}" % (DIGITS_MAX + 1))


class TarStream:
    """The bytes of a plain tar, which can only be read forward.

    tarfile's own stream takes twice as long for an archive of small files.
    """

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._chunk = b""
        self._at = 0
        self._position = 0
        self.last = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        """Skip to *position*. Raises ValueError if that is before the present one."""
        if position < self._position:
            raise ValueError(position)
        for _ in self.contents(position - self._position):
            pass

    def read(self, size: int) -> bytes:
        """Return *size* bytes of headers, or fewer at the end, and note them as ``last``.

        Raises ValueError if a header is too long, or would take long to parse.
        """
        if not 0 <= size <= HEADER_MAX_BYTES:
            raise ValueError(size)
        end = self._at + size
        if end <= len(self._chunk):
            self.last = self._chunk[self._at : end]
            self._at = end
            self._position += size
        else:
            self.last = b"".join(self._pieces(size))
        if size > BLOCKSIZE and _DIGITS.search(self.last):
            raise ValueError(size)
        return self.last

    def contents(self, size: int) -> Iterator[bytes]:
        """Yield the next *size* bytes as they arrive. Raises EOFError if there are fewer."""
        for piece in self._pieces(size):
            size -= len(piece)
            yield piece
        if size:
            raise EOFError

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size:
            if self._at == len(self._chunk):
                self._chunk, self._at = self._source.read(_READ_BYTES), 0
                if not self._chunk:
                    return
            piece = self._chunk[self._at : self._at + size]
            self._at += len(piece)
            self._position += len(piece)
            size -= len(piece)
            yield piece
