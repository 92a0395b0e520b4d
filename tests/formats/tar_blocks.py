"""Builds tars block by block, including invalid ones."""

import asyncio

from archiver.formats.tar.header import BLOCK
from archiver.model import Verified
from tests.formats.samples import ROOT, an_archive, verify_chunks

END = bytes(2 * BLOCK)
LONG = f"{ROOT}/{'long/' * 60}name"


def verify_tar(*blocks: bytes) -> Verified:
    return asyncio.run(verify_chunks(an_archive("tar"), [b"".join(blocks)]))


def header(
    name: str = f"{ROOT}/file",
    size: bytes | int = 0,
    kind: bytes = b"0",
    *,
    link: str = f"{ROOT}/README",
    end: bytes = b"ustar\x0000",
    checksum: bytes | None = None,
) -> bytes:
    """Return a header block; *size* is a number, or the twelve bytes of its field."""
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    start = name.encode().ljust(100, b"\0") + b"0000644\0" * 3 + field + b"00000000000\0"
    end = (kind + link.encode().ljust(100, b"\0") + end).ljust(BLOCK - 156, b"\0")
    total = sum(start + b" " * 8 + end)
    return start + (checksum or b"%06o\0 " % total) + end


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    data = b"".join(records)
    return header("pax", len(data), kind) + padded(data)


def record(keyword: bytes, value: bytes) -> bytes:
    rest = b" %s=%s\n" % (keyword, value)
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


def amended(member: bytes, at: int, content: bytes) -> bytes:
    """Return a member with other *content* in its header, and with a valid checksum."""
    block = bytearray(member[:at] + content + member[at + len(content) :])[:BLOCK]
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + member[BLOCK:]
