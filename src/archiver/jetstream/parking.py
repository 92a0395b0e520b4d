"""Tasks of clients with many of them, which wait outside of the lanes until their client's turn."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta

from archiver.errors import EngineUnavailable
from archiver.jetstream.consumers import consumer_name, share_of_cap
from archiver.jetstream.lanes import room_of
from archiver.jetstream.task_stream import TaskStream
from archiver.jetstream.task_subject import PARKED, TaskSubject
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.tasks import Priority
from archiver.telemetry import log

LISTED_FOR = timedelta(seconds=30)
"""To name the clients, the server lists all parked tasks of a source: 2 MB for 20,000. Between two
lists, a worker hears of new ones as they are stored."""


class Parking:
    """Moves parked tasks to the middle lane while that has room, one of each client in turn.

    Every worker does so for the sources of *caps*. If several do at the same moment, the lane gets
    a task too many from each. A task is moved once: the server refuses the second move.
    """

    def __init__(self, *, tasks: TaskStream, caps: Mapping[str, int]) -> None:
        self._tasks = tasks
        self._rooms = {
            source: room_of(share_of_cap(cap, Priority.MIDDLE)) for source, cap in caps.items()
        }
        self._clients: dict[str, set[str]] = {source: set() for source in caps}
        self._listed: BoundedCache[str, None] = BoundedCache(ttl=LISTED_FOR, max_bytes=MEGABYTE)
        self._last: dict[str, str] = {}
        self._due = dict.fromkeys(caps)
        self._changed = asyncio.Event()

    def note(self, task: TaskSubject) -> None:
        """Note that *task*, which may be parked, was stored."""
        if task.priority == PARKED and task.source in self._clients:
            self._clients[task.source].add(task.client)
            self.check(task.source)

    def check(self, *sources: str) -> None:
        """Look soon whether the middle lanes of *sources* have room for parked tasks."""
        self._due |= dict.fromkeys(sources)
        self._changed.set()

    def check_all(self) -> None:
        self.check(*self._rooms)

    def start_over(self) -> None:
        """List the parked tasks again: some may have been stored unheard."""
        self._listed.clear()
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
        clients = self._clients[source]
        if source not in self._listed:
            clients |= await self._tasks.clients(PARKED, source)
            self._listed.put(source, None)
        while clients and await self._has_room(source):
            client = next_in_turn(clients, self._last.get(source, ""))
            self._last[source] = client
            await self._move_or_forget(source, client)

    async def _has_room(self, source: str) -> bool:
        lane = await self._tasks.consumer(consumer_name(source, Priority.MIDDLE))
        return lane is not None and (lane.num_pending or 0) < self._rooms[source]

    async def _move_or_forget(self, source: str, client: str) -> None:
        """Move the oldest parked task of *client*, or forget the client if there is none.

        It is forgotten beforehand, because it may be noted again meanwhile.
        """
        clients, found = self._clients[source], True
        clients.discard(client)
        try:
            found = await self._move_first(source, client)
        finally:
            if found:
                clients.add(client)

    async def _move_first(self, source: str, client: str) -> bool:
        message = await self._tasks.first(self._tasks.subject(PARKED, source, client, "*"))
        if message is None:
            return False
        key_hash = self._tasks.parse(message.subject).key_hash
        target = self._tasks.subject(Priority.MIDDLE, source, client, key_hash)
        await self._tasks.move(message, target)
        return True


def next_in_turn(clients: Iterable[str], last: str) -> str:
    """Return the client after the one that had the *last* turn, in a fixed circle."""
    return min(clients, key=lambda client: (client <= last, client))
