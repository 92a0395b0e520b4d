"""Verification of complete, truncated and damaged archives in all formats."""

import asyncio
import bz2
import hashlib
import io
import tarfile
from collections.abc import Callable, Coroutine, Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from archiver.errors import (
    BadArchive,
    CorruptArchive,
    NotAnArchive,
    SuffixRefused,
    TruncatedArchive,
)
from archiver.formats.verify import StreamVerifier
from archiver.model import Archive, Verified
from tests.formats.samples import (
    COMPRESS,
    GOOD,
    ROOT,
    SUFFIXES,
    TREE,
    an_archive,
    contents,
    each_suffix,
    tar,
    verify_chunks,
    verify_in_one_thread,
)

any_suffix = st.sampled_from(SUFFIXES)
few = settings(max_examples=60)
many = settings(max_examples=300)


@each_suffix
def test_a_complete_archive_is_verified_with_its_sha256(suffix: str) -> None:
    verified = asyncio.run(verify_chunks(an_archive(suffix), [GOOD[suffix]]))

    assert verified.sha256 == hashlib.sha256(GOOD[suffix]).hexdigest()
    assert verified.size_bytes == len(GOOD[suffix])
    assert verified.root == ROOT


@few
@given(suffix=any_suffix, cuts=st.lists(st.integers(0, 800), max_size=20))
def test_the_size_of_chunks_does_not_matter(suffix: str, cuts: list[int]) -> None:
    data = GOOD[suffix]
    bounds = [0, *sorted(cuts), len(data)]
    chunks = [data[start:end] for start, end in pairwise(bounds)]

    verified = asyncio.run(verify_chunks(an_archive(suffix), chunks))

    assert verified.sha256 == hashlib.sha256(data).hexdigest()


@each_suffix
def test_bytes_may_arrive_one_by_one(suffix: str) -> None:
    data = GOOD[suffix]

    verified = asyncio.run(verify_chunks(an_archive(suffix), [bytes([byte]) for byte in data]))

    assert verified.size_bytes == len(data)


@each_suffix
def test_every_truncation_of_an_archive_is_rejected(suffix: str) -> None:
    data = GOOD[suffix]

    async def play() -> None:
        for end in range(1, len(data)):
            with pytest.raises(TruncatedArchive):
                await verify_chunks(an_archive(suffix), [data[:end]])

    asyncio.run(play())


@each_suffix
def test_an_empty_stream_is_not_an_archive(suffix: str) -> None:
    with pytest.raises(NotAnArchive):
        asyncio.run(verify_chunks(an_archive(suffix), []))


@few
@given(suffix=any_suffix, more=st.binary(min_size=1, max_size=2000))
def test_bytes_after_the_end_are_rejected(suffix: str, more: bytes) -> None:
    with pytest.raises((CorruptArchive, TruncatedArchive)):
        asyncio.run(verify_chunks(an_archive(suffix), [GOOD[suffix] + more]))


@each_suffix
@pytest.mark.parametrize("more", (b"Internal Server Error", b"\0", b"\n"))
def test_text_that_servers_append_is_rejected(suffix: str, more: bytes) -> None:
    with pytest.raises(CorruptArchive):
        asyncio.run(verify_chunks(an_archive(suffix), [GOOD[suffix], more]))


@each_suffix
@pytest.mark.parametrize("page", (b"<!DOCTYPE html><html></html>", b"<", b"404"))
def test_an_html_page_is_not_an_archive(suffix: str, page: bytes) -> None:
    with pytest.raises((NotAnArchive, TruncatedArchive)):
        asyncio.run(verify_chunks(an_archive(suffix), [page]))


@each_suffix
def test_an_archive_of_another_format_is_rejected(suffix: str) -> None:
    async def play() -> None:
        for other in set(SUFFIXES) - {suffix}:
            with pytest.raises(NotAnArchive):
                await verify_chunks(an_archive(suffix), [GOOD[other]])

    asyncio.run(play())


@many
@given(suffix=any_suffix, position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_damaged_byte_is_rejected_or_harmless(suffix: str, position: int, flip: int) -> None:
    damaged = bytearray(GOOD[suffix])
    damaged[position % len(damaged)] ^= flip

    try:
        asyncio.run(verify_chunks(an_archive(suffix), [bytes(damaged)]))
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
def test_damage_always_raises_bad_archive(
    suffix: str, start: int, length: int, replacement: bytes
) -> None:
    data = GOOD[suffix]
    damaged = data[:start] + replacement + data[start + length :]

    try:
        verified = asyncio.run(verify_chunks(an_archive(suffix), [damaged]))
    except BadArchive:
        return

    assert verified.size_bytes == len(damaged)
    assert contents(suffix, damaged) == contents(suffix, data)


def blocks(data: bytes) -> list[bytes]:
    """The only checksum of a tar is the sum of the bytes in each header."""
    return [data[at : at + 512] for at in range(0, len(data), 512)]


@pytest.mark.thorough
@many
@given(start=st.integers(0, 12_000), replacement=st.binary(max_size=600))
@example(start=136, replacement=b"Br\xdc")  # the sum still matches with signed bytes
def test_damage_to_a_tar_before_its_compression_always_raises_bad_archive(
    start: int, replacement: bytes
) -> None:
    whole = tar()
    damaged = whole[:start] + replacement + whole[start + len(replacement) :]
    assume(
        all(
            a == b or sum(a) != sum(b) for a, b in zip(blocks(whole), blocks(damaged), strict=False)
        )
    )
    compressed = bz2.compress(damaged, 1)

    try:
        verified = asyncio.run(verify_chunks(an_archive("tar.bz2"), [compressed]))
    except BadArchive:
        return

    assert verified.size_bytes == len(compressed)
    with tarfile.open(fileobj=io.BytesIO(damaged)) as archive:
        assert archive.getnames() == list(TREE)


@each_suffix
def test_a_rejected_stream_cannot_be_finished(suffix: str) -> None:
    async def play() -> None:
        verifier = StreamVerifier(an_archive(suffix), root=ROOT, identity=None)
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


@pytest.mark.thorough
@many
@given(
    suffix=st.sampled_from([suffix for suffix in SUFFIXES if suffix != "zip"]),
    inside=st.one_of(st.none(), st.tuples(st.integers(0, 4000), st.integers(1, 255))),
    outside=st.one_of(st.none(), st.tuples(st.integers(0, 800), st.integers(1, 255))),
    more=st.sampled_from((b"", b"\n", b"\x1f\x8b\x08")),
)
def test_two_threads_report_the_same_fault_as_one(
    suffix: str, inside: tuple[int, int] | None, outside: tuple[int, int] | None, more: bytes
) -> None:
    compress = COMPRESS[suffix]
    whole = flipped(tar(), inside)
    data = flipped(compress(whole[:3000]) + compress(whole[3000:]), outside) + more

    assert outcome(verify_chunks, suffix, [data]) == outcome(verify_in_one_thread, suffix, [data])


def flipped(data: bytes, bits: tuple[int, int] | None) -> bytes:
    if not bits:
        return data
    damaged = bytearray(data)
    damaged[bits[0] % len(data)] ^= bits[1]
    return bytes(damaged)


def test_an_unsupported_format_is_rejected() -> None:
    with pytest.raises(SuffixRefused):
        StreamVerifier(an_archive("rar"), root=ROOT, identity=None)
