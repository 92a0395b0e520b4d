"""Dialects of zip, and zips on which readers disagree."""

import asyncio
import io
import stat
import struct
import zipfile
from zlib import crc32

import pytest

from archiver.errors import (
    ArchiveTooLarge,
    BadArchive,
    CorruptArchive,
    NotAnArchive,
    TruncatedArchive,
    UnsafeMember,
)
from archiver.formats.zip.extraction_paths import HELD_MAX_BYTES, ExtractionPaths
from archiver.model import Verified
from tests.formats.samples import ROOT, TREE, an_archive, verify_chunks, zipped

END_BYTES = 22


def verify_zip(data: bytes) -> Verified:
    return asyncio.run(verify_chunks(an_archive("zip"), [data]))


@pytest.mark.parametrize("seekable", (True, False))
@pytest.mark.parametrize("wide", (True, False))
def test_sizes_may_be_before_or_after_a_member_and_have_64_bits(seekable: bool, wide: bool) -> None:  # noqa: FBT001 - parametrized
    data = zipped(seekable=seekable, wide=wide)

    assert verify_zip(data).size_bytes == len(data)


def test_members_may_be_stored_if_their_sizes_are_in_the_local_header() -> None:
    assert verify_zip(zipped(method=zipfile.ZIP_STORED, seekable=True)).root == ROOT
    with pytest.raises(CorruptArchive):
        verify_zip(zipped(method=zipfile.ZIP_STORED, seekable=False))


