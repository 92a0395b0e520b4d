"""Reads the records after a zip's directory, and checks that they point back to it."""

from typing import TypeAlias

from archiver.errors import CorruptArchive
from archiver.formats.byte_reader import ByteReader, Parsing
from archiver.formats.zip.entries import multiple_disks_error
from archiver.formats.zip.records import (
    END,
    END_64,
    END_64_FIELDS,
    END_FIELDS,
    FULL_16,
    FULL_32,
    LOCATOR_64,
    LOCATOR_64_FIELDS,
)

Directory: TypeAlias = tuple[int, int, int, int, int]
"""As in the end record: disk numbers, number of entries (twice), size and offset."""


def read_directory_end(reader: ByteReader, signature: bytes, directory: Directory) -> Parsing:
    """Read the end records, of which the first *signature* was read already.

    Raises:
        CorruptArchive: They do not describe *directory*.
    """
    zip64 = signature == END_64
    if zip64:
        yield from _read_zip64_end(reader, directory)
        signature = yield from reader.read_exactly(4)
    if signature != END:
        raise CorruptArchive("the zip has no end record after its directory")
    block = yield from reader.read_exactly(END_FIELDS.size)
    *stated, comment_size = END_FIELDS.unpack(block)
    full = (FULL_32, FULL_16, FULL_16, FULL_32, FULL_32)
    for value, actual, in_zip64 in zip(stated, directory, full, strict=True):
        if value != actual and not (zip64 and value == in_zip64):
            raise _mismatch()
    comment = yield from reader.read_exactly(comment_size)
    # Readers search for the record from the end of the file, and may find another one.
    if comment and END in block + comment:
        raise CorruptArchive("the zip's comment contains the signature of an end record")


def _read_zip64_end(reader: ByteReader, directory: Directory) -> Parsing:
    offset = reader.position - 4
    rest_size, _, _, *stated = END_64_FIELDS.unpack(
        (yield from reader.read_exactly(END_64_FIELDS.size))
    )
    if rest_size != END_64_FIELDS.size - 8 or tuple(stated) != directory:
        raise _mismatch()
    signature = yield from reader.read_exactly(4)
    disk, end_offset, disks = LOCATOR_64_FIELDS.unpack(
        (yield from reader.read_exactly(LOCATOR_64_FIELDS.size))
    )
    if signature != LOCATOR_64 or end_offset != offset:
        raise _mismatch()
    if disk or disks != 1:
        raise multiple_disks_error()


def _mismatch() -> CorruptArchive:
    return CorruptArchive("the zip's end record does not match its directory")
