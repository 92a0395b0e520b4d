"""The breakers of the fleet, as entries among the states of tasks."""

import asyncio
import hashlib
import random
from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

from archiver.breaker import CLEAN, Breaker, BreakerName
from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.direct_get import KvEntry
from archiver.jetstream.feed import BREAKER, FEED
from archiver.jetstream.records import (
    BreakerEvent,
    BreakerRecord,
    decode_breaker,
    decode_breaker_event,
    encode,
)
from archiver.jetstream.streams import STATES
from archiver.jetstream.translation import WrongRevision
from archiver.ports.breakers import Change, Step
from archiver.record_versions import is_newer
from archiver.runtime.notifications import Subscribers
from archiver.runtime.turns import Turns
from archiver.telemetry import log

PATIENCE = timedelta(seconds=1)
"""How long a change waits for the engine. A client may wait for it."""

READ_EVERY = timedelta(seconds=30)
"""Events may be lost without a sign, and entries without an event."""

WRITES_MAX = 10
WRITE_AGAIN_S = (0.002, 0.02)


class _Known(NamedTuple):
    """A breaker, and the revision of the entry that it was last read from or written to."""

    breaker: Breaker = CLEAN
    revision: int = 0


class JetStreamBreakers:
    """Implements ``ports.breakers.Breakers`` for these *names*.

    Each breaker is one entry. Each write replaces the revision that is known, and is announced to
    all processes with its content. Unreadable entries count as closed, and the next write replaces
    them. The other keys of the bucket are SHA-256s, names of periodic work, and those of seats.
    """

    def __init__(self, *, connection: Connection, names: Collection[BreakerName]) -> None:
        self.changes: Subscribers[[BreakerName]] = Subscribers()
        self._connection = connection
        self._names = {name.key: name for name in names}
        self._known = dict.fromkeys(names, _Known())
        self._turns = Turns()
        self._outdated = asyncio.Event()
        self._outdated.set()
        connection.feed.subscribe(BREAKER, self._on_event)
        connection.feed.gaps.add(self._outdated.set)

    def known(self, name: BreakerName) -> Breaker:
        return self._known.get(name, _Known()).breaker

    async def change(self, name: BreakerName, step: Step) -> Change:
        before = self.known(name)
        if step(before) == before:
            return Change(before=before, after=before)
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()), self._turns.of(name.key):
                return await self._change_stored(name, step)
        except (EngineUnavailable, TimeoutError):
            before, revision = self._known[name]
            self._learn(name, _Known(step(before), revision))
            return Change(before=before, after=self.known(name))

    async def _change_stored(self, name: BreakerName, step: Step) -> Change:
        """Change the entry of the fleet. Raises EngineUnavailable."""
        for _ in range(WRITES_MAX):
            before, revision = self._known[name]
            after = step(before)
            if after == before:
                return Change(before=before, after=after)
            record = BreakerRecord.of(after)
            try:
                revision = await self._connection.kv.update(
                    STATES, name.key, encode(record), revision=revision
                )
            except WrongRevision:
                await self._read(name)
                await asyncio.sleep(random.uniform(*WRITE_AGAIN_S))  # noqa: S311 - spreads them
            else:
                self._learn(name, _Known(after, revision))
                event = BreakerEvent(key=name.key, record=record, revision=revision)
                token = hashlib.sha256(name.key.encode()).hexdigest()
                await self._connection.feed.publish(BREAKER, token, encode(event))
                return Change(before=before, after=after)
        raise EngineUnavailable("the engine does not accept the state of a breaker")

    async def keep_current(self) -> None:
        """Read the breakers after each gap in the events, and now and then, until cancelled."""
        while True:
            self._outdated.clear()
            try:
                for name in self._known:
                    await self._read(name)
            except EngineUnavailable as exc:
                log.debug("breakers.not_read", code=exc.code)
            with suppress(TimeoutError):
                async with asyncio.timeout(READ_EVERY.total_seconds()):
                    await self._outdated.wait()

    async def _read(self, name: BreakerName) -> None:
        """Learn the breaker of the fleet, unless a newer one becomes known at the same time."""
        before = self._known[name]
        entry = await self._connection.kv.get_or_marker(STATES, name.key)
        found = _Known(self._breaker(name, entry), entry.revision if entry else 0)
        if self._known[name] == before or self._known[name].revision < found.revision:
            self._learn(name, found)

    def _breaker(self, name: BreakerName, entry: KvEntry | None) -> Breaker:
        if entry is None or not entry.value:
            return CLEAN
        record = decode_breaker(entry.value)
        if record is None:
            newer = is_newer("breaker", entry.value)
            self._connection.unreadable.note(STATES, name.key, entry.revision, newer=newer)
            return CLEAN
        return record.breaker

    def _on_event(self, token: str, payload: bytes) -> None:
        event = decode_breaker_event(payload)
        if event is None:
            self._connection.unreadable.note(FEED, token)
        elif (name := self._names.get(event.key)) and self._known[name].revision < event.revision:
            self._learn(name, _Known(event.record.breaker, event.revision))

    def _learn(self, name: BreakerName, known: _Known) -> None:
        before, self._known[name] = self._known[name], known
        if before.breaker != known.breaker:
            self.changes.notify(name)