@pytest.mark.parametrize("method", (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
def test_other_compression_methods_are_rejected(method: int) -> None:
    with pytest.raises(CorruptArchive):
        verify_zip(zipped(method=method))


@pytest.mark.parametrize("at", (14, 18, 22))
def test_the_local_header_must_agree_with_the_descriptor(at: int) -> None:
    """Zeros are allowed. Readers of streams use these sizes."""
    data = bytearray(zipped({f"{ROOT}/a": b"a", f"{ROOT}/b": b"b"}, seekable=False))
    behind = data.index(b"PK\x07\x08") + at - 10
    data[at : at + 4] = data[behind : behind + 4]
    lying = bytearray(data)
    lying[at] ^= 0x55

    assert verify_zip(bytes(data)).root == ROOT
    with pytest.raises(CorruptArchive):
        verify_zip(bytes(lying))


@pytest.mark.parametrize(
    ("record", "at"), ((b"PK\x01\x02", 34), (b"PK\x05\x06", 4), (b"PK\x05\x06", 6))
)
def test_a_zip_on_several_disks_is_rejected(record: bytes, at: int) -> None:
    data = bytearray(zipped())
    data[data.index(record) + at] = 1

    with pytest.raises(CorruptArchive):
        verify_zip(bytes(data))


def test_a_descriptor_without_signature_is_accepted() -> None:
    data = zipped({f"{ROOT}/README": b"read me"})
    at = data.index(b"PK\x07\x08")
    end = len(data) - END_BYTES
    (offset,) = struct.unpack_from("<I", data, end + 16)
    shorter = data[:at] + data[at + 4 : end + 16] + struct.pack("<I", offset - 4) + data[end + 20 :]

    assert verify_zip(shorter).size_bytes == len(data) - 4


def test_a_directory_with_64_bit_numbers_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    data = zipped(wide=True)

    assert b"PK\x06\x06" in data
    assert verify_zip(data).size_bytes == len(data)
    for position in range(data.index(b"PK\x06\x06"), len(data)):
        _expect_refusal_unless_spare(data, position)


def _expect_refusal_unless_spare(data: bytes, position: int) -> None:
    """Damage a byte of the end records. Only the versions cannot be checked."""
    damaged = bytearray(data)
    damaged[position] ^= 0x55
    start = data.index(b"PK\x06\x06")
    spare = range(start + 12, start + 16)
    if position not in spare:
        with pytest.raises(BadArchive):
            verify_zip(bytes(damaged))


def test_a_comment_is_part_of_the_end_record() -> None:
    data = zipped(comment=b"0123456789abcdef")

    assert verify_zip(data).size_bytes == len(data)
    with pytest.raises(TruncatedArchive):
        verify_zip(data[:-1])
    with pytest.raises(CorruptArchive):
        verify_zip(data + b"!")


@pytest.mark.parametrize("before", (0, 15, 18))
def test_a_comment_that_contains_an_end_record_is_rejected(before: int) -> None:
    """Most readers use the last record that looks like an end record, wherever it is."""
    end = b"PK\x05\x06" + bytes(18)
    data = zipped(comment=b" " * before + end)

    with pytest.raises(CorruptArchive, match="comment"):
        verify_zip(data)


def unicode_path(name: str) -> bytes:
    stated = name.encode()
    return struct.pack("<HHBI", 0x7075, 5 + len(stated), 1, crc32(f"{ROOT}/a".encode())) + stated


@pytest.mark.parametrize("other", (b"", struct.pack("<HHI", 0xCAFE, 4, 0)))
def test_a_unicode_path_field_is_rejected(other: bytes) -> None:
    info = zipfile.ZipInfo(f"{ROOT}/a")
    info.extra = other + unicode_path("../../etc/passwd")

    with pytest.raises(CorruptArchive, match="two names"):
        verify_zip(zipped_one(info))


def test_fields_that_resemble_a_unicode_path_are_accepted() -> None:
    info = zipfile.ZipInfo(f"{ROOT}/a")
    info.extra = struct.pack("<HHH", 0xCAFE, 2, 0x7075)

    assert verify_zip(zipped_one(info)).root == ROOT


def test_a_name_marked_as_utf_8_must_be_utf_8() -> None:
    data = zipped({f"{ROOT}/caf\xe9": b""})

    assert verify_zip(data).root == ROOT
    with pytest.raises(CorruptArchive, match="UTF-8"):
        verify_zip(data.replace("\xe9".encode(), b"\xe9\xe9"))


@pytest.mark.parametrize("kind", (0x5455, 0xCAFE))
def test_extra_fields_must_end_with_the_header(kind: int) -> None:
    info = zipfile.ZipInfo(f"{ROOT}/a")
    info.extra = struct.pack("<HH5x", kind, 5)
    sound = zipped_one(info)

    assert verify_zip(sound).root == ROOT
    for at in (sound.index(info.extra), sound.rindex(info.extra)):
        for size in (b"\x03", b"\x06"):
            with pytest.raises(CorruptArchive):
                verify_zip(sound[: at + 2] + size + sound[at + 3 :])


@pytest.mark.parametrize("kind", (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO))
def test_devices_are_rejected(kind: int) -> None:
    info = zipfile.ZipInfo(f"{ROOT}/null")
    info.external_attr = (kind | 0o666) << 16

    with pytest.raises(UnsafeMember, match="device"):
        verify_zip(zipped_one(info))


@pytest.mark.parametrize("mode", (0o104755, 0o102755, 0o041777))
def test_special_bits_are_rejected(mode: int) -> None:
    info = zipfile.ZipInfo(f"{ROOT}/tool")
    info.external_attr = mode << 16

    with pytest.raises(UnsafeMember, match="set-uid"):
        verify_zip(zipped_one(info))


def test_a_link_from_a_system_without_links_is_rejected() -> None:
    info = zipfile.ZipInfo(f"{ROOT}/link")
    info.create_system, info.external_attr = 0, (stat.S_IFLNK | 0o777) << 16

    with pytest.raises(CorruptArchive, match="system"):
        verify_zip(zipped_one(info))


@pytest.mark.parametrize("kind", (0x6C78, 0x756E, 0x4341, 0x6375))
@pytest.mark.parametrize("place", ("local", "central"))
def test_extra_fields_that_only_some_readers_apply_are_rejected(kind: int, place: str) -> None:
    info = zipfile.ZipInfo(f"{ROOT}/a")
    info.extra = struct.pack("<HHI", 0xCAFE, 4, 0)
    data = zipped_one(info)
    found = data.index if place == "local" else data.rindex
    at = found(info.extra)

    with pytest.raises(CorruptArchive, match="only some readers"):
        verify_zip(data[:at] + struct.pack("<H", kind) + data[at + 2 :])


def test_extra_fields_that_zip_and_bsdtar_and_java_write_are_accepted() -> None:
    info = zipfile.ZipInfo(f"{ROOT}/a")
    info.extra = struct.pack("<HHBIII", 0x5455, 13, 7, 1, 2, 3)
    info.extra += struct.pack("<HHBBIBI", 0x7875, 11, 1, 4, 0, 4, 0)
    info.extra += struct.pack("<HH", 0xCAFE, 0)

    assert verify_zip(zipped_one(info)).root == ROOT


def test_an_extra_field_may_occur_only_once() -> None:
    info = zipfile.ZipInfo(f"{ROOT}/a")
    info.extra = 2 * struct.pack("<HHI", 0xCAFE, 4, 0)

    with pytest.raises(CorruptArchive, match="two extra fields"):
        verify_zip(zipped_one(info))


FILE, FOLDER = f"{ROOT}/a", f"{ROOT}/a/"


@pytest.mark.parametrize(
    ("name", "attributes"),
    (
        (FILE, stat.S_IFDIR << 16),
        (FILE, 0x10),
        (FILE, 0x08),
        (FILE, stat.S_IFSOCK << 16),
        (FILE, 0o030000 << 16),
        (FILE, 0o170000 << 16),
        (FOLDER, stat.S_IFREG << 16),
        (FOLDER, stat.S_IFLNK << 16),
    ),
)
def test_a_member_on_whose_kind_readers_disagree_is_rejected(name: str, attributes: int) -> None:
    info = zipfile.ZipInfo(name)
    info.external_attr = attributes | 0o644 << 16

    with pytest.raises(CorruptArchive, match="some readers"):
        verify_zip(zipped_one(info))


@pytest.mark.parametrize(
    ("name", "attributes"),
    ((FILE, 0x21), (FILE, stat.S_IFREG << 16), (FOLDER, 0x10), (FOLDER, stat.S_IFDIR << 16)),
)
def test_a_member_of_unambiguous_kind_is_accepted(name: str, attributes: int) -> None:
    info = zipfile.ZipInfo(name)
    info.external_attr = attributes | 0o644 << 16

    assert verify_zip(zipped_one(info)).root == ROOT


def test_a_folder_with_content_is_rejected() -> None:
    with pytest.raises(UnsafeMember, match="folder"):
        verify_zip(zipped({FOLDER: b"data"}))


def test_a_member_that_needs_a_newer_version_is_rejected() -> None:
    info = zipfile.ZipInfo(FILE)
    info.extract_version = 46
    assert verify_zip(zipped_one(info)).root == ROOT
    info.extract_version = 47
    with pytest.raises(CorruptArchive, match="version"):
        verify_zip(zipped_one(info))


def zipped_one(info: zipfile.ZipInfo) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, b"")
    return buffer.getvalue()


def test_folders_are_members() -> None:
    assert verify_zip(zipped({f"{ROOT}/": b"", **TREE})).root == ROOT


def test_a_zip_without_members_is_rejected() -> None:
    with pytest.raises(NotAnArchive):
        verify_zip(zipped({}))


def test_a_member_missing_from_the_directory_is_rejected() -> None:
    data = zipped({f"{ROOT}/a": b"a", f"{ROOT}/b": b"b"})
    start = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", start + 1)
    end = len(data) - END_BYTES
    counts = struct.pack("<HHII", 1, 1, end - second, start)
    shorter = data[:start] + data[second:end] + data[end : end + 8] + counts + data[-2:]

    with pytest.raises(CorruptArchive):
        verify_zip(shorter)


def test_a_directory_with_a_different_name_is_rejected() -> None:
    data = zipped({f"{ROOT}/a": b"a"})
    at = data.rindex(b"/a")

    with pytest.raises(CorruptArchive):
        verify_zip(data[:at] + b"/b" + data[at + 2 :])


def test_bytes_between_members_are_rejected() -> None:
    data = zipped()
    at = data.index(b"PK\x03\x04", 4)

    with pytest.raises(CorruptArchive):
        verify_zip(data[:at] + b"stowaway" + data[at:])


@pytest.mark.parametrize("flag", (0, 4, 5, 6, 13))
def test_encrypted_members_and_patches_are_rejected(flag: int) -> None:
    data = bytearray(zipped({f"{ROOT}/README": b"read me"}))
    for at in (6, data.index(b"PK\x01\x02") + 8):
        data[at + flag // 8] |= 1 << flag % 8

    with pytest.raises(CorruptArchive, match=r"encrypted|flags"):
        verify_zip(bytes(data))


@pytest.mark.parametrize("name", ("a\tb", "a\x1b[1mb", "a;12", "a;", "\xe9"))
def test_names_that_some_reader_changes_are_accepted(name: str) -> None:
    assert verify_zip(zipped({f"{ROOT}/{name}": b"1", f"{ROOT}/other": b"2"})).root == ROOT


@pytest.mark.parametrize(
    "names",
    (
        ("ab", "a\tb"),
        ("a\x7fb", "a\tb"),
        ("a;12", "a"),
        ("a;1", "a;2"),
        ("a\tb/c", "ab"),
        ("a", "a/"),
    ),
)
def test_two_members_that_unzip_extracts_to_one_path_are_rejected(names: tuple[str, str]) -> None:
    for first, second in (names, names[::-1]):
        with pytest.raises(UnsafeMember, match="has the path of another"):
            verify_zip(zipped({f"{ROOT}/{first}": b"", f"{ROOT}/{second}": b""}))


def test_two_members_that_python_extracts_to_one_path_are_rejected() -> None:
    """Older versions of Mercurial, and git, write such names without the flag for UTF-8."""
    raw = zipped({f"{ROOT}/zz": b"1", f"{ROOT}/other": b"2"}).replace(b"/zz", b"/\x82z")
    taken = zipped({f"{ROOT}/zz": b"1", f"{ROOT}/\xe9z": b"2"}).replace(b"/zz", b"/\x82z")

    assert verify_zip(raw).root == ROOT
    with pytest.raises(UnsafeMember, match="has the path of another"):
        verify_zip(taken)


def test_folders_take_a_limited_amount_of_memory() -> None:
    paths = ExtractionPaths()

    def fill() -> None:
        for number in range(HELD_MAX_BYTES // 4000):
            paths.add_member(b"%04000d/" % number, 0)

    with pytest.raises(ArchiveTooLarge):
        fill()
