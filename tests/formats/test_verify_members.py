"""Requirements on members in all formats: root, subdir, node and links."""

import asyncio
import re
from collections.abc import Callable

import pytest

from archiver.errors import NotAnArchive, UnsafeMember, WrongNode, WrongRoot
from archiver.formats.archive_tree import shown
from tests.formats.samples import (
    NODE,
    OTHER,
    ROOT,
    SUFFIXES,
    TREE,
    an_archive,
    each_suffix,
    linked_tar,
    linked_zip,
    note,
    packed,
    verify_chunks,
)


@each_suffix
@pytest.mark.parametrize(
    "name",
    (
        "README",
        f"{ROOT}x/README",
        f"other/{ROOT}/README",
    ),
)
def test_members_outside_the_root_are_rejected_by_name(suffix: str, name: str) -> None:
    data = packed(suffix, {**TREE, name: b"stray"})

    with pytest.raises(WrongRoot, match=re.escape(repr(name))):
        asyncio.run(verify_chunks(an_archive(suffix), [data]))


@each_suffix
@pytest.mark.parametrize(
    "name",
    (
        f"/{ROOT}/README",
        f"../{ROOT}/README",
        f"{ROOT}/../README",
        f"{ROOT}/a/../../README",
        f"{ROOT}/a/..",
        f"{ROOT}/./.hg_archival.txt",
        f"{ROOT}/a//b",
        f"{ROOT}/a/.",
        f"{ROOT}/..\\README",
        f"{ROOT}/a\\..\\..\\README",
        f"{ROOT}/a\\../README",
        f"{ROOT}/a\\..",
    ),
)
def test_members_with_unsafe_names_are_rejected_by_name(suffix: str, name: str) -> None:
    data = packed(suffix, {**TREE, name: b"stray"})

    with pytest.raises(UnsafeMember, match=re.escape(repr(name))):
        asyncio.run(verify_chunks(an_archive(suffix), [data]))


def test_a_shown_name_is_short_and_printable() -> None:
    told = shown(b"\x1b[31m" + "ü".encode() + b"\xff" + bytes(1000))

    assert told.isascii()
    assert told.isprintable()
    assert len(told) < 800


@each_suffix
def test_harmless_backslashes_in_names_are_accepted(suffix: str) -> None:
    data = packed(suffix, {**TREE, f"{ROOT}/a\\b": b"x", f"{ROOT}/..a\\b..": b"x"})

    assert asyncio.run(verify_chunks(an_archive(suffix), [data])).size_bytes == len(data)


LINKS_INSIDE = (
    "README",
    "./README",
    "../README",
    "deep/er",
    ".//../README\n",
    "a\\b",
    "..\\README",
)
LINKS_OUTSIDE = (
    "/etc/passwd",
    "../..",
    "../../README",
    "../../other/x",
    "a/../../../b",
    "../../" + ROOT + "/README",
    "/etc/passwd\n",
    "\\etc\\passwd",
    "\\\\server\\share",
    "C:\\Windows",
    "c:x",
    "..\\..",
    "..\\../README",
    "../..\\README",
    "a\\..\\..\\..\\b",
    "a/..\\b",
)


@pytest.mark.parametrize("link", (linked_tar, linked_zip))
@pytest.mark.parametrize("target", LINKS_INSIDE)
def test_links_within_the_root_are_accepted(
    link: Callable[[str, str], tuple[str, bytes]], target: str
) -> None:
    suffix, data = link(f"{ROOT}/testing/link", target)

    verified = asyncio.run(verify_chunks(an_archive(suffix), [data]))

    assert (verified.size_bytes, verified.links_outside) == (len(data), 0)


@pytest.mark.parametrize("link", (linked_tar, linked_zip))
@pytest.mark.parametrize("target", LINKS_OUTSIDE)
def test_links_that_lead_out_are_counted_or_rejected_by_name(
    link: Callable[[str, str], tuple[str, bytes]], target: str
) -> None:
    suffix, data = link(f"{ROOT}/testing/link", target)

    assert asyncio.run(verify_chunks(an_archive(suffix), [data])).links_outside == 1
    with pytest.raises(UnsafeMember, match=f"{ROOT}/testing/link"):
        asyncio.run(verify_chunks(an_archive(suffix), [data], refuse_links_outside=True))


@pytest.mark.parametrize("link", (linked_tar, linked_zip))
@pytest.mark.parametrize("target", ("", "x" * 4096))
def test_impossible_links_are_rejected_by_name(
    link: Callable[[str, str], tuple[str, bytes]], target: str
) -> None:
    suffix, data = link(f"{ROOT}/testing/link", target)

    with pytest.raises(UnsafeMember, match=f"{ROOT}/testing/link"):
        asyncio.run(verify_chunks(an_archive(suffix), [data]))


def test_a_file_may_contain_an_impossible_target() -> None:
    members = {**TREE, f"{ROOT}/file": b"/etc/passwd", f"{ROOT}/other": b"../../.."}

    for suffix in SUFFIXES:
        asyncio.run(verify_chunks(an_archive(suffix), [packed(suffix, members)]))


@each_suffix
def test_members_outside_the_subdir_are_rejected(suffix: str) -> None:
    inside = {f"{ROOT}/testing/{name}": b"" for name in ("a", "b/c")}
    archive = an_archive(suffix, "testing")

    asyncio.run(verify_chunks(archive, [packed(suffix, inside)]))
    with pytest.raises(WrongRoot):
        asyncio.run(
            verify_chunks(archive, [packed(suffix, {**inside, f"{ROOT}/testing-too": b""})])
        )


@each_suffix
def test_a_subdir_may_be_a_file(suffix: str) -> None:
    archive = an_archive(suffix, "README")

    verified = asyncio.run(verify_chunks(archive, [packed(suffix, {f"{ROOT}/README": b"read me"})]))

    assert verified.root == ROOT


@each_suffix
@pytest.mark.parametrize("content", (note(OTHER), b"", b"branch: default\n", note(NODE[:12])))
def test_an_archive_of_another_changeset_is_rejected(suffix: str, content: bytes) -> None:
    data = packed(suffix, {**TREE, f"{ROOT}/.hg_archival.txt": content})

    with pytest.raises(WrongNode):
        asyncio.run(verify_chunks(an_archive(suffix), [data]))


@each_suffix
def test_a_host_may_omit_the_note(suffix: str) -> None:
    data = packed(suffix, {f"{ROOT}/README": b"read me"})

    assert asyncio.run(verify_chunks(an_archive(suffix), [data])).size_bytes == len(data)


@each_suffix
def test_an_archive_without_members_is_rejected(suffix: str) -> None:
    with pytest.raises(NotAnArchive):
        asyncio.run(verify_chunks(an_archive(suffix), [packed(suffix, {})]))
