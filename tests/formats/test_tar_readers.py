"""Python reads accepted tars in the same way."""

import io
import tarfile
from functools import partial

from hypothesis import example, given, settings
from hypothesis import strategies as st

from archiver.errors import BadArchive
from archiver.formats.byte_reader import ByteReader, IncrementalParser, Parsing
from archiver.formats.tar.header import BLOCK, Header
from archiver.formats.tar.reader import parse_tar
from tests.formats.samples import ROOT
from tests.formats.tar_blocks import END, LONG, amended, header, padded, pax, record, verify_tar

EACH_KIND = (
    header(f"{ROOT}/", kind=b"5"),
    header(size=3) + padded(b"abc"),
    header("././@LongLink", len(LONG) + 1, b"L") + padded(LONG.encode()),
    header(LONG[:90]),
    pax(record(b"path", LONG.encode() * 2), record(b"mtime", b"1.5")),
    header(LONG[:90], 3) + padded(b"abc"),
    header(f"{ROOT}/link", kind=b"2", link="file"),
)


@settings(max_examples=500, deadline=None)
@given(
    nth=st.integers(0, 6),
    at=st.integers(0, BLOCK - 1),
    content=st.binary(min_size=1, max_size=16) | st.text("01 7/.\0", min_size=1).map(str.encode),
)
@example(nth=1, at=124, content=b"\0" + b"0000001000\0")  # a size after the end of a number
@example(nth=1, at=329, content=b"none")  # a device's number, where there is no device
@example(nth=2, at=124, content=b"00000000004\0")  # a long name that continues after its end
@example(nth=5, at=156, content=b"7")
def test_python_reads_the_same_members_from_accepted_tars(
    nth: int, at: int, content: bytes
) -> None:
    data = b"".join((*EACH_KIND[:nth], amended(EACH_KIND[nth], at, content)))
    data += b"".join((*EACH_KIND[nth + 1 :], END))
    try:
        verify_tar(data)
    except BadArchive:
        return

    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as archive:
        theirs = [name.encode(errors="surrogateescape") for name in archive.getnames()]
    assert [name.rstrip(b"/") for name in theirs] == names(data)


def names(data: bytes) -> list[bytes]:
    found = []

    def read_member(reader: ByteReader, header: Header) -> Parsing:
        found.append(header.name.rstrip(b"/"))
        return reader.skip(header.unread_bytes)

    parser = IncrementalParser(partial(parse_tar, read_member=read_member))
    parser.feed(data)
    parser.close()
    return found
