"""Streams of gzip and bzip2: one or more members, each with a sound end, and nothing else."""

import bz2
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from isal import igzip_lib

from archiver.errors import CorruptArchive, NotAnArchive, TruncatedArchive
from archiver.formats.meter import Meter

IsalError = cast("type[Exception]", igzip_lib.IsalError)  # its stub takes it for an instance

STEP_BYTES = 1 << 20
"""How much is inflated at a time: a chunk of 1 MiB may hold a gigabyte."""


class Decompressor(Protocol):
    """What bz2 and igzip have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes: ...


class Reader(Protocol):
    """Reads a stream piece by piece."""

    def feed(self, data: bytes) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """A compression. Each member begins with ``magic``; ``errors`` are what its library raises."""

    name: str
    magic: bytes
    open: Callable[[], Decompressor]
    errors: tuple[type[Exception], ...]


def _inflate_gzip() -> Decompressor:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


GZIP = Codec(name="gzip", magic=b"\x1f\x8b\x08", open=_inflate_gzip, errors=(IsalError,))
BZIP2 = Codec(name="bzip2", magic=b"BZh", open=bz2.BZ2Decompressor, errors=(OSError,))


class Decompression:
    """Hands on to a reader what a compressed stream holds."""

    def __init__(self, *, codec: Codec, reader: Reader, meter: Meter) -> None:
        self._codec = codec
        self._meter = meter
        self._reader = reader
        self._member: Decompressor | None = None
        self._members = 0
        self._head = b""

    def feed(self, data: bytes) -> None:
        """Read on. Raises BadArchive as soon as it is certain."""
        while data:
            data = self._inflate(self._member, data) if self._member else self._begin(data)

    def close(self) -> None:
        """Return if the stream ends well here. Raises BadArchive if it does not."""
        if self._member or not self._members:
            raise TruncatedArchive(f"the {self._codec.name} stream ended before its end")
        if self._head:
            raise self._trailing()
        self._reader.close()

    def _begin(self, data: bytes) -> bytes:
        """Open the next member once its magic is complete; return what is still to be read."""
        self._head += data
        magic = self._codec.magic
        if not magic.startswith(self._head[: len(magic)]):
            raise self._trailing() if self._members else self._something_else()
        if len(self._head) < len(magic):
            return b""
        self._member = self._codec.open()
        data, self._head = self._head, b""
        return data

    def _inflate(self, member: Decompressor, data: bytes) -> bytes:
        """Hand on what *data* holds of a member; return what follows the member's end."""
        while True:
            try:
                inflated = member.decompress(data, STEP_BYTES)
            except self._codec.errors as exc:
                raise CorruptArchive(f"the {self._codec.name} stream is damaged") from exc
            if inflated:
                self._meter.unpack(len(inflated))
                self._reader.feed(inflated)
            if member.eof:
                self._member = None
                self._members += 1
                return member.unused_data
            if member.needs_input:
                return b""
            data = b""

    def _something_else(self) -> NotAnArchive:
        return NotAnArchive(f"what the host sent does not begin as {self._codec.name} does")

    def _trailing(self) -> CorruptArchive:
        return CorruptArchive(f"something follows the end of the {self._codec.name} stream")
