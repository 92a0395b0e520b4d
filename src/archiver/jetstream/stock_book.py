"""The last count of what is stored, as an entry among the states of tasks."""

from archiver.jetstream.connection import Connection
from archiver.jetstream.records import RegionStockRecord, StockRecord, decode_stock, encode
from archiver.jetstream.streams import STATES
from archiver.ports.stock import RegionStock, Stock

KEY = "stock.regions"
"""The other keys of the bucket are SHA-256s, names of periodic work, and keys of other words."""


class JetStreamStockBook:
    """Implements ``ports.stock.StockBook``. The next sweep replaces an entry that is not readable.

    An entry of a later release is not read, and is replaced as well: both are counts of the same
    buckets.
    """

    def __init__(self, *, connection: Connection) -> None:
        self._kv = connection.kv

    async def read(self) -> Stock | None:
        entry = await self._kv.get(STATES, KEY)
        record = decode_stock(entry.value) if entry else None
        if record is None:
            return None
        regions = {
            each.region: RegionStock(archives=each.archives, size_bytes=each.size_bytes)
            for each in record.regions
        }
        return Stock(counted_at=record.counted_at, regions=regions)

    async def write(self, stock: Stock) -> None:
        regions = tuple(
            RegionStockRecord(region=region, archives=each.archives, size_bytes=each.size_bytes)
            for region, each in stock.regions.items()
        )
        record = StockRecord(counted_at=stock.counted_at, regions=regions)
        await self._kv.put(STATES, KEY, encode(record))
