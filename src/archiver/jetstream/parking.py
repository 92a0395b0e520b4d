"""Tasks that wait outside of the lanes: for the turn of their client, or for room at the source."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta

from nats.js.api import ConsumerInfo

from archiver.errors import EngineUnavailable
from archiver.jetstream.consumers import consumer_name, share_of_cap
from archiver.jetstream.lanes import room_of
from archiver.jetstream.task_stream import TaskStream
from archiver.jetstream.task_subject import DEFERRED, PARKED, TaskSubject
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.tasks import Priority
from archiver.telemetry import log

LISTED_FOR = timedelta(seconds=30)
"""To name the clients, the server lists all tasks of a source in one place: 2 MB for 20,000.
Between two lists, a worker hears of new ones as they are stored."""

PLACES = (PARKED, DEFERRED)
"""A deferred task is moved only if none is parked."""


class Parking:
    """Moves tasks from outside to the middle lane while that has room, one of each client in turn.

    Parked tasks fill the lane. Deferred ones are moved while no other task waits there and less
    than half of its share is in use, so that a build can start as soon as a client causes one.

    Every worker does so for the sources of *caps*. If several do at the same moment, the lane gets
    a task too many from each. A task is moved once: the server refuses the second move.
    """

    def __init__(self, *, tasks: TaskStream, caps: Mapping[str, int]) -> None:
        self._tasks = tasks
        self._shares = {source: share_of_cap(cap, Priority.MIDDLE) for source, cap in caps.items()}
        self._yards = {place: _Yard(place, tasks=tasks, sources=caps) for place in PLACES}
        self._due = dict.fromkeys(caps)
        self._changed = asyncio.Event()

    def note(self, task: TaskSubject) -> None:
        """Note that *task*, which may be outside of the lanes, was stored."""
        yard = self._yards.get(task.priority)
        if yard and task.source in self._shares:
            yard.clients[task.source].add(task.client)
            self.check(task.source)

    def check(self, *sources: str) -> None:
        """Look soon whether the middle lanes of *sources* have room for tasks from outside."""
        self._due |= dict.fromkeys(sources)
        self._changed.set()

    def check_all(self) -> None:
        self.check(*self._shares)

    def start_over(self) -> None:
        """List the tasks again: some may have been stored unheard."""
        for yard in self._yards.values():
            yard.listed.clear()
        self.check_all()

    async def keep_lanes_filled(self) -> None:
        """Move tasks after each check, until cancelled. The next check repeats one that failed."""
        self.check_all()
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._due:
                source, _ = self._due.popitem()
                try:
                    await self._fill(source)
                except EngineUnavailable as exc:
                    log.debug("parking.not_checked", code=exc.code)
                except Exception:  # noqa: BLE001 - the next check may succeed
                    log.exception("parking.broken")

    async def _fill(self, source: str) -> None:
        for place in PLACES:
            yard = self._yards[place]
            clients = await yard.list_clients(source)
            while clients and await self._has_room(place, source):
                await yard.move_next(source)
            if clients:
                return

    async def _has_room(self, place: str, source: str) -> bool:
        lane = await self._tasks.consumer(consumer_name(source, Priority.MIDDLE))
        if lane is None:
            return False
        waiting = lane.num_pending or 0
        if place == PARKED:
            return waiting < room_of(self._shares[source])
        return not waiting and 2 * await self._running(lane, source) < self._shares[source]

    async def _running(self, lane: ConsumerInfo, source: str) -> int:
        """Return how many tasks of the middle lane have begun and not ended.

        A server that was killed may remember deliveries of messages that are gone. It forgets them
        when a worker requests the next message, and no worker does so while the lane is empty.
        """
        delivered = lane.num_ack_pending or 0
        if delivered:
            delivered = min(delivered, await self._tasks.count_in(Priority.MIDDLE, source))
        return delivered


class _Yard:
    """The *clients* with tasks in a *place* outside of the lanes, by source, and their turns."""

    def __init__(self, place: str, *, tasks: TaskStream, sources: Iterable[str]) -> None:
        self.clients: dict[str, set[str]] = {source: set() for source in sources}
        self.listed: BoundedCache[str, None] = BoundedCache(ttl=LISTED_FOR, max_bytes=MEGABYTE)
        self._place = place
        self._tasks = tasks
        self._last: dict[str, str] = {}

    async def list_clients(self, source: str) -> set[str]:
        clients = self.clients[source]
        if source not in self.listed:
            clients |= await self._tasks.clients(self._place, source)
            self.listed.put(source, None)
        return clients

    async def move_next(self, source: str) -> None:
        """Move the oldest task of the next client. Forget a client without one.

        It is forgotten beforehand, because it may be noted again during the request.
        """
        clients, found = self.clients[source], True
        client = next_in_turn(clients, self._last.get(source, ""))
        self._last[source] = client
        clients.discard(client)
        try:
            found = await self._move_first(source, client)
        finally:
            if found:
                clients.add(client)

    async def _move_first(self, source: str, client: str) -> bool:
        message = await self._tasks.first(self._tasks.subject(self._place, source, client, "*"))
        if message is None:
            return False
        key_hash = self._tasks.parse(message.subject).key_hash
        target = self._tasks.subject(Priority.MIDDLE, source, client, key_hash)
        await self._tasks.move(message, target)
        return True


def next_in_turn(clients: Iterable[str], last: str) -> str:
    """Return the client after the one that had the *last* turn, in a fixed circle."""
    return min(clients, key=lambda client: (client <= last, client))
