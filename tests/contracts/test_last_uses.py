"""What ``ports.LastUses`` promises, of the fake and of the real one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import date, timedelta

import pytest

from archiver.errors import EngineUnavailable
from archiver.jetstream.last_uses import JetStreamLastUses
from archiver.jetstream.streams import USES
from archiver.ports.last_uses import LastUses
from archiver.testing import MemoryLastUses
from tests.parts.fleet import an_archive, limited, prepared
from tests.parts.nats import Nats

Open = Callable[[], AbstractAsyncContextManager[LastUses]]

DAY = date(2026, 11, 27)


@asynccontextmanager
async def _memory() -> AsyncIterator[LastUses]:
    yield MemoryLastUses()


@pytest.fixture(params=("memory", "jetstream"))
def opened(request: pytest.FixtureRequest, nats: Nats, namespace: str) -> Open:
    if request.param == "memory":
        return _memory
    fleet = prepared(nats, namespace)

    @asynccontextmanager
    async def jetstream() -> AsyncIterator[LastUses]:
        async with fleet.connection() as connection:
            yield JetStreamLastUses(connection=connection)

    return jetstream


async def recorded(uses: LastUses) -> dict[str, date]:
    return {key_hash: day async for key_hash, day in uses.scan()}


def test_the_last_day_of_each_archive_is_kept(opened: Open) -> None:
    async def play() -> None:
        archives = [an_archive().key_hash for _ in range(100)]
        async with opened() as uses:
            assert await uses.since() is None
            assert await recorded(uses) == {}
            await uses.record(archives, DAY)
            await uses.record(archives[:10], DAY + timedelta(days=3))
            expected = dict.fromkeys(archives, DAY)
            expected |= dict.fromkeys(archives[:10], DAY + timedelta(days=3))
            assert await recorded(uses) == expected
            assert await uses.day(archives[0]) == DAY + timedelta(days=3)
            assert await uses.day(archives[99]) == DAY
            assert await uses.day(an_archive().key_hash) is None
            assert await uses.since() == DAY

    asyncio.run(play())


def test_an_outage_in_the_middle_of_a_batch_is_reported_as_one(nats: Nats, namespace: str) -> None:
    """Otherwise it would end the recording of uses, and archives would expire while in use."""
    fleet = prepared(nats, namespace)

    async def play() -> None:
        async with fleet.connection() as connection:
            uses, key_hash = JetStreamLastUses(connection=connection), an_archive().key_hash
            await uses.record([key_hash], DAY)
            stream = connection.streams.bucket_stream(USES)
            async with limited(connection, stream, max_msg_size=1):
                with pytest.raises(EngineUnavailable):
                    await uses.record([key_hash, an_archive().key_hash], DAY + timedelta(days=1))
            assert await recorded(uses) == {key_hash: DAY}

    asyncio.run(play())


def test_an_unreadable_day_is_skipped_and_removed(nats: Nats, namespace: str) -> None:
    fleet = prepared(nats, namespace)

    async def play() -> None:
        async with fleet.connection() as connection:
            uses, key_hash = JetStreamLastUses(connection=connection), an_archive().key_hash
            for value in (b"soon", b"2026-13-01", b"\xff", b"9" * 5000):
                await connection.kv.put(USES, key_hash, value)
                await connection.kv.put(USES, "since", value)
                assert await recorded(uses) == {}
                assert await uses.since() is None
                assert await connection.kv.get(USES, key_hash) is None

    asyncio.run(play())
