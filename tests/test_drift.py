"""Differences between two lists of members."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.drift import DIFFERENCES_MAX, HELD_MAX_BYTES, Content, Difference, Drift, compare
from archiver.errors import ArchiveTooLarge

A, B, C = (
    Content(name=name, kind="file", mode=0o644, mtime=1, size_bytes=1, sha256=name.hex())
    for name in (b"a", b"b", b"c")
)


async def listing(contents: Sequence[Content]) -> AsyncGenerator[Sequence[Content], None]:
    for start in range(0, len(contents), 2):
        yield contents[start : start + 2]


def drift(stored: Sequence[Content], fetched: Sequence[Content]) -> Drift:
    return asyncio.run(compare(listing(stored), listing(fetched)))


def test_equal_members_have_no_drift() -> None:
    assert not drift((A, B, C), (A, B, C))
    assert not drift((), ())


@pytest.mark.parametrize(
    ("changes", "aspects"),
    (
        ({"mode": 0o755}, ("mode",)),
        ({"mtime": 2}, ("time",)),
        ({"sha256": "f"}, ("content",)),
        ({"size_bytes": 2, "sha256": "f"}, ("content",)),
        ({"kind": "link", "link": b"c", "sha256": ""}, ("kind", "link", "content")),
    ),
)
def test_the_differing_aspects_of_a_member_are_named(
    changes: dict[str, object], aspects: tuple[str, ...]
) -> None:
    other = replace(B, **changes)  # type: ignore[arg-type]

    found = drift((A, B, C), (A, other, C))

    assert found.differences == (Difference(name=b"b", stored=B, fetched=other),)
    assert found.differences[0].aspects == aspects
    assert (found.members, found.reordered) == (1, False)


def test_a_missing_member_does_not_reorder_the_others() -> None:
    for lacking in ((B, C), (A, C), (A, B)):
        found = drift((A, B, C), lacking)
        (difference,) = found.differences
        assert difference.stored not in lacking
        assert (difference.fetched, difference.aspects) == (None, ())
        assert not found.reordered

        turned = drift(lacking, (A, B, C))
        assert turned.differences[0].fetched == difference.stored
        assert not turned.reordered


def test_another_order_is_drift_without_differing_members() -> None:
    found = drift((A, B, C), (B, A, C))

    assert found
    assert found == Drift(members=0, differences=(), reordered=True)


def test_a_repeated_name_is_two_members() -> None:
    other = replace(A, sha256="f")

    assert not drift((A, other, B), (A, other, B))
    assert drift((A, other, B), (A, B)).differences == (
        Difference(name=b"a", stored=other, fetched=None),
    )
    assert drift((B, C, A, other), (A, other, B, C)).members == 0


def test_all_differences_are_counted_and_the_first_are_reported() -> None:
    many = [replace(A, name=b"%d" % number) for number in range(DIFFERENCES_MAX + 5)]

    found = drift(many, [replace(content, mode=0) for content in many])

    assert found.members == DIFFERENCES_MAX + 5
    assert len(found.differences) == DIFFERENCES_MAX


def test_members_without_counterpart_take_bounded_memory() -> None:
    async def many(count: int) -> AsyncGenerator[Sequence[Content], None]:
        large = replace(A, name=bytes(1 << 20))
        for _ in range(count):
            yield (large,)

    async def differ(count: int) -> int:
        return (await compare(many(count), listing([B] * count))).members

    most = HELD_MAX_BYTES >> 20

    assert asyncio.run(differ(most // 2)) == most // 2 * 2
    with pytest.raises(ArchiveTooLarge):
        asyncio.run(differ(most))


@pytest.mark.parametrize("ended", ("stored", "fetched"))
def test_members_after_the_end_of_the_other_archive_take_no_memory(ended: str) -> None:
    large = replace(A, name=bytes(1 << 20))
    short, long = (C, A), (A, B, *[large] * (HELD_MAX_BYTES >> 19), C)

    async def differ() -> tuple[int, bool, bool]:
        pair = (short, long) if ended == "stored" else (long, short)
        found = await compare(*map(listing, pair))
        paired = any(each.stored and each.fetched for each in found.differences)
        return found.members, found.reordered, paired

    assert asyncio.run(differ()) == (len(long) - 2, True, False)


names = st.lists(st.sampled_from(b"abcdefgh"), unique=True)


@given(stored=names, fetched=names)
def test_the_streaming_comparison_equals_a_comparison_in_memory(
    stored: list[int], fetched: list[int]
) -> None:
    def contents(names: list[int]) -> list[Content]:
        return [replace(A, name=bytes([name])) for name in names]

    found = drift(contents(stored), contents(fetched))

    assert {each.name[0] for each in found.differences} == set(stored) ^ set(fetched)
    assert found.reordered == (
        [name for name in stored if name in fetched] != [name for name in fetched if name in stored]
    )
