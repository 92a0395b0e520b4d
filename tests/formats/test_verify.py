"""What holds for archives of every format."""

import asyncio
import bz2
import hashlib
import io
import random
import re
import tarfile
import tracemalloc
from collections.abc import Callable, Coroutine, Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from archiver.errors import (
    ArchiveTooLarge,
    BadArchive,
    CorruptArchive,
    NotAnArchive,
    SuffixRefused,
    TruncatedArchive,
    UnsafeMember,
    WrongNode,
    WrongRoot,
)
from archiver.formats.meter import RATIO_FROM_BYTES
from archiver.formats.tree import shown
from archiver.formats.verify import verify
from archiver.model import Archive, Limits, Verified
from tests.formats.samples import (
    COMPRESS,
    NODE,
    OTHER,
    ROOT,
    SUFFIXES,
    TREE,
    an_archive,
    contents,
    linked_tar,
    linked_zip,
    note,
    packed,
    tar,
    verdict,
    verdict_of_one_thread,
)

each_suffix = pytest.mark.parametrize("suffix", SUFFIXES)
any_suffix = st.sampled_from(SUFFIXES)
few = settings(max_examples=60, deadline=None)
many = settings(max_examples=300, deadline=None)

GOOD = {suffix: packed(suffix) for suffix in SUFFIXES}


@each_suffix
def test_a_whole_archive_is_digested(suffix: str) -> None:
    verified = asyncio.run(verdict(an_archive(suffix), [GOOD[suffix]]))

    assert verified.sha256 == hashlib.sha256(GOOD[suffix]).hexdigest()
    assert verified.size_bytes == len(GOOD[suffix])
    assert verified.root == ROOT


@few
@given(suffix=any_suffix, cuts=st.lists(st.integers(0, 800), max_size=20))
def test_it_does_not_matter_how_the_stream_is_cut_into_chunks(suffix: str, cuts: list[int]) -> None:
    data = GOOD[suffix]
    bounds = [0, *sorted(cuts), len(data)]
    chunks = [data[start:end] for start, end in pairwise(bounds)]

    verified = asyncio.run(verdict(an_archive(suffix), chunks))

    assert verified.sha256 == hashlib.sha256(data).hexdigest()


@each_suffix
def test_bytes_may_come_one_by_one(suffix: str) -> None:
    data = GOOD[suffix]

    verified = asyncio.run(verdict(an_archive(suffix), [bytes([byte]) for byte in data]))

    assert verified.size_bytes == len(data)


@each_suffix
def test_every_beginning_of_a_whole_archive_is_refused(suffix: str) -> None:
    data = GOOD[suffix]

    async def play() -> None:
        for end in range(1, len(data)):
            with pytest.raises(TruncatedArchive):
                await verdict(an_archive(suffix), [data[:end]])

    asyncio.run(play())


@each_suffix
def test_nothing_is_not_an_archive(suffix: str) -> None:
    with pytest.raises(NotAnArchive):
        asyncio.run(verdict(an_archive(suffix), []))


@few
@given(suffix=any_suffix, more=st.binary(min_size=1, max_size=2000))
def test_nothing_may_follow_the_end(suffix: str, more: bytes) -> None:
    with pytest.raises((CorruptArchive, TruncatedArchive)):
        asyncio.run(verdict(an_archive(suffix), [GOOD[suffix] + more]))


@each_suffix
@pytest.mark.parametrize("more", (b"Internal Server Error", b"\0", b"\n"))
def test_what_servers_append_is_refused(suffix: str, more: bytes) -> None:
    with pytest.raises(CorruptArchive):
        asyncio.run(verdict(an_archive(suffix), [GOOD[suffix], more]))


@each_suffix
@pytest.mark.parametrize("page", (b"<!DOCTYPE html><html></html>", b"<", b"404"))
def test_a_page_is_not_an_archive(suffix: str, page: bytes) -> None:
    with pytest.raises((NotAnArchive, TruncatedArchive)):
        asyncio.run(verdict(an_archive(suffix), [page]))


@each_suffix
def test_an_archive_of_another_format_is_refused(suffix: str) -> None:
    async def play() -> None:
        for other in set(SUFFIXES) - {suffix}:
            with pytest.raises(NotAnArchive):
                await verdict(an_archive(suffix), [GOOD[other]])

    asyncio.run(play())


