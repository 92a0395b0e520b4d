"""Decompresses a stream of one or more compressed members, and rejects anything between them."""

import bz2
import lzma
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import zstandard
from isal import igzip_lib

from archiver.errors import ArchiveTooLarge, CorruptArchive, NotAnArchive, TruncatedArchive
from archiver.formats.limits import LimitCounter

IsalError = cast("type[Exception]", igzip_lib.IsalError)  # its stub declares an instance

STEP_BYTES = 1 << 20
"""How much is decompressed at a time: a chunk of 1 MiB may contain a gigabyte."""

WINDOW_MAX_BYTES = 128 << 20
"""Memory for the window of xz and zstd. ``xz -9`` needs 65 MiB, ``zstd -19`` 8."""

FREE_MEMBERS = 1 << 10
MEMBER_MIN_BYTES = 4 << 10
"""A stream may have FREE_MEMBERS members, and one more for each MEMBER_MIN_BYTES of content, since
opening a member takes time. The smallest members that compressors write have 64 KiB."""

SLICE_BYTES = 1 << 10
"""Input of zstd at a time, since its output has no limit: 32 MiB in the worst case."""


class Decompressor(Protocol):
    """The common interface of the decompressors of bz2, lzma and igzip."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """A compression format. Each member begins with ``magic``; its library raises ``error``.

    ``is_unsupported`` checks the first ``head_bytes`` of a member for features that the library
    ignores, and that others reject; ``is_foreign`` for fields with data that are no content.
    """

    name: str
    magic: bytes
    open: Callable[[], Decompressor]
    error: type[Exception]
    head_bytes: int = 0
    is_unsupported: Callable[[bytes], bool] | None = None
    is_foreign: Callable[[bytes], bool] | None = None


class _ZstdFrame:
    """Adapts zstandard to the ``Decompressor`` interface."""

    def __init__(self) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX_BYTES)
        self._frame = decompressor.decompressobj()
        self._held = memoryview(b"")

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def needs_input(self) -> bool:
        return not self._held and not self.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data + self._held

    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes:
        if data:
            self._held = memoryview(bytes(self._held) + data if self._held else data)
        pieces, size = [], 0
        while self._held and not self.eof and not 0 <= max_length <= size:
            pieces.append(self._frame.decompress(self._held[:SLICE_BYTES]))
            self._held = self._held[SLICE_BYTES:]
            size += len(pieces[-1])
        return b"".join(pieces)


def _has_reserved_flags(head: bytes) -> bool:
    """Return whether gzip and zlib would reject the flags of a gzip (RFC 1952, 2.3.1.2)."""
    return bool(head[3] & 0xE0)


def _has_foreign_fields(head: bytes) -> bool:
    """Return whether a gzip has more than a file name and a time: flags other than FNAME."""
    return bool(head[3] & ~0x08)


def _has_unknown_check(head: bytes) -> bool:
    """Return whether liblzma would silently ignore the checksums of an xz stream."""
    return not lzma.is_check_supported(head[7] & 0x0F)


CODECS = {
    "tar.gz": Codec(
        name="gzip",
        magic=b"\x1f\x8b\x08",
        open=partial(igzip_lib.IgzipDecompressor, flag=igzip_lib.DECOMP_GZIP),
        error=IsalError,
        head_bytes=4,
        is_unsupported=_has_reserved_flags,
        is_foreign=_has_foreign_fields,
    ),
    "tar.bz2": Codec(name="bzip2", magic=b"BZh", open=bz2.BZ2Decompressor, error=OSError),
    "tar.xz": Codec(
        name="xz",
        magic=b"\xfd7zXZ\0",
        open=partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, memlimit=WINDOW_MAX_BYTES),
        error=lzma.LZMAError,
        head_bytes=8,
        is_unsupported=_has_unknown_check,
    ),
    "tar.zst": Codec(
        name="zstd", magic=b"\x28\xb5\x2f\xfd", open=_ZstdFrame, error=zstandard.ZstdError
    ),
}
"""By suffix."""


class StreamDecompressor:
    """Yields the content of a compressed stream, within *limits* if given.

    A *strict* one rejects members without content, and fields that are no content: these may hide
    an archive of another format.
    """

    def __init__(
        self, *, codec: Codec, limits: LimitCounter | None = None, strict: bool = False
    ) -> None:
        self._strict = strict
        self._member_bytes = 0
        self._codec = codec
        self._limits = limits
        self._member: Decompressor | None = None
        self._members = 0
        self._content_bytes = 0
        self._head = b""

    def iter_content(self, data: bytes) -> Iterator[bytes]:
        """Yield the content of *data*, up to STEP_BYTES at a time. Raises BadArchive."""
        while data:
            if self._member:
                data = yield from self._decompress(self._member, data)
            else:
                data = self._open_member(data)

    def close(self) -> None:
        """Mark the end of the stream. Raises BadArchive if it is incomplete."""
        if self._member or not self._members:
            raise TruncatedArchive(f"the {self._codec.name} stream is truncated")
        if self._head:
            raise self._trailing_bytes()

    def _open_member(self, data: bytes) -> bytes:
        """Open the next member once its head is complete; return the unread bytes."""
        self._head += data
        magic = self._codec.magic
        if not magic.startswith(self._head[: len(magic)]):
            if self._members:
                raise self._trailing_bytes()
            raise NotAnArchive(f"the body does not begin like {self._codec.name}")
        if len(self._head) < max(len(magic), self._codec.head_bytes):
            return b""
        if (check := self._codec.is_unsupported) and check(self._head):
            raise CorruptArchive(
                f"the {self._codec.name} stream uses features that cannot be verified"
            )
        if self._strict and (check := self._codec.is_foreign) and check(self._head):
            raise CorruptArchive(f"the {self._codec.name} stream has data beside its content")
        self._member = self._codec.open()
        self._member_bytes = 0
        data, self._head = self._head, b""
        return data

    def _decompress(self, member: Decompressor, data: bytes) -> Generator[bytes, None, bytes]:
        """Yield the content of a member; return the bytes after its end."""
        while True:
            try:
                content = member.decompress(data, STEP_BYTES)
            except self._codec.error as exc:
                raise CorruptArchive(f"the {self._codec.name} stream is damaged") from exc
            if content:
                if self._limits:
                    self._limits.count_unpacked(len(content))
                yield content
            self._content_bytes += len(content)
            self._member_bytes += len(content)
            if member.eof:
                self._end_member()
                return member.unused_data
            if member.needs_input:
                return b""
            data = b""

    def _end_member(self) -> None:
        self._member = None
        self._members += 1
        if self._strict and not self._member_bytes:
            raise CorruptArchive(f"the {self._codec.name} stream has a member without content")
        if self._members > FREE_MEMBERS + self._content_bytes // MEMBER_MIN_BYTES:
            raise ArchiveTooLarge(
                f"the {self._codec.name} stream has too many members for its size"
            )

    def _trailing_bytes(self) -> CorruptArchive:
        return CorruptArchive(f"there are bytes after the end of the {self._codec.name} stream")
