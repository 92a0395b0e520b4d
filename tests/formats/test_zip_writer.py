"""Limits of written zips."""

import asyncio
import zipfile
from pathlib import Path

import pytest

from archiver.errors import NotConvertible
from archiver.formats.member import Member, MemberKind
from archiver.formats.workspace import Workspace
from archiver.formats.zip.file_reader import ZipFileReader
from archiver.formats.zip.writer import PIECE_BYTES, ZipWriter
from archiver.model import Limits
from tests.formats.samples import ROOT, an_archive, verify_chunks


def a_file(name: str, size_bytes: int) -> Member:
    return Member(
        name=f"{ROOT}/{name}".encode(), mode=0o644, mtime=1_700_000_000, size_bytes=size_bytes
    )


@pytest.mark.thorough
def test_a_member_may_have_more_than_4_gib(tmp_path: Path) -> None:
    pieces = (4 << 10) + 1
    zeros = bytes(PIECE_BYTES)
    workspace = Workspace(folder=tmp_path, max_bytes=1 << 40)
    with workspace.spool() as directory, workspace.spool() as spool:
        writer = ZipWriter(directory=directory)
        writer.start_member(a_file("large", pieces * PIECE_BYTES))
        for _ in range(pieces):
            writer.write(zeros)
            spool.write(writer.take_output(1 << 10))
        writer.start_member(a_file("small", 5))
        writer.write(b"small")
        for piece in writer.finish():
            spool.write(piece)

        limits = Limits(ratio=100_000)
        asyncio.run(verify_chunks(an_archive("zip"), spool.iter_pieces(PIECE_BYTES), limits=limits))
        with Path(f"/dev/fd/{spool.descriptor}").open("rb") as file, zipfile.ZipFile(file) as read:
            large, small = read.infolist()
            assert (large.file_size, small.file_size) == (pieces * PIECE_BYTES, 5)
            assert read.read(small) == b"small"
        assert [
            entry.unpacked_bytes for _, entry in ZipFileReader(spool.descriptor, spool.size_bytes)
        ] == [
            pieces * PIECE_BYTES,
            5,
        ]


def test_names_longer_than_a_header_allows_are_rejected(tmp_path: Path) -> None:
    with Workspace(folder=tmp_path, max_bytes=1 << 40).spool() as directory:
        writer = ZipWriter(directory=directory)
        writer.start_member(Member(name=b"n" * 65_535, mode=0o644, mtime=0))
        for kind, size in ((MemberKind.FILE, 65_536), (MemberKind.FOLDER, 65_535)):
            with pytest.raises(NotConvertible, match="nnn"):
                writer.start_member(Member(name=b"n" * size, kind=kind, mode=0o644, mtime=0))
