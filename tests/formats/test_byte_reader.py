"""Bytes after the end of a parser."""

import pytest

from archiver.errors import CorruptArchive
from archiver.formats.byte_reader import ByteReader, IncrementalParser, Parsing


def content(reader: ByteReader) -> Parsing:
    yield from reader.read_exactly(4)
    yield from reader.require_end()


def refusing(reader: ByteReader) -> Parsing:
    yield from reader.read_exactly(4)
    raise CorruptArchive("these are the wrong four")


def test_bytes_after_the_end_are_rejected_every_time() -> None:
    parser = IncrementalParser(content)
    parser.feed(b"four")
    parser.close()
    for _ in range(3):
        with pytest.raises(CorruptArchive, match="after the end"):
            parser.feed(b"more")


def test_bytes_after_a_rejection_are_rejected() -> None:
    parser = IncrementalParser(refusing)
    for _ in range(3):
        with pytest.raises(CorruptArchive):
            parser.feed(b"four")
