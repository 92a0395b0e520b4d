"""Symbolic links, and members that would be written through them."""

import asyncio
import os
import tarfile
import tracemalloc
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.errors import ArchiveTooLarge, BadArchive, UnsafeMember
from archiver.formats.archive_tree import NAME_MAX_BYTES
from archiver.formats.name_folding import fold_name
from archiver.formats.symlinks import (
    HELD_MAX_BYTES,
    HELD_PER_UNRESOLVED_BYTES,
    LINK_MAX_BYTES,
    UNRESOLVED_MAX_BYTES,
    LinkTarget,
    SymlinkChecker,
    classify_target,
)
from tests.formats.samples import ROOT, an_archive, verify_chunks
from tests.formats.trees import Item, pack, tar_of
from tests.parts.thorough import thorough

each_format = pytest.mark.parametrize("suffix", ("tar", "zip"))


def link(path: str, target: str) -> Item:
    return Item(path=path, link=target, mode=0o777)


def links_outside(items: Sequence[Item], suffix: str, *, refuse: bool = False) -> int:
    """Return how many links lead out, according to a verifier that accepts the archive."""
    reading = verify_chunks(an_archive(suffix), [pack(items, suffix)], refuse_links_outside=refuse)
    return asyncio.run(reading).links_outside


FILE = Item(path="a/b/file", content=b"x\n")

HARMFUL = {
    "below a link": [link("p/q/a", "."), Item(path="p/q/a/escaped"), FILE],
    "a link below a link": [link("p/q/a", "."), link("p/q/a/l", "x"), FILE],
    "a file with the name of a link": [link("l", "a"), Item(path="l", content=b"x\n"), FILE],
    "two links of a name": [link("l", "a"), link("l", "b"), FILE],
    "a link that goes by a longer name": [link("a/./l", "../.."), FILE],
    "a link in a folder without a name": [link("a//l", "../.."), FILE],
    "a link with a slash at its end": [link("l/", "../etc"), FILE],
    "the root as a link": [link("", "elsewhere"), FILE],
    "below a link that goes by a longer name": [link("./l", "a"), Item(path="l/file"), FILE],
    "below a link in other letter case": [link("Docs", "/etc"), Item(path="docs/x"), FILE],
    "below a link in another Unicode": [link("d\u00e9", ".."), Item(path="de\u0301/x"), FILE],
    "below a link with an invisible character": [link("l", "/etc"), Item(path="l\u200d/x"), FILE],
    "a file with the name of a link without its invisible character": [
        link("d\ufe0f", "/etc/passwd"),
        Item(path="d", content=b"x\n"),
    ],
    "a file with the name of a link in other letter case": [
        link("Passwd", "/etc/passwd"),
        Item(path="PASSWD", content=b"x\n"),
    ],
    "below a link in other letter case that leads to another link": [
        link("Docs", "out"),
        Item(path="docs/x"),
        link("out", "/etc"),
    ],
    "below a link in Windows' spelling": [link("l", "/etc"), Item(path="l\\x")],
    "below a link whose name is in Windows' spelling": [link("a\\l", "/etc"), Item(path="a/l/x")],
    "below a link in Windows' spelling that seems to lead to itself": [
        link("a\\l", "a\\l"),
        Item(path="a/l/x"),
        link("out", "/etc"),
    ],
    "a file with the name of a link in Windows' spelling": [
        link("a/l", "/etc/passwd"),
        Item(path="a\\l"),
    ],
    "a link below a link in other letter case": [link("a/B", ".."), link("a/b/c/l", "../../..")],
    "a name that no file can have": [Item(path="n" * NAME_MAX_BYTES), FILE],
    "a link to more than a path can be": [link("l", "x" * (LINK_MAX_BYTES + 1)), FILE],
}


@each_format
@pytest.mark.parametrize("case", HARMFUL)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_could_be_written_through_a_link_are_rejected(case: str, suffix: str) -> None:
    with pytest.raises(UnsafeMember):
        links_outside(HARMFUL[case], suffix)


def test_a_folder_with_the_name_of_a_link_is_rejected() -> None:
    buffer = BytesIO(tar_of([FILE, link("l", "a")]))
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        folder = tarfile.TarInfo(f"{ROOT}/l")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)

    with pytest.raises(UnsafeMember):
        asyncio.run(verify_chunks(an_archive("tar"), [buffer.getvalue()]))


