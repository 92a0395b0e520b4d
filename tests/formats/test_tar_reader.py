"""Dialects of tar, and tars on which readers disagree."""

import tarfile

import pytest

from archiver.errors import CorruptArchive, NotAnArchive, TruncatedArchive, UnsafeMember, WrongRoot
from archiver.formats.tar.extensions import Extensions
from archiver.formats.tar.header import BLOCK
from archiver.formats.tar.reader import EXTENSION_MAX_BYTES
from tests.formats.samples import ROOT, TREE, tar
from tests.formats.tar_blocks import END, LONG, amended, header, padded, pax, record, verify_tar

STYLES = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("style", STYLES)
def test_every_dialect_is_accepted(style: int) -> None:
    assert verify_tar(tar(TREE, style=style)).root == ROOT


@pytest.mark.parametrize("style", (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
def test_long_names_are_read_whole(style: int) -> None:
    assert verify_tar(tar({LONG: b"deep"}, style=style)).root == ROOT
    with pytest.raises(WrongRoot):
        verify_tar(tar({LONG.replace("ash", "oak"): b"deep"}, style=style))


def test_a_name_may_be_split_into_two_fields() -> None:
    name = f"{ROOT}/{'d' * 80}/{'f' * 80}"

    assert verify_tar(tar({name: b"x"}, style=tarfile.USTAR_FORMAT)).root == ROOT


@pytest.mark.parametrize("size", (b"00000000005\0", b"          5 ", b"\x80" + bytes(10) + b"\x05"))
def test_sizes_may_be_octal_or_base_256(size: bytes) -> None:
    assert verify_tar(header(size=size), padded(b"12345"), END).root == ROOT


@pytest.mark.parametrize(
    "size",
    (
        *(b"\xff" * 12, b"\x80" + b"\x7f" * 11, b" " * 12),
        *(b"0000000000x\0", b"-0000000005\0", b"0x000000001\0"),
        *(b"\0" + b"0000001000\0", b"0000\0" + b"001000\0", b"0000 001000\0"),
    ),
)
def test_sizes_that_readers_parse_differently_are_rejected(size: bytes) -> None:
    with pytest.raises(CorruptArchive):
        verify_tar(header(), header(size=size), END)


@pytest.mark.parametrize("at", (100, 108, 116))
@pytest.mark.parametrize(
    "number", (b"\xff" * 8, b"\0" + b"000644\0", b"\x80\0\0\1" + bytes(4), b"00x0644\0")
)
def test_a_mode_or_owner_that_only_some_readers_parse_is_rejected(at: int, number: bytes) -> None:
    with pytest.raises(CorruptArchive):
        verify_tar(header(), amended(header(), at, number), END)


def test_a_size_beyond_the_end_means_truncation() -> None:
    with pytest.raises(TruncatedArchive):
        verify_tar(header(size=bytes((0x80, 0, 0, 0)) + b"\x7f" * 8), END)


def test_pax_overrides_name_and_size_of_the_next_member_only() -> None:
    records = (record(b"path", f"{ROOT}/caf\xe9".encode("latin-1")), record(b"size", b"600"))

    verify_tar(pax(*records), header("elsewhere", 0), padded(bytes(600)), header(), END)
    with pytest.raises(WrongRoot):
        verify_tar(pax(*records), header(), padded(bytes(600)), header("elsewhere"), END)


def test_a_global_pax_header_cannot_set_a_name_or_size() -> None:
    verify_tar(pax(record(b"comment", b"f" * 40), kind=b"g"), header(), END)
    for keyword in (b"path", b"linkpath", b"size"):
        with pytest.raises(CorruptArchive, match="all members"):
            verify_tar(pax(record(keyword, b"1"), kind=b"g"), header(), END)


@pytest.mark.parametrize(
    "data",
    (
        b"nonsense",
        b"0 =\n",
        b"5 a=\n6 b",
        b"99 path=x\n",
        b"10 path=x\n" + b"\0" * 3,
        b"8 path x\n",
        b"12 path=xxxx ",
        record(b"size", b"-1"),
        record(b"size", b"9" * 5000),
        record(b"size", b""),
        record(b"mtime", b"nan"),
        record(b"mtime", b"1.5.5"),
        record(b"atime", b""),
    ),
)
def test_an_invalid_pax_header_is_rejected(data: bytes) -> None:
    with pytest.raises(CorruptArchive):
        verify_tar(pax(data), header(), END)


@pytest.mark.parametrize("kind", (b"x", b"g", b"L", b"K"))
def test_a_huge_extension_header_is_rejected(kind: bytes) -> None:
    with pytest.raises(CorruptArchive):
        verify_tar(header(size=EXTENSION_MAX_BYTES + 1, kind=kind), END)


def test_a_long_link_does_not_change_the_name() -> None:
    target = padded(b"/etc/passwd\0")

    assert verify_tar(header("././@LongLink", 12, b"K"), target, header(), END).root == ROOT


@pytest.mark.parametrize("kind", (b"3", b"4", b"6"))
def test_devices_are_rejected(kind: bytes) -> None:
    with pytest.raises(UnsafeMember, match="device"):
        verify_tar(header(kind=kind), END)


@pytest.mark.parametrize("kind", (b"2", b"5"))
def test_links_and_folders_with_a_size_are_rejected(kind: bytes) -> None:
    assert verify_tar(header(kind=kind, link="README"), END).root == ROOT
    for sized in (
        header(size=BLOCK, kind=kind, link="README"),
        pax(record(b"size", b"512")) + header(kind=kind, link="README"),
    ):
        with pytest.raises(CorruptArchive, match="has a size"):
            verify_tar(header(f"{ROOT}/README"), sized, header("../../etc/passwd"), END)


@pytest.mark.parametrize(
    "mode", (b"0004755\0", b"0102755\0", b"0001777\0", b"00004755", b"  4755 \0")
)
def test_special_bits_are_rejected(mode: bytes) -> None:
    assert verify_tar(amended(header(), 100, b"0100755\0"), END).root == ROOT
    with pytest.raises(UnsafeMember, match="set-uid"):
        verify_tar(amended(header(), 100, mode), END)


@pytest.mark.parametrize("kind", (b"S", b"M", b"X", b"7", b"p", b" ", b"\xff"))
def test_members_of_other_kinds_are_rejected(kind: bytes) -> None:
    with pytest.raises(CorruptArchive):
        verify_tar(header(kind=kind), END)


def test_a_folder_may_be_the_root_itself() -> None:
    assert verify_tar(header(f"{ROOT}/", kind=b"5"), header(), END).root == ROOT


def test_a_header_with_a_wrong_checksum_is_rejected() -> None:
    with pytest.raises(CorruptArchive):
        verify_tar(header(), header(checksum=b"000001\0 "), END)


def test_bytes_that_do_not_begin_with_a_header_are_not_a_tar() -> None:
    with pytest.raises(NotAnArchive):
        verify_tar(b"SQLite format 3\0" * 100)


def test_a_stream_cut_between_two_members_is_rejected() -> None:
    with pytest.raises(TruncatedArchive):
        verify_tar(header(), header())


def test_one_block_of_zeros_is_not_the_end() -> None:
    with pytest.raises(TruncatedArchive):
        verify_tar(header(), bytes(BLOCK))
    with pytest.raises(CorruptArchive):
        verify_tar(header(), bytes(BLOCK), header(), END)


def test_only_zeros_may_follow_the_end() -> None:
    assert verify_tar(header(), END, bytes(9000)).root == ROOT
    with pytest.raises(CorruptArchive):
        verify_tar(header(), END, bytes(9000), b"x")


@pytest.mark.parametrize("target", (f"{ROOT}/README", f"{ROOT}/later", "/etc/passwd", ""))
def test_hard_links_are_rejected(target: str) -> None:
    with pytest.raises(UnsafeMember, match="hard link"):
        verify_tar(header(f"{ROOT}/README"), header(kind=b"1", link=target), END)


def test_a_links_target_may_be_in_an_extension_header() -> None:
    for before in (
        pax(record(b"linkpath", b"/etc/passwd")),
        header("././@LongLink", 12, b"K") + padded(b"/etc/passwd\0"),
    ):
        assert verify_tar(before + header(kind=b"0"), END).links_outside == 0
        assert verify_tar(before + header(kind=b"2"), END).links_outside == 1


@pytest.mark.parametrize("kind", (b"L", b"K"))
def test_a_long_name_must_not_continue_after_its_header(kind: bytes) -> None:
    name = f"{ROOT}/file".encode()
    goes_on = header("././@LongLink", len(name), kind) + padded(name + b"/../../../etc/passwd")
    ends = header("././@LongLink", len(name), kind) + padded(name)

    assert verify_tar(ends, header(), END).root == ROOT
    with pytest.raises(CorruptArchive):
        verify_tar(goes_on, header(), END)


def announcements(kinds: bytes) -> bytes:
    """Return a header of each of these *kinds*, without effect on the next member."""
    said = {b"g": record(b"comment", b"c"), b"x": record(b"mtime", b"1"), b"K": b"README\0"}
    data = [(bytes((k,)), said.get(bytes((k,)), f"{ROOT}/file\0".encode())) for k in kinds]
    return b"".join(header("pax", len(d), kind) + padded(d) for kind, d in data)


@pytest.mark.parametrize("kinds", (b"g", b"x", b"gx", b"L", b"K", b"KL", b"LK", b"gKL"))
def test_header_sequences_of_real_writers_are_accepted(kinds: bytes) -> None:
    twice = (announcements(kinds) + header()) * 2

    assert verify_tar(twice, END).root == ROOT


@pytest.mark.parametrize(
    "kinds",
    (b"xx", b"LL", b"KK", b"gg", b"xL", b"Lx", b"xK", b"Kx", b"xg", b"Lg", b"xgx", b"LKL", b"gxx"),
)
def test_header_sequences_that_readers_combine_differently_are_rejected(kinds: bytes) -> None:
    with pytest.raises(CorruptArchive, match="no host writes together"):
        verify_tar(announcements(kinds), header(), END)


@pytest.mark.parametrize(
    "first",
    (record(b"size", b"1024"), record(b"path", f"{ROOT}/x".encode()), record(b"linkpath", b"x")),
)
def test_a_second_pax_header_cannot_hide_the_first_one(first: bytes) -> None:
    """GNU tar and bsdtar ignore the first one, and would read the content as members."""
    second = pax(record(b"mtime", b"1"))
    smuggled = header("../../etc/passwd") * 2

    with pytest.raises(CorruptArchive, match="no host writes together"):
        verify_tar(pax(first), second, header(), smuggled, END)


WRITTEN = {
    b"path": f"{ROOT}/file".encode(),
    b"linkpath": b"README",
    b"size": b"0",
    b"mtime": b"-1.5",
    b"atime": b"1700000000.000000001",
    b"ctime": b"1",
    b"uid": b"4294967294",
    b"gid": b"0",
    b"uname": "jürgen".encode(),
    b"gname": b"",
    b"comment": b"0123456789abcdef0123456789abcdef01234567",
    b"hdrcharset": b"BINARY",
}


def test_pax_records_of_real_hosts_are_accepted() -> None:
    records = (record(keyword, value) for keyword, value in WRITTEN.items())

    assert verify_tar(pax(*records), header(), END).root == ROOT


@pytest.mark.parametrize("kind", (b"x", b"g"))
@pytest.mark.parametrize(
    "keyword",
    (
        *("SCHILY.realsize", "SCHILY.xattr.security.capability", "SCHILY.acl.access"),
        *("LIBARCHIVE.symlinktype", "LIBARCHIVE.xattr.x", "GNU.sparse.name", "GNU.sparse.realsize"),
        *("RHT.security.selinux", "SUN.holesdata", "Path", "filetype", ""),
    ),
)
def test_other_pax_records_are_rejected(keyword: str, kind: bytes) -> None:
    """One of them is a size that only bsdtar applies: it would create a file of 10 GB."""
    with pytest.raises(CorruptArchive, match="no host writes"):
        verify_tar(pax(record(keyword.encode(), b"10000000000"), kind=kind), header(), END)


@pytest.mark.parametrize(
    ("keyword", "value"),
    (
        *((b"uid", b"-1"), (b"gid", b"x"), (b"hdrcharset", b"UTF-16"), (b"atime", b"1e9")),
        *((b"uid", b"%d" % (1 << 32)), (b"gid", b"9" * 19), (b"size", b"%d" % (1 << 63))),
        *(
            (b"mtime", b"9" * 19),
            (b"ctime", b"-9223372036854775808"),
            (b"atime", b"1." + b"9" * 99),
        ),
        *((b"uname", b"a\0b"), (b"gname", b"\0"), (b"comment", b"\0"), (b"path", b"\0")),
    ),
)
def test_invalid_pax_values_are_rejected(keyword: bytes, value: bytes) -> None:
    with pytest.raises(CorruptArchive, match="damaged"):
        verify_tar(pax(record(keyword, value)), header(), END)


@pytest.mark.parametrize(
    ("keyword", "values"),
    ((b"path", (b"a", b"b")), (b"uid", (b"1", b"1")), (b"comment", (b"", b""))),
)
def test_a_pax_keyword_may_occur_only_once(keyword: bytes, values: tuple[bytes, ...]) -> None:
    """Otherwise a header of 64 KiB has 8,000 records, and an archive of 132 kB takes 28 s."""
    records = [record(keyword, value) for value in values]

    with pytest.raises(CorruptArchive, match="one keyword twice"):
        verify_tar(pax(*records), header(), END)


def test_a_prefix_without_a_name_is_rejected() -> None:
    """GNU tar and bsdtar treat it as a folder, and its content as members."""
    end = b"ustar\x0000".ljust(345 - 257, b"\0")
    prefix = f"{ROOT}/file".encode()

    assert verify_tar(header("file", end=end + ROOT.encode()), END).root == ROOT
    with pytest.raises(CorruptArchive):
        verify_tar(header(), header("", BLOCK, end=end + prefix), header("../../x"), END)


@pytest.mark.parametrize("magic", (b"ustar  \0", bytes(8)))
def test_a_name_in_fields_that_only_some_readers_use_is_rejected(magic: bytes) -> None:
    assert verify_tar(header(end=magic), END).root == ROOT
    with pytest.raises(CorruptArchive):
        verify_tar(header(), header(end=magic + bytes(80) + b"../.."), END)


@pytest.mark.parametrize(
    ("magic", "at"),
    ((b"ustar  \0", 386), (b"ustar  \0", 483), (bytes(8), 500), (b"ustar\x0000", 508)),
)
def test_fields_that_only_some_readers_use_must_be_empty(magic: bytes, at: int) -> None:
    """The map of a sparse file, its size, and a marker for another prefix."""
    end = magic.ljust(at - 257, b"\0") + b"tar\0"

    with pytest.raises(CorruptArchive):
        verify_tar(header(), header(end=end), END)


@pytest.mark.parametrize("kind", (b"x", b"g", b"L", b"K"))
def test_an_extension_header_requires_a_member(kind: bytes) -> None:
    data = record(b"comment", b"x") if kind in b"xg" else b"x\0"

    with pytest.raises(CorruptArchive):
        verify_tar(header(), header("pax", len(data), kind), padded(data), END)


def test_only_relevant_global_records_are_kept() -> None:
    extensions = Extensions()

    for number in range(100):
        extensions.add(ord("g"), record(b"comment", b"%d" % number) + record(b"mtime", b"1"))

    assert extensions.all == {b"mtime": b"1"}


def test_a_file_named_like_a_folder_is_rejected() -> None:
    """GNU tar and bsdtar create a folder, Python a file."""
    name = f"{ROOT}/d/"
    long_name = header("././@LongLink", len(name) + 1, b"L") + padded(name.encode())

    for before in (b"", pax(record(b"path", name.encode())), long_name):
        for size in (0, BLOCK):
            with pytest.raises(CorruptArchive, match="folder"):
                verify_tar(before, header(name, size), bytes(size), END)
    with pytest.raises(CorruptArchive, match="folder"):
        verify_tar(long_name, header(f"{ROOT}/d", kind=b"\0"), END)


def test_a_folder_from_before_ustar_has_no_content() -> None:
    """Python and GNU tar would continue after its header, where another one could be."""
    name = f"{ROOT}/folder/"

    assert verify_tar(header(name, kind=b"\0", end=bytes(8)), END).root == ROOT
    with pytest.raises(CorruptArchive, match="folder"):
        verify_tar(header(name, BLOCK, kind=b"\0"), header("../../etc/passwd"), END)


def test_the_block_of_a_file_with_a_longer_name_may_end_with_a_slash() -> None:
    long_name = header("././@LongLink", len(ROOT) + 6, b"L") + padded(f"{ROOT}/file\0".encode())
    longer = pax(record(b"path", f"{ROOT}/file".encode()))

    for before in (long_name, longer):
        assert verify_tar(before, header(f"{ROOT}/d/", BLOCK), bytes(BLOCK), END).root == ROOT
        for size in (0, BLOCK):  # before ustar, Python treats it as a folder
            with pytest.raises(CorruptArchive, match="folder"):
                verify_tar(before, header(f"{ROOT}/d/", size, b"\0"), bytes(size), END)
