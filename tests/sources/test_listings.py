"""Listings of hgweb, and the order of files that follows from them."""

import asyncio
import json
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archiver.sources.hgweb.files import (
    LEVELS_MAX,
    ListFolder,
    ListingTooDeep,
    file_after,
    last_file,
)
from archiver.sources.hgweb.listings import (
    LISTING_MAX_BYTES,
    NAMES_MAX,
    Listing,
    ListingTooLong,
    parse_listing,
)
from tests.sources.hgmo import NODE

_NAMES = st.sampled_from((b"a", b"a-", b"a.b", b"a0", b"b", b"~", b"\xe9", b"\xc3\xa9"))
_PATHS = st.sets(st.lists(_NAMES, min_size=1, max_size=3).map(b"/".join), min_size=1, max_size=12)

patiently = settings(suppress_health_check=[HealthCheck.too_slow])


class Tree:
    """A changeset with these files. No path may also be a folder."""

    def __init__(self, paths: set[bytes]) -> None:
        folders = {path[:at] for path in paths for at, byte in enumerate(path) if byte == ord("/")}
        self.paths = sorted(paths - folders)

    async def list_folder(self, folder: bytes) -> Listing | None:
        below = [path[len(folder) :] for path in self.paths if path.startswith(folder)]
        names = {head + slash for head, slash, _ in (path.partition(b"/") for path in below)}
        return Listing(names=tuple(sorted(names))) if names else None


@patiently
@given(_PATHS)
def test_the_last_file_is_the_last_path_in_byte_order(paths: set[bytes]) -> None:
    tree = Tree(paths)

    assert asyncio.run(last_file(tree.list_folder, b"")) == tree.paths[-1]


@patiently
@given(_PATHS)
def test_the_file_after_another_is_the_next_path(paths: set[bytes]) -> None:
    tree = Tree(paths)
    ordered = [b"", *tree.paths]

    async def play() -> list[bytes | None]:
        found = [await file_after(tree.list_folder, b"", path) for path in ordered]
        return [each.path if each else None for each in found]

    assert asyncio.run(play()) == [*tree.paths, None]


@pytest.mark.parametrize(
    ("subdir", "expected"),
    ((b"a", b"a/b"), (b"a-b", b"a-b"), (b"a/b", b"a/b"), (b"c", None), (b"a/b/c", None)),
)
def test_a_subdir_ends_with_its_own_last_file(subdir: bytes, expected: bytes | None) -> None:
    tree = Tree({b"a-b", b"a/a", b"a/b", b"z"})

    assert asyncio.run(last_file(tree.list_folder, subdir)) == expected


def page(**changes: object) -> bytes:
    whole = {
        "node": NODE,
        "abspath": "/a/",
        "directories": [{"abspath": "/a/d", "basename": "d", "emptydirs": "e/f"}],
        "files": [{"basename": "caf\udce9", "date": [-1.0, 0]}, {"basename": "\N{SNOWMAN}"}],
    }
    return json.dumps(whole | changes).encode()


def test_a_listing_has_sorted_byte_names_and_the_date() -> None:
    listing = parse_listing(page(), node=NODE, folder=b"a/")

    assert listing.names == (b"caf\xe9", b"d/e/f/", b"\xe2\x98\x83")
    assert listing.date == -1


@pytest.mark.parametrize(
    ("shown", "name"),
    (
        (rb"\ud83d\udca9", b"\xf0\x9f\x92\xa9"),
        (b"\xf0\x9f\x92\xa9", b"\xf0\x9f\x92\xa9"),
        (rb"\udc80\uDCFF", b"\x80\xff"),
        (rb"\\udc80", rb"\udc80"),
        (rb"\\\udc80", b"\\\x80"),
        (rb"\\\\u", rb"\\u"),
        (rb"\"\t", b'"\t'),
    ),
)
def test_a_name_is_read_in_every_json_spelling(shown: bytes, name: bytes) -> None:
    body = page(files=[{"basename": "NAME"}], directories=[]).replace(b"NAME", shown)

    assert parse_listing(body, node=NODE, folder=b"a/").names == (name,)


@contextmanager
def room(most: int) -> Iterator[None]:
    """Fail if the block takes more than *most* bytes of memory at a time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= most
    finally:
        tracemalloc.stop()


def test_skipped_fields_of_a_listing_take_no_memory() -> None:
    body = page(bookmarks=[[0]] * 50_000 + [{"a": 0}] * 50_000)

    with room(2 * len(body)):
        assert parse_listing(body, node=NODE, folder=b"a/").names


@pytest.mark.parametrize(
    "body",
    (
        page() + b" " * LISTING_MAX_BYTES,
        page(files=[{"basename": "a"}] * NAMES_MAX),
        page(directories=[{"basename": "a"}] * NAMES_MAX),
        page(bookmarks="\\" * 300_000),
    ),
    ids=("bytes", "files", "folders", "backslashes"),
)
def test_a_listing_over_the_limits_is_refused_before_parsing(body: bytes) -> None:
    with room(100_000), pytest.raises(ListingTooLong):
        parse_listing(body, node=NODE, folder=b"a/")


@pytest.mark.parametrize(
    "body",
    (
        b"",
        page()[:-1],
        page() + b"Internal Server Error",
        b'"not yet implemented"',
        b"[" * 100_000,
        page(node="f" * 40),
        page(abspath="/b/"),
        page(files=None),
        page(files=[{"basename": ""}]),
        page(files=[{"basename": "a/b"}]),
        page(files=[{"basename": "\ud800"}]),
        page(files=[{"basename": "a" * 100_000}]),
        page(files=[{"basename": ["a"]}]),
        page(files=[{"basename": "a", "date": "today"}]),
        page(bookmarks=[1])[:-3] + b"01]}",
    ),
)
def test_a_partial_or_foreign_listing_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever reads it may say so
        parse_listing(body, node=NODE, folder=b"a/")


def test_the_descent_into_invented_folders_ends() -> None:
    async def endless(folder: bytes) -> Listing:
        return Listing(names=(b"deeper" * 40 + folder[:1] + b"/",))

    with pytest.raises(ValueError, match="no files"):
        asyncio.run(last_file(endless, b""))


@pytest.mark.parametrize(
    ("name", "look"),
    (
        (b"a/", lambda list_folder: last_file(list_folder, b"")),
        (b"a/", lambda list_folder: file_after(list_folder, b"", b"")),
        (b"A", lambda list_folder: file_after(list_folder, b"", b"a/" * 2000 + b"a")),
    ),
    ids=("last", "first", "next"),
)
def test_the_number_of_levels_is_limited(
    name: bytes, look: Callable[[ListFolder], Awaitable[object]]
) -> None:
    asked = []

    async def endless(folder: bytes) -> Listing:
        asked.append(folder)
        return Listing(names=(name,))

    async def play() -> None:
        await look(endless)

    with pytest.raises(ListingTooDeep):
        asyncio.run(play())
    assert len(asked) <= LEVELS_MAX + 1


def test_collapsed_folders_are_one_level() -> None:
    async def deep(folder: bytes) -> Listing:
        return Listing(names=(b"a",) if folder else (b"a/" * 2000,))

    assert asyncio.run(last_file(deep, b"")) == b"a/" * 2000 + b"a"
