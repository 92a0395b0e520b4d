"""Decompresses a stream, whose first bytes say how it is compressed, in bounded memory."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import IO, Protocol, cast

from archiver.client.failures import CommandFailed

CHUNK_BYTES = 256 * 1024
OUTPUT_BYTES = 1024 * 1024
"""At most so much is decompressed at a time, however small its compressed form is."""
MAGIC_BYTES = 6
GZIP = 31
"""The window bits with which zlib expects the header of gzip."""
LZMA_MAX_BYTES = 512 * 1024**2
"""The memory that xz may need: eight times that of its highest level."""

DECOMPRESSION_ERRORS = (zlib.error, lzma.LZMAError, OSError)
"""What the libraries raise for damaged data; OSError is that of bz2."""


class Readable(Protocol):
    """Returns at least one byte per read until the end."""

    def read(self, size: int = ..., /) -> bytes: ...


class Decompressor(Protocol):
    """As of bz2 and lzma."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /, max_length: int = ...) -> bytes: ...


class Gzip:
    """One member of a gzip file. Implements Decompressor."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(GZIP)

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def needs_input(self) -> bool:
        return not self._member.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def decompress(self, data: bytes, /, max_length: int = 0) -> bytes:
        return self._member.decompress(self._member.unconsumed_tail + data, max_length)


def decompressed(source: Readable) -> Readable:
    """Return a stream of the decompressed bytes, whose reads raise EOFError if they are damaged.

    Raises CommandFailed if a library is missing.
    """
    start = b""
    while len(start) < MAGIC_BYTES and (more := source.read(CHUNK_BYTES)):
        start += more
    stream = Resumed(start, source)
    if start.startswith(b"\x1f\x8b"):
        return Decompressed(stream, Gzip)
    if start.startswith(b"BZh"):
        return Decompressed(stream, bz2.BZ2Decompressor)
    if start.startswith(b"\xfd7zXZ"):
        return Decompressed(stream, lambda: lzma.LZMADecompressor(memlimit=LZMA_MAX_BYTES))
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd(stream)
    return stream


class Resumed:
    """A stream of which the first bytes were read already. Implements Readable."""

    def __init__(self, start: bytes, rest: Readable) -> None:
        self._start = start
        self._rest = rest

    def read(self, size: int = -1, /) -> bytes:
        if not self._start:
            return self._rest.read(size)
        size = len(self._start) if size < 0 else size
        start, self._start = self._start[:size], self._start[size:]
        return start


class Decompressed:
    """Decompresses *source*, which may have several members. Implements Readable."""

    def __init__(self, source: Readable, open_member: Callable[[], Decompressor]) -> None:
        self._source = source
        self._open_member = open_member
        self._member: Decompressor | None = None
        self._pending = b""

    def read(self, size: int = -1, /) -> bytes:
        """Return at least one byte, and at most *size* or OUTPUT_BYTES; none at the end."""
        most = OUTPUT_BYTES if size < 0 else min(size, OUTPUT_BYTES)
        while True:
            if self._member is None or self._member.needs_input:
                data = self._pending or self._source.read(CHUNK_BYTES)
                self._pending = b""
                if not data:
                    if self._member is None:
                        return b""
                    raise EOFError
            else:
                data = b""
            member = self._member = self._member or self._open_member()
            try:
                output = member.decompress(data, max_length=most)
            except DECOMPRESSION_ERRORS as exc:
                raise EOFError from exc
            if member.eof:
                self._pending, self._member = member.unused_data, None
            if output:
                return output


def _zstd(source: Readable) -> Readable:
    try:
        import zstandard  # noqa: PLC0415 - only for this format, and not part of the client
    except ModuleNotFoundError:
        raise CommandFailed(
            "tar.zst needs the library zstandard: install it, or use another suffix"
        ) from None

    class Zstd:
        def __init__(self) -> None:
            self._reader = zstandard.ZstdDecompressor().stream_reader(
                cast("IO[bytes]", source), read_across_frames=True
            )

        def read(self, size: int = -1, /) -> bytes:
            try:
                return self._reader.read(OUTPUT_BYTES if size < 0 else min(size, OUTPUT_BYTES))
            except zstandard.ZstdError as exc:
                raise EOFError from exc

    return Zstd()
