"""What ``ports.Index`` promises, of the fake and of the real one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

import pytest

from archiver.jetstream.index import JetStreamIndex
from archiver.manifest_check import find_invalid_field
from archiver.model import Node
from archiver.ports.index import Index, Resolved
from archiver.testing import MemoryIndex, MemoryStorage
from archiver.tree_proof import COMMIT_MAX_BYTES
from tests.parts.fleet import a_proven_archive, an_archive, copies_of, prepared, proven_copies
from tests.parts.nats import Nats

Open = Callable[[], AbstractAsyncContextManager[Index]]


@asynccontextmanager
async def _memory() -> AsyncIterator[Index]:
    yield MemoryIndex()


@pytest.fixture(params=("memory", "jetstream"))
def opened(request: pytest.FixtureRequest, nats: Nats, namespace: str) -> Open:
    if request.param == "memory":
        return _memory
    fleet = prepared(nats, namespace)

    @asynccontextmanager
    async def jetstream() -> AsyncIterator[Index]:
        async with fleet.connection() as connection:
            yield JetStreamIndex(
                connection=connection, storage=MemoryStorage(regions=("one", "two"))
            )

    return jetstream


def test_recorded_copies_are_found(opened: Open) -> None:
    async def play() -> None:
        archive = an_archive()
        copies = copies_of(archive, "one", "two")
        async with opened() as index:
            assert await index.copies(archive) is None
            await index.record(archive, copies)
            assert await index.copies(archive) == copies

    asyncio.run(play())


@pytest.mark.parametrize("commit_bytes", (200, COMMIT_MAX_BYTES))
def test_the_index_leaves_out_the_commit_of_a_proof(opened: Open, commit_bytes: int) -> None:
    async def play() -> None:
        archive, proof = a_proven_archive(commit_bytes - len("tree \n") - 40)
        copies = proven_copies(archive, proof, "one", "two")
        async with opened() as index:
            await index.record(archive, copies)
            found = await index.copies(archive)
            assert found == copies
            assert found.manifest.proof
            assert found.manifest.proof.commit == b""
            assert find_invalid_field(found.manifest, archive) is None

    asyncio.run(play())


def test_a_removal_says_whether_the_index_had_the_archive(opened: Open) -> None:
    async def play() -> None:
        archive = an_archive()
        async with opened() as index:
            assert not await index.remove(archive, ())
            await index.record(archive, copies_of(archive))
            assert not await index.remove(archive, ()), "the buckets do not have it"

            other = an_archive()
            await index.record(other, copies_of(other))
            assert await index.remove(other, ())
            assert not await index.remove(other, ())
            assert await index.copies(other) is None

    asyncio.run(play())


def test_a_later_record_replaces_the_earlier_one(opened: Open) -> None:
    async def play() -> None:
        archive = an_archive()
        more = copies_of(archive, "one", "two")
        async with opened() as index:
            await index.record(archive, copies_of(archive, "one"))
            await index.copies(archive)
            await index.record(archive, more)
            assert await index.copies(archive) == more

    asyncio.run(play())


def test_archives_are_not_mixed_up(opened: Open) -> None:
    async def play() -> None:
        one, two = an_archive(), an_archive()
        async with opened() as index:
            await index.record(one, copies_of(one))
            assert await index.copies(two) is None

    asyncio.run(play())


def test_an_archive_is_found_by_the_digest_of_its_bytes(opened: Open) -> None:
    async def play() -> None:
        one, two = an_archive(), an_archive()
        async with opened() as index:
            assert await index.by_sha256("1" * 64) == ()
            await index.record(one, copies_of(one, sha256="1" * 64))
            await index.record(two, copies_of(two, sha256="2" * 64))
            assert await index.by_sha256("1" * 64) == (one,)
            assert await index.by_sha256("2" * 64) == (two,)

    asyncio.run(play())


def test_archives_with_the_same_bytes_are_found_the_latest_to_be_recorded_first(
    opened: Open,
) -> None:
    async def play() -> None:
        one, two, three = an_archive(), an_archive(), an_archive()
        async with opened() as index:
            for twin in (one, two, three, one):
                await index.record(twin, copies_of(twin, sha256="3" * 64))
            assert await index.by_sha256("3" * 64) == (one, three, two)

    asyncio.run(play())


def test_the_node_of_a_rev_is_remembered_with_its_moment(opened: Open) -> None:
    async def play() -> None:
        resolved = Resolved(node=Node("a" * 40), at=datetime.now(UTC))
        async with opened() as index:
            assert await index.node("hgmo", "projects/ash", "tip") is None
            await index.remember("hgmo", "projects/ash", "tip", resolved)
            assert await index.node("hgmo", "projects/ash", "tip") == resolved
            assert await index.node("hgmo", "projects", "ash/tip") is None

    asyncio.run(play())


def test_a_node_that_is_not_shared_is_remembered_by_this_process_alone(opened: Open) -> None:
    async def play() -> None:
        resolved = Resolved(node=Node("a" * 40), at=datetime.now(UTC))
        async with opened() as index, opened() as another:
            await index.remember("hgmo", "projects/ash", "tip", resolved, share=False)
            assert await index.node("hgmo", "projects/ash", "tip") == resolved
            assert await another.node("hgmo", "projects/ash", "tip") is None

    asyncio.run(play())
