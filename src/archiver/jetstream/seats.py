"""Seats of hosts for the whole fleet, as entries among the states of tasks."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeAlias

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.direct_get import KvEntry
from archiver.jetstream.records import SeatsRecord, decode_seats, encode
from archiver.jetstream.streams import STATES
from archiver.jetstream.translation import WrongRevision
from archiver.record_versions import is_newer
from archiver.runtime.tasks import complete_despite_cancellation, in_background
from archiver.runtime.turns import Turns

LEASE = timedelta(seconds=30)

RENEWALS_PER_LEASE = 3

CLOCKS_DIFFER = timedelta(seconds=5)
"""A seat is free so long after its lease: by its holder's clock, the lease may end later."""

POLL_S = (0.2, 1.0)
"""A random time between these passes until a process looks again for a free seat."""

RETRY_S = 1.0
"""Until the next renewal after one that failed."""

WRITES_MAX = 10
"""All processes that take, renew and give back seats of one source write the same entry."""

WRITE_AGAIN_S = (0.005, 0.05)

Holders: TypeAlias = Mapping[str, datetime]
"""The ends of the leases by their holders."""

Change: TypeAlias = Callable[[Holders], Holders | None]
"""Returns the holders after a change, or None if there is no such change."""


class JetStreamSeats:
    """Implements ``ports.seats.Seats``. *numbers* are the seats of each source.

    The seats of a source are one entry, which lists the holders. Each write replaces the revision
    that was read before, so no two processes get the same seat. If the engine loses the entry,
    holders enter themselves again: until then, a third of a lease at most, there may be twice as
    many. The other keys of the bucket are SHA-256s, and names of periodic work without a dot.
    """

    def __init__(
        self,
        *,
        connection: Connection,
        numbers: Mapping[str, int],
        lease: timedelta = LEASE,
        clocks_differ: timedelta = CLOCKS_DIFFER,
    ) -> None:
        self._connection = connection
        self._numbers = numbers
        self._lease = lease
        self._clocks_differ = clocks_differ
        self._line = Turns()

    @asynccontextmanager
    async def take(self, source: str) -> AsyncIterator[None]:
        seat = _Seat(
            connection=self._connection,
            source=source,
            number=self._numbers[source],
            lease=self._lease,
            clocks_differ=self._clocks_differ,
        )
        try:
            async with self._line.of(source):  # of all that wait in this process, one asks
                ends_at = await seat.wait()
            async with _lasting_until(ends_at) as lease, in_background(seat.keep_renewed(lease)):
                yield
        finally:
            await complete_despite_cancellation(seat.give_back())


@asynccontextmanager
async def _lasting_until(ends_at: float) -> AsyncIterator[asyncio.Timeout]:
    """Cancel the block when the lease has ended, and raise EngineUnavailable then."""
    lease = asyncio.timeout_at(ends_at)
    try:
        async with lease:
            yield lease
    except TimeoutError as exc:
        if lease.expired():
            raise EngineUnavailable("a fetch has lost its right to use the host") from exc
        raise


class _Seat:
    """One seat: wanted, held or given back."""

    def __init__(
        self,
        *,
        connection: Connection,
        source: str,
        number: int,
        lease: timedelta,
        clocks_differ: timedelta,
    ) -> None:
        self._connection = connection
        self._key = f"seats.{source}"
        self._number = number
        self._lease = lease
        self._clocks_differ = clocks_differ
        self._holder = secrets.token_hex(8)
        self._is_listed = False

    async def wait(self) -> float:
        """Return when a seat was free and is held now: the end of its lease, in the loop's time.

        Raises EngineUnavailable.
        """
        while True:
            began = asyncio.get_running_loop().time()
            if await complete_despite_cancellation(self._take_or_renew()):
                return began + self._lease.total_seconds()
            await asyncio.sleep(random.uniform(*POLL_S))  # noqa: S311 - spreads the processes

    async def keep_renewed(self, lease: asyncio.Timeout) -> None:
        """Renew the seat until cancelled, and *lease* with it. End *lease* if the seat is lost."""
        loop, interval_s = asyncio.get_running_loop(), self._lease.total_seconds()
        delay_s = interval_s / RENEWALS_PER_LEASE
        while not lease.expired():
            await asyncio.sleep(delay_s)
            began = loop.time()
            try:
                kept = await self._take_or_renew()
            except EngineUnavailable:
                delay_s = min(RETRY_S, interval_s / RENEWALS_PER_LEASE)
                continue
            delay_s = interval_s / RENEWALS_PER_LEASE
            if not lease.expired():
                lease.reschedule(began + interval_s if kept else began)

    async def give_back(self) -> None:
        """Leave the list of holders. If that fails, the lease ends by itself."""
        if self._is_listed:
            with suppress(EngineUnavailable):
                await self._change(self._without)

    async def _take_or_renew(self) -> bool:
        """Return whether the seat is held now. Raises EngineUnavailable."""
        until = datetime.now(UTC) + self._lease
        return await self._change(partial(self._with, until))

    def _with(self, until: datetime, holders: Holders) -> Holders | None:
        if self._holder not in holders and len(holders) >= self._number:
            return None
        self._is_listed = True  # from now on, even if the answer to the write is lost
        return {**holders, self._holder: until}

    def _without(self, holders: Holders) -> Holders | None:
        others = {name: until for name, until in holders.items() if name != self._holder}
        return others if self._holder in holders else None

    async def _change(self, change: Change) -> bool:
        """Return whether the holders were changed; False if *change* returned None.

        Raises EngineUnavailable.
        """
        kv = self._connection.kv
        for _ in range(WRITES_MAX):
            entry = await kv.get_or_marker(STATES, self._key)
            holders = change(self._living(entry))
            if holders is None:
                return False
            value = encode(SeatsRecord(holders=holders))
            try:
                await kv.update(STATES, self._key, value, revision=entry.revision if entry else 0)
            except WrongRevision:
                await asyncio.sleep(random.uniform(*WRITE_AGAIN_S))  # noqa: S311 - spreads them
            else:
                return True
        raise EngineUnavailable("the engine does not accept the holders of a host's seats")

    def _living(self, entry: KvEntry | None) -> Holders:
        """Return the holders in *entry* whose leases have not ended; none if it is unreadable.

        Raises EngineUnavailable if a later release keeps them, which must not be overwritten.
        """
        if entry is None or not entry.value:
            return {}
        record = decode_seats(entry.value)
        if record is None:
            newer = is_newer("seats", entry.value)
            self._connection.unreadable.note(STATES, self._key, entry.revision, newer=newer)
            if newer:
                raise EngineUnavailable("a later release keeps the seats of the host")
            return {}
        now = datetime.now(UTC) - self._clocks_differ
        return {name: until for name, until in record.holders.items() if until > now}