def test_a_link_with_an_empty_target_is_impossible() -> None:
    assert classify_target(b"r/l", b"") is LinkTarget.IMPOSSIBLE
    with pytest.raises(UnsafeMember):
        SymlinkChecker().add_link(b"r/l", LinkTarget.IMPOSSIBLE, b"")


ALLOWED_EXTRA_FIELDS = {
    "up, then down": [link("a/l", "../c/d"), FILE],
    "down through folders and up again": [link("l", "a/b/../b/file"), FILE],
    "through a link": [link("l", "a"), link("m", "l/b/file"), FILE],
    "to itself": [link("l", "l"), FILE],
    "beside a file that lies below it to Windows": [link("l", "a"), Item(path="l\\x"), FILE],
    "with a line's end": [link("l", "a/b/file\n"), FILE],
    "beside a link of a similar name": [
        link("ab", "c"),
        Item(path="a/file", content=b"x\n"),
        Item(path="abc/file", content=b"x\n"),
    ],
    "to the same name in other letter case": [
        link("Docs", "docs"),
        link("README.md", "readme.md"),
        Item(path="docs/a", content=b"x\n"),
        link("docs/b", "a"),
        Item(path="readme.md", content=b"x\n"),
    ],
    "that only differ by letter case from files": [
        link("Makefile", "build/makefile"),
        Item(path="makefile", content=b"x\n"),
        Item(path="build/makefile", content=b"x\n"),
    ],
}


@each_format
@pytest.mark.parametrize("case", ALLOWED_EXTRA_FIELDS)
def test_links_within_the_root_are_accepted(case: str, suffix: str) -> None:
    assert links_outside(ALLOWED_EXTRA_FIELDS[case], suffix, refuse=True) == 0


OUTSIDE = {
    "absolute": [link("l", "/etc/passwd"), FILE],
    "above the root": [link("a/l", "../../x"), FILE],
    "down, then above the root": [link("a/l", "b/../../../x"), FILE],
    "above the root, with a line's end": [link("l", "../x\n"), FILE],
    "above the root and back": [link("l", f"../{ROOT}/a"), FILE],
    "up through a link": [link("p/q/y", "../.."), link("l", "p/q/y/../.."), FILE],
    "up through a link that comes later": [link("l", "x/y/.."), link("x/y", ".."), FILE],
    "up through a link in other letter case": [link("x/y", ".."), link("l", "X/Y/.."), FILE],
}


@each_format
@pytest.mark.parametrize("case", OUTSIDE)
def test_links_that_lead_out_are_counted_or_rejected(case: str, suffix: str) -> None:
    assert links_outside(OUTSIDE[case], suffix) == 1
    with pytest.raises(UnsafeMember, match="leads out"):
        links_outside(OUTSIDE[case], suffix, refuse=True)


