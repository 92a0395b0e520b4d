"""What the regions have stored, as a sweep has counted it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from archiver.model import Region


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionStock:
    """The archives of a region that have a manifest, and the bytes of all objects there."""

    archives: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """The stock of each region, and when it was counted."""

    counted_at: datetime
    regions: Mapping[Region, RegionStock]


class StockBook(Protocol):
    """Keeps the last count for the whole fleet, for a week.

    Every method raises EngineUnavailable if its effect or its answer is not certain.
    """

    async def read(self) -> Stock | None:
        """Return the last count; None if there is none."""

    async def write(self, stock: Stock) -> None:
        """Replace the last count."""
