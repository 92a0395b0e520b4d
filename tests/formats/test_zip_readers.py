"""Python reads accepted zips in the same way, and so does the reader of verified files."""

import io
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from archiver.errors import BadArchive, CorruptArchive, NotConvertible
from archiver.formats.member import Member
from archiver.formats.workspace import Workspace
from archiver.formats.zip.file_reader import ZipFileReader
from archiver.formats.zip.writer import ZipWriter
from tests.formats.samples import ROOT
from tests.formats.test_zip_reader import verify_zip
from tests.formats.zip_records import EVIL, TREE, Part, assembled, with_hidden_directory

FULL = (frozenset[int](), frozenset({0}), frozenset({1}), frozenset({2}), frozenset({0, 1, 2}))
LIMIT = 65_535
MANY = (*TREE, *(Part(name=f"{ROOT}/{n}".encode()) for n in range(LIMIT - len(TREE))))


def ours(data: bytes) -> list[tuple[str, bytes]]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        reader = ZipFileReader(file.fileno(), len(data))
        return [
            (entry.name.decode("cp437"), b"".join(reader.iter_content(entry)))
            for _, entry in reader
        ]


def pythons(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.orig_filename, archive.read(info)) for info in archive.infolist()]


@pytest.mark.thorough
@pytest.mark.parametrize("carrier", ("extra", "comment"))
@pytest.mark.parametrize("parts", (TREE, TREE[:1], MANY), ids=("few", "one", "many"))
def test_a_second_directory_that_python_follows_is_refused(
    carrier: str, parts: tuple[Part, ...]
) -> None:
    data = with_hidden_directory(carrier, parts=parts)
    assert [content for _, content in pythons(data)] == [part.content for part in EVIL]
    with pytest.raises(CorruptArchive):
        verify_zip(data)


def test_a_second_directory_that_is_out_of_reach_is_ignored() -> None:
    data = with_hidden_directory("extra", 0)
    assert verify_zip(data).root == ROOT
    assert ours(data) == pythons(data)


@pytest.mark.parametrize("nth", (0, 1))
@pytest.mark.parametrize(
    "comment", (b"\0", b"two\nlines", b"\xc3\xa9", b"PK\6\7", b"x" * 61_441, b"a line")
)
def test_only_the_first_member_may_have_a_comment_and_only_a_plain_line(
    nth: int, comment: bytes
) -> None:
    parts = list(TREE)
    parts[nth] = Part(name=parts[nth].name, content=parts[nth].content, comment=comment)
    data = assembled(tuple(parts))
    if nth == 0 and comment == b"a line":
        assert verify_zip(data).root == ROOT
        return
    with pytest.raises(CorruptArchive, match="comment"):
        verify_zip(data)


@pytest.mark.parametrize("comment", (b"two\nlines", b"\0", b"\xc3\xa9", b"x" * 1025))
def test_an_archive_may_have_only_a_short_plain_line_as_comment(comment: bytes) -> None:
    """The end record is searched for in the last 16 KiB by bsdtar, in the last 64 by others."""
    with pytest.raises(CorruptArchive, match="comment"):
        verify_zip(assembled(TREE, comment=comment))


def test_the_name_of_the_last_member_may_not_look_like_a_locator() -> None:
    """A name has no zeros, so Python finds no second directory there, but fails."""
    name = f"{ROOT}/PK\6\7".encode() + b"x" * 16
    data = assembled((*TREE, Part(name=name)))
    with pytest.raises(zipfile.BadZipFile):
        pythons(data)
    with pytest.raises(CorruptArchive):
        verify_zip(data)
    for parts in ((*TREE, Part(name=name + b"x")), (TREE[0], Part(name=name), TREE[1])):
        harmless = assembled(parts)
        assert verify_zip(harmless).root == ROOT
        assert ours(harmless) == pythons(harmless)


def test_no_zip_is_written_whose_last_name_looks_like_a_locator(tmp_path: Path) -> None:
    with Workspace(folder=tmp_path, max_bytes=1 << 30).spool() as spool:
        writer = ZipWriter(directory=spool)
        writer.start_member(Member(name=b"r/PK\6\7" + b"x" * 7, mode=0o644, mtime=0))
        with pytest.raises(NotConvertible, match="last member"):
            list(writer.finish())


@pytest.mark.thorough
@pytest.mark.parametrize("wide", (False, True))
def test_a_zip_may_have_the_number_of_entries_that_stands_for_64_bits(*, wide: bool) -> None:
    data = assembled(MANY, wide=wide)
    assert verify_zip(data).root == ROOT
    assert len(ours(data)) == len(pythons(data)) == LIMIT


@pytest.mark.parametrize("full", FULL, ids=str)
def test_64_bit_records_are_accepted_even_where_32_bits_suffice(full: frozenset[int]) -> None:
    """Python writes them from 2 GiB on, to an end record that has all the numbers as well."""
    data = assembled(TREE, wide=True, full=full)
    assert verify_zip(data).root == ROOT
    assert ours(data) == pythons(data)
    if full:
        with pytest.raises(CorruptArchive):
            verify_zip(assembled(TREE, full=full))


SAMPLES = (
    assembled(TREE),
    assembled(TREE, wide=True),
    assembled(TREE, comment=b"1" * 40),
    with_hidden_directory("extra", 0),
    with_hidden_directory("extra"),
    with_hidden_directory("comment"),
)
END_BYTES = 22


@pytest.mark.thorough
@settings(max_examples=500)
@given(
    sample=st.sampled_from(SAMPLES),
    back=st.integers(1, 400),
    content=st.binary(min_size=1, max_size=20) | st.sampled_from((b"PK\6\7", b"PK\5\6", b"PK\1\2")),
)
@example(sample=SAMPLES[4], back=1, content=b"\0")
@example(sample=SAMPLES[5], back=1, content=b"\0")
@example(sample=SAMPLES[1], back=END_BYTES + 20, content=b"PK\0\0")
def test_python_reads_the_same_files_from_accepted_zips(
    sample: bytes, back: int, content: bytes
) -> None:
    at = max(0, len(sample) - back)
    data = sample[:at] + content + sample[at + len(content) :]
    try:
        verify_zip(data)
    except BadArchive:
        return
    assert ours(data) == pythons(data)
