"""The headers of a tar: ustar blocks, and extended PAX headers before them.

Format: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html.
"""

from archiver.errors import CorruptArchive

BLOCK = 512
ZEROS = bytes(BLOCK)
"""Two such blocks end a tar."""

EXTENSION_MAX_BYTES = 16 << 10
"""More than the headers with a path of git's maximum length."""

FILE, FOLDER, EXTENDED, GLOBAL = b"0", b"5", b"x", b"g"

_KIND = slice(156, 157)
_SIZE = slice(124, 136)
_CHECKSUM = slice(148, 156)


def kind_of(block: bytes) -> bytes:
    return block[_KIND]


def padded(size_bytes: int) -> int:
    """Return the size of content with its padding."""
    return size_bytes + -size_bytes % BLOCK


def size_of(block: bytes) -> int:
    """Return the size of the content after a ustar header. Raises CorruptArchive."""
    try:
        size = int(block[_SIZE].rstrip(b"\0 "), 8)
    except ValueError as exc:
        raise unexpected() from exc
    if size < 0:
        raise unexpected()
    return size


def extension_size(block: bytes) -> int:
    """Return the size of the records after the header of a PAX header. Raises CorruptArchive."""
    size = size_of(block)
    if size > EXTENSION_MAX_BYTES:
        raise unexpected()
    return size


def extended_header(block: bytes, records: bytes) -> bytes:
    """Return a PAX header with *records*, and the owner and the time of *block*, a ustar header."""
    name = b"././@PaxHeader".ljust(100, b"\0")
    kind = EXTENDED + bytes(100)  # no link
    start = name + block[100:124] + b"%011o\0" % len(records) + block[136:148]
    rest = kind + block[257:345] + bytes(BLOCK - 345)
    checksum = sum(start) + sum(rest) + 8 * ord(" ")
    header = start + b"%06o\0 " % checksum + rest
    return header + records + bytes(-len(records) % BLOCK)


def global_header(comment: bytes) -> bytes:
    """Return the PAX header at the beginning of a tar, with a comment on all of it."""
    records = pax_record(b"comment", comment)
    start = b"pax_global_header".ljust(100, b"\0") + b"0000666\0" + b"0000000\0" * 2
    start += b"%011o\0" % len(records) + b"%011o\0" % 0
    rest = (GLOBAL + bytes(100) + b"ustar\x0000").ljust(BLOCK - 156, b"\0")
    checksum = sum(start) + sum(rest) + 8 * ord(" ")
    return start + b"%06o\0 " % checksum + rest + records + bytes(-len(records) % BLOCK)


def with_size(block: bytes, size_bytes: int) -> bytes:
    """Return a ustar header for content of another size, less than 8 GiB."""
    start = block[: _SIZE.start] + b"%011o\0" % size_bytes + block[_SIZE.stop : _CHECKSUM.start]
    rest = block[_CHECKSUM.stop :]
    return start + b"%06o\0 " % (sum(start) + sum(rest) + 8 * ord(" ")) + rest


def pax_record(keyword: bytes, value: bytes) -> bytes:
    """Return a PAX record, which begins with its own length."""
    rest = b" %s=%s\n" % (keyword, value)
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) > length:
        length += 1
    return b"%d%s" % (length, rest)


def pax_value(records: bytes, keyword: bytes) -> bytes | None:
    """Return the value of *keyword* in PAX records, if it is there. Raises CorruptArchive."""
    at, found = 0, None
    while at < len(records):
        blank = records.find(b" ", at)
        try:
            end = at + int(records[at:blank])
        except ValueError as exc:
            raise unexpected() from exc
        name, equals, value = records[blank + 1 : end - 1].partition(b"=")
        if not at < blank < end <= len(records) or not equals:
            raise unexpected()
        if name == keyword:
            found = value
        at = end
    return found


def unexpected() -> CorruptArchive:
    return CorruptArchive("git did not write the tar that was expected")
