"""Python reads accepted tars in the same way."""

import io
import tarfile
from functools import partial

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from archiver.errors import BadArchive, CorruptArchive
from archiver.formats.archive_tree import ArchiveTree
from archiver.formats.byte_reader import ByteReader, IncrementalParser, Parsing
from archiver.formats.limits import LimitCounter
from archiver.formats.symlinks import SymlinkChecker
from archiver.formats.tar.header import BLOCK, Header
from archiver.formats.tar.reader import parse_tar
from archiver.formats.tar.reader import verify_tar as verify_tar_stream
from archiver.git_objects import TreeHasher
from archiver.model import Limits
from tests.formats.samples import ROOT, an_archive
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


@pytest.mark.thorough
@settings(max_examples=500)
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


@pytest.mark.parametrize("step", (1, 300, 1 << 20))
@pytest.mark.parametrize("size", (1, 3, 511, 513, 1000))
def test_the_padding_of_a_file_must_be_zeros(size: int, step: int) -> None:
    """Other bytes there could be a zip, which readers of zips find from its end."""
    sound = header(size=size) + padded(b"x" * size) + END
    last = 512 + size + -size % 512 - 1
    for at in (512 + size, last):
        data = sound[:at] + b"P" + sound[at + 1 :]
        for hasher in (None, a_hasher()):
            with pytest.raises(CorruptArchive, match="continues after its end"):
                verified(data, step, hasher)
    for hasher in (None, a_hasher()):
        verified(sound, step, hasher)


def a_hasher() -> TreeHasher:
    return TreeHasher(digits=40, subdir=b"", submodules={}, on_entry=lambda *_: None)


def verified(data: bytes, step: int, hasher: TreeHasher | None) -> None:
    tree = ArchiveTree(archive=an_archive("tar"), root=ROOT, identity=None)
    limits, links = LimitCounter(limits=Limits()), SymlinkChecker(refuse_outside=False)
    parser = IncrementalParser(
        partial(verify_tar_stream, tree=tree, limits=limits, links=links, hasher=hasher)
    )
    for at in range(0, len(data), step):
        parser.feed(data[at : at + step])
    parser.close()
