"""The contract of ``ports.stock.StockBook``, kept by the fake and by NATS."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from archiver.jetstream.stock_book import KEY, JetStreamStockBook
from archiver.jetstream.streams import STATES
from archiver.model import Region
from archiver.ports.stock import RegionStock, Stock, StockBook
from archiver.testing import MemoryStockBook
from tests.parts.fleet import Fleet

OpenBook = Callable[[], AbstractAsyncContextManager[StockBook]]
NOW = datetime.now(UTC)
STOCK = Stock(
    counted_at=NOW,
    regions={
        Region("one"): RegionStock(archives=2, size_bytes=1 << 50),
        Region("two"): RegionStock(archives=0, size_bytes=0),
    },
)


@pytest.fixture(params=("memory", "jetstream"))
def open_book(request: pytest.FixtureRequest) -> OpenBook:
    if request.param == "jetstream":
        fleet: Fleet = request.getfixturevalue("fleet")

    @asynccontextmanager
    async def opened() -> AsyncIterator[StockBook]:
        if request.param == "memory":
            yield MemoryStockBook()
        else:
            async with fleet.connection() as connection:
                yield JetStreamStockBook(connection=connection)

    return opened


def test_the_last_count_is_read(open_book: OpenBook) -> None:
    async def play() -> None:
        async with open_book() as book:
            assert await book.read() is None
            await book.write(Stock(counted_at=NOW - timedelta(days=1), regions={}))
            await book.write(STOCK)
            assert await book.read() == STOCK

    asyncio.run(play())


@pytest.mark.parametrize(
    "value",
    (
        b"?",
        b"{}",
        b'{"counted_at":"2026-11-28T00:00:00Z","regions":[{"region":"one","archives":-1,"size_bytes":0}]}',
        b'{"version":9,"counted_at":"2026-11-28T00:00:00Z","regions":[]}',
    ),
)
def test_an_unreadable_count_is_none_and_is_replaced(fleet: Fleet, value: bytes) -> None:
    async def play() -> None:
        async with fleet.connection() as connection:
            book = JetStreamStockBook(connection=connection)
            await connection.kv.put(STATES, KEY, value)
            assert await book.read() is None
            await book.write(STOCK)
            assert await book.read() == STOCK

    asyncio.run(play())