@many
@given(suffix=any_suffix, position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_damaged_byte_is_refused_or_harmless(suffix: str, position: int, flip: int) -> None:
    damaged = bytearray(GOOD[suffix])
    damaged[position % len(damaged)] ^= flip

    try:
        asyncio.run(verdict(an_archive(suffix), [bytes(damaged)]))
    except BadArchive:
        return

    assert contents(suffix, bytes(damaged)) == contents(suffix, GOOD[suffix])


@many
@given(
    suffix=any_suffix,
    start=st.integers(0, 1500),
    length=st.integers(0, 300),
    replacement=st.binary(max_size=300),
)
def test_no_damage_ends_in_another_error(
    suffix: str, start: int, length: int, replacement: bytes
) -> None:
    data = GOOD[suffix]
    damaged = data[:start] + replacement + data[start + length :]

    try:
        verified = asyncio.run(verdict(an_archive(suffix), [damaged]))
    except BadArchive:
        return

    assert verified.size_bytes == len(damaged)
    assert contents(suffix, damaged) == contents(suffix, data)


@many
@given(start=st.integers(0, 12_000), replacement=st.binary(max_size=600))
@example(start=136, replacement=b"Br\xdc")  # the sum still fits, if bytes have signs
def test_no_damage_to_a_tar_before_its_compression_ends_in_another_error(
    start: int, replacement: bytes
) -> None:
    whole = tar()
    damaged = whole[:start] + replacement + whole[start + len(replacement) :]
    compressed = bz2.compress(damaged, 1)

    try:
        verified = asyncio.run(verdict(an_archive("tar.bz2"), [compressed]))
    except BadArchive:
        return

    assert verified.size_bytes == len(compressed)
    with tarfile.open(fileobj=io.BytesIO(damaged)) as archive:
        assert archive.getnames() == list(TREE)


@each_suffix
@pytest.mark.parametrize(
    "name",
    (
        "README",
        f"{ROOT}x/README",
        f"other/{ROOT}/README",
    ),
)
def test_members_outside_the_root_are_refused_by_name(suffix: str, name: str) -> None:
    data = packed(suffix, {**TREE, name: b"stray"})

    with pytest.raises(WrongRoot, match=re.escape(repr(name))):
        asyncio.run(verdict(an_archive(suffix), [data]))


@each_suffix
@pytest.mark.parametrize(
    "name",
    (
        f"/{ROOT}/README",
        f"../{ROOT}/README",
        f"{ROOT}/../README",
        f"{ROOT}/a/../../README",
        f"{ROOT}/a/..",
    ),
)
def test_members_that_lead_out_when_extracted_are_refused_by_name(suffix: str, name: str) -> None:
    data = packed(suffix, {**TREE, name: b"stray"})

    with pytest.raises(UnsafeMember, match=re.escape(repr(name))):
        asyncio.run(verdict(an_archive(suffix), [data]))


def test_a_name_that_is_shown_is_short_and_cannot_play_tricks() -> None:
    told = shown(b"\x1b[31m" + "ü".encode() + b"\xff" + bytes(1000))

    assert told.isascii()
    assert told.isprintable()
    assert len(told) < 800


LINKS_INSIDE = ("README", "./README", "../README", "deep/er", "../../" + ROOT + "/README")
LINKS_OUTSIDE = (
    "/etc/passwd",
    "../..",
    "../../README",
    "../../other/x",
    "a/../../../b",
    "x" * 5000,
)


@pytest.mark.parametrize("link", (linked_tar, linked_zip))
@pytest.mark.parametrize("target", LINKS_INSIDE)
def test_links_within_the_root_are_links_like_any_other(
    link: Callable[[str, str], tuple[str, bytes]], target: str
) -> None:
    suffix, data = link(f"{ROOT}/testing/link", target)

    assert asyncio.run(verdict(an_archive(suffix), [data])).size_bytes == len(data)


@pytest.mark.parametrize("link", (linked_tar, linked_zip))
@pytest.mark.parametrize("target", LINKS_OUTSIDE)
def test_links_that_lead_out_are_refused_by_name(
    link: Callable[[str, str], tuple[str, bytes]], target: str
) -> None:
    suffix, data = link(f"{ROOT}/testing/link", target)

    with pytest.raises(UnsafeMember, match=f"{ROOT}/testing/link"):
        asyncio.run(verdict(an_archive(suffix), [data]))


def test_a_file_may_say_what_a_link_must_not() -> None:
    members = {**TREE, f"{ROOT}/file": b"/etc/passwd", f"{ROOT}/other": b"../../.."}

    for suffix in SUFFIXES:
        asyncio.run(verdict(an_archive(suffix), [packed(suffix, members)]))


@each_suffix
@pytest.mark.parametrize(
    "limits",
    (
        Limits(packed_bytes=100),
        Limits(unpacked_bytes=100),
        Limits(members=len(TREE) - 1),
    ),
)
def test_an_archive_over_a_limit_is_refused(suffix: str, limits: Limits) -> None:
    with pytest.raises(ArchiveTooLarge):
        asyncio.run(verdict(an_archive(suffix), [GOOD[suffix]], limits=limits))


@each_suffix
def test_an_archive_at_its_limits_is_not_over_them(suffix: str) -> None:
    inside = sum(len(content) for _, content in contents(suffix, GOOD[suffix]))
    limits = Limits(
        packed_bytes=len(GOOD[suffix]),
        unpacked_bytes=inside if suffix == "zip" else len(tar()),
        members=len(TREE),
    )

    asyncio.run(verdict(an_archive(suffix), [GOOD[suffix]], limits=limits))


@pytest.mark.parametrize("suffix", ("tar.gz", "zip"))
def test_a_bomb_is_refused_long_before_it_is_unpacked(suffix: str) -> None:
    bomb = packed(suffix, {**TREE, f"{ROOT}/zeros": bytes(2 * RATIO_FROM_BYTES)})

    with pytest.raises(ArchiveTooLarge, match="200 times"):
        asyncio.run(verdict(an_archive(suffix), [bomb]))


@each_suffix
def test_members_outside_the_subdir_are_refused(suffix: str) -> None:
    inside = {f"{ROOT}/testing/{name}": b"" for name in ("a", "b/c")}
    archive = an_archive(suffix, "testing")

    asyncio.run(verdict(archive, [packed(suffix, inside)]))
    with pytest.raises(WrongRoot):
        asyncio.run(verdict(archive, [packed(suffix, {**inside, f"{ROOT}/testing-too": b""})]))


@each_suffix
def test_a_subdir_may_be_a_file(suffix: str) -> None:
    archive = an_archive(suffix, "README")

    verified = asyncio.run(verdict(archive, [packed(suffix, {f"{ROOT}/README": b"read me"})]))

    assert verified.root == ROOT


@each_suffix
@pytest.mark.parametrize("content", (note(OTHER), b"", b"branch: default\n", note(NODE[:12])))
def test_another_changeset_is_refused(suffix: str, content: bytes) -> None:
    data = packed(suffix, {**TREE, f"{ROOT}/.hg_archival.txt": content})

    with pytest.raises(WrongNode):
        asyncio.run(verdict(an_archive(suffix), [data]))


@each_suffix
def test_a_host_may_leave_out_the_note(suffix: str) -> None:
    data = packed(suffix, {f"{ROOT}/README": b"read me"})

    assert asyncio.run(verdict(an_archive(suffix), [data])).size_bytes == len(data)


@each_suffix
def test_an_archive_without_members_is_refused(suffix: str) -> None:
    with pytest.raises(NotAnArchive):
        asyncio.run(verdict(an_archive(suffix), [packed(suffix, {})]))


@each_suffix
def test_what_was_refused_once_does_not_end_well(suffix: str) -> None:
    async def play() -> None:
        verifier = verify(an_archive(suffix), root=ROOT)
        with pytest.raises(BadArchive):
            await verifier.update(b"<html>" + GOOD[suffix])
        with pytest.raises(BadArchive):
            await verifier.finish()

    asyncio.run(play())


Read = Callable[[Archive, Iterable[bytes]], Coroutine[Any, Any, Verified]]


def outcome(read: Read, suffix: str, chunks: Iterable[bytes]) -> Verified | tuple[str, str]:
    try:
        return asyncio.run(read(an_archive(suffix), chunks))
    except BadArchive as exc:
        return exc.code, exc.message


@many
@given(
    suffix=st.sampled_from([suffix for suffix in SUFFIXES if suffix != "zip"]),
    inside=st.one_of(st.none(), st.tuples(st.integers(0, 4000), st.integers(1, 255))),
    outside=st.one_of(st.none(), st.tuples(st.integers(0, 800), st.integers(1, 255))),
    more=st.sampled_from((b"", b"\n", b"\x1f\x8b\x08")),
)
def test_of_several_faults_two_threads_find_the_one_that_one_thread_finds(
    suffix: str, inside: tuple[int, int] | None, outside: tuple[int, int] | None, more: bytes
) -> None:
    compress = COMPRESS[suffix]
    whole = flipped(tar(), inside)
    data = flipped(compress(whole[:3000]) + compress(whole[3000:]), outside) + more

    assert outcome(verdict, suffix, [data]) == outcome(verdict_of_one_thread, suffix, [data])


def flipped(data: bytes, bits: tuple[int, int] | None) -> bytes:
    if not bits:
        return data
    damaged = bytearray(data)
    damaged[bits[0] % len(data)] ^= bits[1]
    return bytes(damaged)


def test_a_format_that_cannot_be_verified_is_refused() -> None:
    with pytest.raises(SuffixRefused):
        verify(an_archive("rar"), root=ROOT)


@pytest.mark.parametrize("suffix", ("tar.gz", "zip"))
def test_a_little_that_holds_a_lot_takes_little_memory(suffix: str) -> None:
    data = packed(suffix, {f"{ROOT}/zeros": bytes(100_000_000)})

    tracemalloc.start()
    asyncio.run(verdict(an_archive(suffix), [data]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(data) < 1_000_000
    assert peak < 16_000_000


def test_the_loop_goes_on_while_a_chunk_is_read() -> None:
    noise = random.Random(1).randbytes(2_000_000)  # noqa: S311 - hard to compress
    data = packed("tar.bz2", {f"{ROOT}/noise": noise})
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    async def play() -> None:
        async with asyncio.TaskGroup() as group:
            ticking = group.create_task(tick())
            await verdict(an_archive("tar.bz2"), [data])
            ticking.cancel()

    asyncio.run(play())

    assert ticks >= 10
