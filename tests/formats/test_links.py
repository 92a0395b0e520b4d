"""Links that lead out one after the other, though each by itself looks harmless."""

import asyncio
import os
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.errors import ArchiveTooLarge, BadArchive, UnsafeMember
from archiver.formats.links import LINK_MAX_BYTES, NAMES_MAX_BYTES, TURNS_MAX, Links
from tests.formats.samples import ROOT, an_archive, verdict
from tests.formats.trees import Item, pack, tar_of

each_format = pytest.mark.parametrize("suffix", ("tar", "zip"))


def link(path: str, target: str) -> Item:
    return Item(path=path, link=target, mode=0o777)


def verify(items: Sequence[Item], suffix: str) -> None:
    asyncio.run(verdict(an_archive(suffix), [pack(items, suffix)]))


FILE = Item(path="a/b/file", content=b"x\n")

HARMFUL = {
    "up through a link": [link("p/q/y", "../.."), link("l", "p/q/y/../.."), FILE],
    "up through a link that comes later": [link("l", "x/y/.."), link("x/y", ".."), FILE],
    "below a link": [link("p/q/a", "../.."), Item(path="p/q/a/escaped"), FILE],
    "a link below a link": [link("p/q/a", "../.."), link("p/q/a/l", "../../.."), FILE],
    "a link that goes by a longer name": [link("a/./l", "../.."), FILE],
    "a link in a folder without a name": [link("a//l", "../.."), FILE],
    "a link with a slash at its end": [link("l/", "../etc"), FILE],
    "the root as a link": [link("", "elsewhere"), FILE],
    "below a link that goes by a longer name": [link("./l", "a"), Item(path="l/file"), FILE],
}


@each_format
@pytest.mark.parametrize("case", HARMFUL)
def test_chains_of_links_that_could_lead_out_are_refused(case: str, suffix: str) -> None:
    with pytest.raises(UnsafeMember):
        verify(HARMFUL[case], suffix)


@pytest.mark.parametrize("twin", ("p/q/l", "p/q/l/file"))
def test_a_hard_link_to_a_link_would_lead_from_elsewhere(twin: str) -> None:
    with pytest.raises(UnsafeMember):
        verify([FILE, link("p/q/l", "../../a/b"), Item(path="twin", twin=twin)], "tar")


HARMLESS = {
    "up, then down": [link("a/l", "../c/d"), FILE],
    "down through folders and up again": [link("l", "a/b/../b/file"), FILE],
    "through a link": [link("l", "a"), link("m", "l/b/file"), FILE],
    "to itself": [link("l", "l"), FILE],
    "beside a link of a similar name": [
        link("ab", "c"),
        Item(path="a/file", content=b"x\n"),
        Item(path="abc/file", content=b"x\n"),
    ],
}


@each_format
@pytest.mark.parametrize("case", HARMLESS)
def test_other_links_are_left_alone(case: str, suffix: str) -> None:
    verify(HARMLESS[case], suffix)


@each_format
def test_more_turns_than_anyone_makes_are_refused_and_files_are_not(suffix: str) -> None:
    links = [link(f"l{number:05}", "a/../b") for number in range(TURNS_MAX + 1)]
    files = [Item(path=f"f{number:05}", content=b"a/../b") for number in range(TURNS_MAX + 1)]

    verify(files, suffix)
    if suffix == "zip":
        with pytest.raises(UnsafeMember):
            verify(links, suffix)
    else:
        verify(links, suffix)


def test_what_is_kept_of_links_is_bounded() -> None:
    links = Links(root="r")
    name = b"r/" + b"n" * 60_000

    for number in range(NAMES_MAX_BYTES // len(name) - 1):
        links.enter(name + b"%d" % number, [])
    with pytest.raises(ArchiveTooLarge):
        links.enter(name * 2, [])


def test_the_root_itself_is_no_link() -> None:
    assert Links(root="r").way(b"r", b"r/a") is None


def test_a_link_cannot_be_longer_than_a_path() -> None:
    links = Links(root="r")

    assert links.way(b"r/l", b"x" * LINK_MAX_BYTES) == []
    assert links.way(b"r/l", b"x" * (LINK_MAX_BYTES + 1)) is None


segments = st.sampled_from(("a", "b", "c", "..", "."))
steps = st.sampled_from(("a", "b", "c", "a", "b", "c", ".", ""))
paths = st.lists(steps, min_size=1, max_size=3).map("/".join)
targets = st.lists(segments, min_size=1, max_size=5).map("/".join)
entries = st.one_of(
    st.builds(link, paths, targets),
    st.builds(Item, path=paths, content=st.just(b"x\n")),
    st.builds(Item, path=paths, twin=paths),
)


def _as_it_is(member: tarfile.TarInfo, _folder: str) -> tarfile.TarInfo:
    return member


@settings(max_examples=400, deadline=None)
@given(items=st.lists(entries, min_size=1, max_size=6))
def test_whatever_is_accepted_stays_within_the_root_when_it_is_extracted(
    items: list[Item], tmp_path_factory: pytest.TempPathFactory
) -> None:
    try:
        verify(items, "tar")
    except BadArchive:
        return
    folder = tmp_path_factory.mktemp("extracted") / "x" / "y"
    folder.mkdir(parents=True)

    with tarfile.open(fileobj=BytesIO(tar_of(items))) as tar:
        tar.extraction_filter = _as_it_is  # what Python 3.11.2, which has no filters, does anyway
        for member in tar:
            try:
                tar.extract(member, folder)
            except (OSError, RecursionError, KeyError):
                continue  # as when a folder stands where a file should be

    everything = {*folder.parent.parent.rglob("*")} - {folder.parent, folder}
    root = folder / ROOT
    assert all(path.is_relative_to(root) for path in everything)
    for path in everything:
        if path.is_symlink() and path.exists():
            assert Path(os.path.realpath(path)).is_relative_to(root)
