"""Zips made record by record, with a second directory that only some readers would follow."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from zlib import crc32

from tests.formats.samples import ROOT, note

JAVA_MARK = 0xCAFE


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stored file: ``extra`` and ``comment`` are only in the directory."""

    name: bytes
    content: bytes = b""
    extra: bytes = b""
    comment: bytes = b""
    offset: int = 0

    @property
    def local(self) -> bytes:
        size = len(self.content)
        fields = (20, 0, 0, 0x58210000, crc32(self.content), size, size, len(self.name), 0)
        return struct.pack("<4sHHHIIIIHH", b"PK\3\4", *fields) + self.name + self.content

    @property
    def central(self) -> bytes:
        size = len(self.content)
        rest = self.name + self.extra + self.comment
        fields = (20, 3, 20, 0, 0, 0x58210000, crc32(self.content), size, size, len(self.name))
        more = (len(self.extra), len(self.comment), 0, 0, 0o100644 << 16, self.offset)
        return struct.pack("<4sBBHHHIIIIHHHHHII", b"PK\1\2", *fields, *more) + rest


TREE = (
    Part(name=f"{ROOT}/.hg_archival.txt".encode(), content=note()),
    Part(name=f"{ROOT}/README".encode(), content=b"read me\n"),
    Part(name=f"{ROOT}/run".encode(), content=b"good"),
)
EVIL = (Part(name=f"{ROOT}/run".encode(), content=b"EVIL"), Part(name=b"more", content=b"EVIL"))


def placed(parts: tuple[Part, ...], start: int = 0) -> tuple[Part, ...]:
    """Return *parts* with their offsets, the first one at *start*."""
    found = []
    for part in parts:
        found.append(replace(part, offset=start))
        start += len(part.local)
    return tuple(found)


def end(stated: Sequence[int], comment: bytes) -> bytes:
    """Return the end record for the number of entries, the size and the offset *stated*."""
    entries, size, offset = stated
    counts = (0, 0, entries, entries, size, offset, len(comment))
    return struct.pack("<4sHHHHIIH", b"PK\5\6", *counts) + comment


def wide_end(entries: int, size: int, offset: int) -> bytes:
    """Return a 64-bit end record and its locator, for a directory that ends where they stand."""
    numbers = (44, 45, 45, 0, 0, entries, entries, size, offset)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", *numbers)
    return record + struct.pack("<4sIQI", b"PK\6\7", 0, offset + size, 1)


def assembled(
    parts: tuple[Part, ...],
    *,
    wide: bool = False,
    full: frozenset[int] = frozenset(),
    comment: bytes = b"",
) -> bytes:
    """Return a zip; a *wide* one with 64-bit records. The END numbers *full* have no value."""
    parts = placed(parts)
    start = b"".join(part.local for part in parts)
    directory = b"".join(part.central for part in parts)
    numbers = (len(parts), len(directory), len(start))
    limits = (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    stated = [limits[at] if at in full else number for at, number in enumerate(numbers)]
    return start + directory + (wide_end(*numbers) if wide else b"") + end(stated, comment)


def hidden_directory(start: int, parts: tuple[Part, ...] = EVIL) -> bytes:
    """Return files, a directory and its 64-bit records, for the index *start* of a file."""
    parts = placed(parts, start)
    files = b"".join(part.local for part in parts)
    directory = b"".join(part.central for part in parts)
    return files + directory + wide_end(len(parts), len(directory), start + len(files))


def with_hidden_directory(carrier: str, nth: int = -1, parts: tuple[Part, ...] = TREE) -> bytes:
    """Return a zip of *parts* whose *nth* entry has a second directory in its *carrier*."""
    held = list(parts)
    for start in (0, _start_of_carried(parts, carrier, nth)):
        data = hidden_directory(start)
        if carrier == "extra":
            data = struct.pack("<HH", JAVA_MARK, len(data)) + data
        part = parts[nth]
        is_extra = carrier == "extra"
        held[nth] = replace(part, extra=data) if is_extra else replace(part, comment=data)
    return assembled(tuple(held))


def _start_of_carried(parts: tuple[Part, ...], carrier: str, nth: int) -> int:
    parts = placed(parts)
    entries = [part.central for part in parts]
    before = sum(len(part.local) for part in parts) + sum(map(len, entries[: nth % len(parts)]))
    return before + len(entries[nth]) + (4 if carrier == "extra" else 0)
