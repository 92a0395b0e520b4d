"""Compressed streams: one or more members, each with a sound end, and nothing else."""

import bz2
import lzma
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Protocol, cast

import zstandard
from isal import igzip_lib

from archiver.errors import ArchiveTooLarge, CorruptArchive, NotAnArchive, TruncatedArchive
from archiver.formats.limits import Meter

IsalError = cast("type[Exception]", igzip_lib.IsalError)  # its stub takes it for an instance

STEP_BYTES = 1 << 20
"""How much is inflated at a time: a chunk of 1 MiB may hold a gigabyte."""

WINDOW_MAX_BYTES = 128 << 20
"""What xz and zstd may need to look back on. ``xz -9`` needs 65 MiB, ``zstd -19`` 8."""

MEMBERS_FREE = 1 << 10
MEMBER_LEAST_BYTES = 4 << 10
"""A stream may have MEMBERS_FREE members, and one more for each MEMBER_LEAST_BYTES that it holds,
since it takes time to open one. The smallest that packers make have 64 KiB."""

SLICE_BYTES = 1 << 10
"""What zstd is given at a time, since it has no bound for what it makes of it: 32 MiB at worst."""


class Decompressor(Protocol):
    """What those of bz2, lzma and igzip have in common."""

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


def _never(_head: bytes) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """A compression. Each member begins with ``magic``; ``errors`` are what its library raises.

    What follows the magic at once may tell that nobody can read it: ``foreign`` says so of the
    first ``head_bytes``, where the library does not.
    """

    name: str
    magic: bytes
    open: Callable[[], Decompressor]
    errors: tuple[type[Exception], ...]
    head_bytes: int = 0
    foreign: Callable[[bytes], bool] = _never


class _ZstdFrame:
    """A Decompressor of zstd, which its library has in another shape."""

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


def _open_gzip() -> Decompressor:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _open_xz() -> Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW_MAX_BYTES)


def _has_reserved_flags(head: bytes) -> bool:
    """Tell whether gzip and zlib would refuse the flags of a gzip (RFC 1952, 2.3.1.2)."""
    return bool(head[3] & 0xE0)


def _has_unknown_check(head: bytes) -> bool:
    """Tell whether the sums in an xz are of a kind that liblzma would pass over in silence."""
    return not lzma.is_check_supported(head[7] & 0x0F)


CODECS = {
    "tar.gz": Codec(
        name="gzip",
        magic=b"\x1f\x8b\x08",
        open=_open_gzip,
        errors=(IsalError,),
        head_bytes=4,
        foreign=_has_reserved_flags,
    ),
    "tar.bz2": Codec(name="bzip2", magic=b"BZh", open=bz2.BZ2Decompressor, errors=(OSError,)),
    "tar.xz": Codec(
        name="xz",
        magic=b"\xfd7zXZ\0",
        open=_open_xz,
        errors=(lzma.LZMAError,),
        head_bytes=8,
        foreign=_has_unknown_check,
    ),
    "tar.zst": Codec(
        name="zstd", magic=b"\x28\xb5\x2f\xfd", open=_ZstdFrame, errors=(zstandard.ZstdError,)
    ),
}
"""By suffix."""


class Decompression:
    """Hands on to a reader what a compressed stream holds, within the limits of a meter, if any."""

    def __init__(self, *, codec: Codec, reader: Reader, meter: Meter | None = None) -> None:
        self._codec = codec
        self._meter = meter
        self._reader = reader
        self._member: Decompressor | None = None
        self._members = 0
        self._inflated_bytes = 0
        self._head = b""

    def feed(self, data: bytes) -> None:
        """Read on. Raises BadArchive as soon as it is certain."""
        for _ in self.steps(data):
            pass

    def steps(self, data: bytes) -> Iterator[None]:
        """Read on; come up for air whenever the reader got some STEP_BYTES at the most."""
        while data:
            if self._member:
                data = yield from self._inflate(self._member, data)
            else:
                data = self._begin(data)

    def close(self) -> None:
        """Return if the stream ends well here. Raises BadArchive if it does not."""
        if self._member or not self._members:
            raise TruncatedArchive(f"the {self._codec.name} stream ended before its end")
        if self._head:
            raise self._trailing()
        self._reader.close()

    def _begin(self, data: bytes) -> bytes:
        """Open the next member once its head is complete; return what is still to be read."""
        self._head += data
        magic = self._codec.magic
        if not magic.startswith(self._head[: len(magic)]):
            raise self._trailing() if self._members else self._something_else()
        if len(self._head) < max(len(magic), self._codec.head_bytes):
            return b""
        if self._codec.foreign(self._head):
            raise CorruptArchive(
                f"the {self._codec.name} stream is of a kind that nobody can check"
            )
        self._member = self._codec.open()
        data, self._head = self._head, b""
        return data

    def _inflate(self, member: Decompressor, data: bytes) -> Generator[None, None, bytes]:
        """Hand on what *data* holds of a member; return what follows the member's end."""
        while True:
            try:
                inflated = member.decompress(data, STEP_BYTES)
            except self._codec.errors as exc:
                raise CorruptArchive(f"the {self._codec.name} stream is damaged") from exc
            if inflated:
                if self._meter:
                    self._meter.unpack(len(inflated))
                self._reader.feed(inflated)
                yield
            self._inflated_bytes += len(inflated)
            if member.eof:
                self._end_member()
                return member.unused_data
            if member.needs_input:
                return b""
            data = b""

    def _end_member(self) -> None:
        self._member = None
        self._members += 1
        if self._members > MEMBERS_FREE + self._inflated_bytes // MEMBER_LEAST_BYTES:
            raise ArchiveTooLarge(
                f"the {self._codec.name} stream is cut into more pieces than packers make"
            )

    def _something_else(self) -> NotAnArchive:
        return NotAnArchive(f"what the host sent does not begin as {self._codec.name} does")

    def _trailing(self) -> CorruptArchive:
        return CorruptArchive(f"something follows the end of the {self._codec.name} stream")