@each_format
def test_unresolved_links_take_little_memory(suffix: str) -> None:
    turning = [link(f"l{number:05}", "a/../" * 819) for number in range(60)]
    data = pack(turning, suffix)

    tracemalloc.start()
    verified = asyncio.run(verify_chunks(an_archive(suffix), [data]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert verified.links_outside == 0
    assert peak < len(data) + 3_000_000


def test_a_limited_number_of_unresolved_links_is_resolved() -> None:
    links = SymlinkChecker()
    most = UNRESOLVED_MAX_BYTES // (LINK_MAX_BYTES + HELD_PER_UNRESOLVED_BYTES)

    for number in range(most + 10):
        links.add_link(
            b"r/%d" % number, LinkTarget.UNRESOLVED, b"a/.." + b"/" * (LINK_MAX_BYTES - 4)
        )
    links.finish()

    assert links.outside == 10


@each_format
def test_a_file_may_contain_the_target_of_a_rejected_link(suffix: str) -> None:
    files = [Item(path=f"f{number}", content=b"a/../b" * number) for number in range(500)]

    assert links_outside(files, suffix, refuse=True) == 0


@pytest.mark.parametrize(
    ("name", "target"),
    (
        pytest.param(b"", b"x", marks=pytest.mark.thorough),
        pytest.param(b"", b"a/../b", marks=pytest.mark.thorough),
        # a number at which both sets have just grown
        pytest.param(b"n" * 216, b"x", marks=pytest.mark.thorough),
        (b"n" * 1484, b"x"),
        pytest.param(b"n" * 4000, b"x", marks=pytest.mark.thorough),
        pytest.param(b"n" * 4000, b"a/../" * 800, marks=pytest.mark.thorough),
        pytest.param(("\ud55c" * 1000).encode(), b"x", marks=pytest.mark.thorough),
    ),
    ids=("short", "turning", "thousands", "long", "longest", "longest, turning", "hangul"),
)
def test_links_take_a_limited_amount_of_memory(name: bytes, target: bytes) -> None:
    tracemalloc.start()
    try:
        links = SymlinkChecker()
        with pytest.raises(ArchiveTooLarge, match="more links"):
            _fill(links, name, target)
        links.finish()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert HELD_MAX_BYTES // 2 < peak_bytes < HELD_MAX_BYTES


def _fill(links: SymlinkChecker, name: bytes, target: bytes) -> None:
    """Add links forever, each with a target of its own in memory."""
    for number in count():
        member = b"r/%d%s" % (number, name)
        links.add_link(member, classify_target(member, target), bytes(bytearray(target)))


def test_an_archive_may_have_as_many_links_as_an_icon_theme() -> None:
    links = SymlinkChecker()
    for number in range(100_000):
        links.add_link(b"icons-0123456789ab/%s/%d" % (b"n" * 100, number), LinkTarget.INSIDE, b"x")


@pytest.mark.parametrize("segment", (b"s/", "é/".encode()))
def test_the_work_to_compare_paths_is_limited(segment: bytes) -> None:
    links = SymlinkChecker(work_max_bytes=20_000_000)
    links.add_link(b"r/l", LinkTarget.INSIDE, b"x")
    names = [b"r/%d/" % number + segment * (4000 // len(segment)) + b"a" for number in range(6)]

    _check(links, names[:2])
    with pytest.raises(ArchiveTooLarge):
        _check(links, names[2:])


def _check(links: SymlinkChecker, names: Sequence[bytes]) -> None:
    for name in names:
        links.add_member(name)


@given(st.text())
def test_spellings_that_some_system_treats_as_equal_fold_to_one_form(name: str) -> None:
    spellings = [
        unicodedata.normalize(form, text)
        for form in ("NFC", "NFD")
        for text in (name, name.casefold())
    ]

    assert (
        len({fold_name(spelling.encode(errors="replace")) for spelling in (name, *spellings)}) == 1
    )


@pytest.mark.parametrize(
    "invisible", ("\u00ad", "\u034f", "\u200b", "\u200c", "\u200d", "\u200f", "\ufe0f", "\ufeff")
)
def test_characters_that_some_system_ignores_are_removed(invisible: str) -> None:
    assert fold_name(f"d/L{invisible}/x".encode()) == fold_name(b"d/l/x")


segments = st.sampled_from(("a", "b", "B", "..", ".", "a\\b", "..\\a", "a\\..", "\\a"))
steps = st.sampled_from(("a", "b", "A", "B", "a", "b", "A", "B", "a\\b", "b\\A", ".", ""))
paths = st.lists(steps, min_size=1, max_size=3).map("/".join)
targets = st.lists(segments, min_size=1, max_size=5).map("/".join)
entries = st.one_of(
    st.builds(link, paths, targets),
    st.builds(Item, path=paths, content=st.just(b"x\n")),
)


def _to_windows(text: str) -> str:
    return text.replace("\\", "/").lower()


def _as_it_is(member: tarfile.TarInfo, _folder: str) -> tarfile.TarInfo:
    return member


@pytest.mark.parametrize("spelled", (str, *thorough(str.lower, _to_windows)))
@settings(max_examples=120)
@given(items=st.lists(entries, min_size=1, max_size=6))
def test_accepted_archives_extract_within_the_root(
    spelled: Callable[[str], str], items: list[Item], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """If letter case is ignored, all names behave as if they were in lower case.

    To Windows, it is as if backslashes were slashes, too.
    """
    try:
        outside = links_outside(items, "tar")
    except BadArchive:
        return
    folder = tmp_path_factory.mktemp("extracted") / "x" / "y"
    folder.mkdir(parents=True)
    items = [replace(item, path=spelled(item.path), link=spelled(item.link)) for item in items]

    with tarfile.open(fileobj=BytesIO(tar_of(items))) as tar:
        tar.extraction_filter = _as_it_is  # the behaviour of Python 3.11.2, which has no filters
        for member in tar:
            try:
                tar.extract(member, folder)
            except (OSError, RecursionError, KeyError):
                continue  # such as a folder in place of a file

    everything = {*folder.parent.parent.rglob("*")} - {folder.parent, folder}
    root = folder / ROOT
    assert all(path.is_relative_to(root) for path in everything)
    for path in everything:
        if not outside and path.is_symlink() and path.exists():
            assert Path(os.path.realpath(path)).is_relative_to(root)
