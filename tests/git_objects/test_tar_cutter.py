"""Tars of git that are cut at the members to replace, however their bytes arrive."""

import io
import tarfile
from pathlib import Path
from random import Random

import pytest

from archiver.errors import CorruptArchive
from archiver.git_objects.tar_blocks import global_header, pax_record, pax_value, with_size
from archiver.git_objects.tar_cutter import Gap, Piece, TarCutter
from tests.git_repositories import Files, GitRepository, create, submodule

NODE = "1" * 40
LONG = "long/" * 40 + "file"
FILES: Files = {
    "a.bin": b"pointer\n",
    "b": b"b" * 3000,
    LONG: b"pointer of a long path\n",
    "lib": submodule(NODE),
    "long-module/" + "m" * 150: submodule(NODE),
    "z": b"last\n",
}
GAPS = frozenset({b"r/lib", b"r/long-module/" + b"m" * 150})
SIZES = {b"r/a.bin": 5, f"r/{LONG}".encode(): 1000}


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return create(tmp_path / "repository.git")


def packed(repository: GitRepository, *paths: str) -> bytes:
    node = repository.commit(FILES)
    return repository.git_bytes("archive", "--format=tar", "--prefix=r/", node, "--", *paths)


def cut(tar: bytes, cutter: TarCutter, *sizes: int) -> list[Piece]:
    """Return all pieces, with adjacent bytes joined."""
    found: list[Piece] = []
    at = 0
    for size in (*sizes, len(tar)):
        found += cutter.feed(tar[at : at + size])
        at += size
    cutter.finish()
    joined: list[Piece] = []
    for piece in found:
        if joined and not isinstance(piece, Gap) and not isinstance(joined[-1], Gap):
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def filled(pieces: list[Piece]) -> tarfile.TarFile:
    """Return the tar with the letter x in the gaps of files, and nothing in those of folders."""
    data = b""
    for piece in pieces:
        data += b"x" * SIZES.get(piece.name, 0) if isinstance(piece, Gap) else piece
    return tarfile.open(fileobj=io.BytesIO(data + bytes(1024)), mode="r:")


def test_gaps_are_where_the_replaced_members_were(repository: GitRepository) -> None:
    pieces = cut(packed(repository), TarCutter(folders=GAPS, sizes=SIZES))
    assert [piece.name for piece in pieces if isinstance(piece, Gap)] == [
        b"r/a.bin",
        b"r/lib",
        b"r/long-module/" + b"m" * 150,
        f"r/{LONG}".encode(),
    ]
    tar = filled(pieces)
    contents = {each.name: file.read() for each in tar if (file := tar.extractfile(each))}
    assert contents == {
        "r/a.bin": b"x" * 5,
        "r/b": b"b" * 3000,
        f"r/{LONG}": b"x" * 1000,
        "r/z": b"last\n",
    }


def test_the_first_member_gets_the_comment_and_the_global_header_is_left_out(
    repository: GitRepository,
) -> None:
    pieces = cut(packed(repository), TarCutter(folders=GAPS, sizes=SIZES, comment=b"comment of r"))
    tar = filled(pieces)
    first, *others = tar.getmembers()
    assert first.name == "r"
    assert first.pax_headers["comment"] == "comment of r"
    assert not any("comment" in each.pax_headers for each in others)
    assert not tar.pax_headers


def test_the_folders_above_a_path_are_left_out(repository: GitRepository) -> None:
    tar = packed(repository, "long/long")
    pieces = cut(tar, TarCutter(sizes=SIZES, comment=b"c", above=2))
    assert filled(pieces).getnames()[0] == "r/long/long"


def test_a_single_file_may_be_replaced_and_commented(repository: GitRepository) -> None:
    pieces = cut(packed(repository, LONG), TarCutter(sizes=SIZES, comment=b"c", above=41))
    (member,) = filled(pieces).getmembers()
    assert (member.name, member.size) == (f"r/{LONG}", 1000)
    assert member.pax_headers["comment"] == "c"


@pytest.mark.parametrize("seed", range(20))
def test_the_sizes_of_chunks_make_no_difference(repository: GitRepository, seed: int) -> None:
    tar = packed(repository)
    cutter = TarCutter(folders=GAPS, sizes=SIZES, comment=b"c" * 700)
    whole = cut(tar, cutter)
    random = Random(seed)  # noqa: S311 - chooses sizes
    sizes = [random.choice((1, 7, 100, 511, 512, 513, 1024, 5000)) for _ in range(len(tar))]
    assert cut(tar, TarCutter(folders=GAPS, sizes=SIZES, comment=b"c" * 700), *sizes) == whole


def test_a_tar_that_breaks_off_is_refused(repository: GitRepository) -> None:
    tar = packed(repository)
    end = len(tar.rstrip(b"\0"))
    for size in (0, 100, 512, 2000, end - 1, end + 511 - end % 512):
        cutter = TarCutter(folders=GAPS)
        cutter.feed(tar[:size])
        with pytest.raises(CorruptArchive):
            cutter.finish()


def test_headers_that_git_does_not_write_are_refused(repository: GitRepository) -> None:
    tar = packed(repository)
    with pytest.raises(CorruptArchive):
        TarCutter().feed(b"x" * 512)
    huge = with_size(tar[:512], 1 << 20)
    with pytest.raises(CorruptArchive):
        TarCutter().feed(huge + tar[512:])
    with pytest.raises(CorruptArchive):
        cut(tar, TarCutter(above=5))


def test_a_file_of_8_gib_gets_a_record_of_its_size(repository: GitRepository) -> None:
    size = 8**11 + 3
    pieces = TarCutter(sizes={b"r/a.bin": size}).feed(packed(repository))
    assert pieces[2] == Gap(b"r/a.bin")
    head = b"".join(piece for piece in pieces[:2] if not isinstance(piece, Gap))
    with tarfile.open(fileobj=io.BytesIO(head), mode="r:") as tar:
        assert tar.next()
        member = tar.next()
    assert member
    assert (member.name, member.size) == ("r/a.bin", size)


def test_a_global_header_is_read_by_others() -> None:
    info = tarfile.TarInfo("a")
    data = global_header(NODE.encode()) + info.tobuf() + bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        assert tar.pax_headers == {"comment": NODE}
        assert tar.getnames() == ["a"]


def test_pax_records_are_found_by_their_keyword() -> None:
    records = (
        pax_record(b"path", b"a=b\nc") + pax_record(b"size", b"12") + pax_record(b"path", b"d")
    )
    assert pax_value(records, b"size") == b"12"
    assert pax_value(records, b"path") == b"d"
    assert pax_value(records, b"mtime") is None
    for broken in (b"x", b"5 a\n", b"99 path=a\n", b" 1=2\n", b"-3 a=b\n"):
        with pytest.raises(CorruptArchive):
            pax_value(broken, b"path")
