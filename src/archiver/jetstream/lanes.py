"""How busy the lanes of a source are, and which lane a new task of a client gets."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeAlias

from nats.js.api import ConsumerInfo

from archiver.errors import EngineUnavailable
from archiver.jetstream.consumers import consumer_name
from archiver.jetstream.task_stream import TaskStream
from archiver.jetstream.task_subject import DEFERRED, PARKED, TaskSubject
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.single_flight import SingleFlight
from archiver.tasks import LIGHT_MAX, Priority

LOADS_TTL = timedelta(seconds=1)
"""Bounds the requests to the server, however many clients wait."""

SOURCES_MAX_BYTES = MEGABYTE
"""For values per source: more than any installation has."""

CLIENTS = (Priority.HIGH, Priority.MIDDLE)
"""The lanes of clients' tasks."""


@dataclass(slots=True, kw_only=True)
class Load:
    """The tasks of a lane, as the server reported them, and those ``created`` since then.

    ``share`` of them may run at a time. ``unheard`` of those created are from this process, which
    has not heard of them as it hears of others.
    """

    waiting: int
    running: int
    share: int
    created: int = 0
    unheard: int = 0

    @property
    def rounds(self) -> float:
        """How many rounds of builds it takes until all tasks have run."""
        return (self.waiting + self.running + self.created) / self.share

    def count(self) -> None:
        """Count a task that this process is about to create."""
        self.created += 1
        self.unheard += 1

    def hear(self) -> None:
        """Count a task that was published, unless it was counted before."""
        if self.unheard:
            self.unheard -= 1
        else:
            self.created += 1


Loads: TypeAlias = Mapping[str, Load]
"""The lanes for which the server has a consumer: none until a worker has run. With them, the tasks
that wait outside of them, PARKED or DEFERRED."""


class Lanes:
    """Reads the loads of each source at most once a second, and counts what is published since.

    Otherwise each of several web processes would fill the lanes within the same second.
    """

    def __init__(self, *, tasks: TaskStream) -> None:
        self._tasks = tasks
        tasks.published.add(self._hear)
        self._loads: BoundedCache[str, dict[str, Load]] = BoundedCache(
            ttl=LOADS_TTL, max_bytes=SOURCES_MAX_BYTES
        )
        self._reading: SingleFlight[str, dict[str, Load]] = SingleFlight()

    async def loads(self, source: str) -> Loads:
        """Return the loads of the lanes of clients; none if the engine does not answer."""
        loads = self._loads.get(source)
        if loads is None:
            loads = await self._reading.join_or_start(source, lambda: self._read(source))
        return loads

    async def _read(self, source: str) -> dict[str, Load]:
        await self._tasks.listen()
        names = [consumer_name(source, priority) for priority in CLIENTS]
        loads: dict[str, Load] = {}
        with suppress(EngineUnavailable):
            outside = {
                lane: await self._tasks.count_in(lane, source) for lane in (PARKED, DEFERRED)
            }
            found = await asyncio.gather(*map(self._tasks.consumer, names))
            loads = {p: _load(one) for p, one in zip(CLIENTS, found, strict=True) if one}
            if loads:
                for lane, count in outside.items():
                    loads[lane] = Load(waiting=count, running=0, share=1)
        self._loads.put(source, loads)
        return loads

    def _hear(self, task: TaskSubject) -> None:
        loads = self._loads.get(task.source)
        if loads and (load := loads.get(task.priority)):
            load.hear()

    async def waiting(self, source: str) -> int:
        """Return how many tasks of clients wait for *source*. Raises EngineUnavailable.

        Until a worker has run, all tasks are counted.
        """
        loads = await self.loads(source)
        if not loads:
            return await self._tasks.count()
        return sum(load.waiting + load.created for load in loads.values())

    async def load_before(self, source: str, lane: str) -> Load | None:
        """Return the load of a lane.

        For PARKED, it is that of the middle one and all that is parked; for DEFERRED, of these and
        all that is deferred.
        """
        loads = await self.loads(source)
        before = {PARKED: (PARKED,), DEFERRED: (PARKED, DEFERRED)}.get(lane)
        if before is None:
            return loads.get(lane)
        middle = loads.get(Priority.MIDDLE)
        if middle is None:
            return None
        return replace(middle, waiting=middle.waiting + sum(loads[each].waiting for each in before))

    def note_deferred(self, source: str) -> None:
        """Count a deferred task that is about to be created."""
        loads = self._loads.get(source)
        if loads and (load := loads.get(DEFERRED)):
            load.count()

    async def choose(self, source: str, *, open_tasks: int) -> str:
        """Return the lane for the next task of a client with so many *open_tasks*, or PARKED."""
        loads = await self.loads(source)
        lane = choose_lane(loads, open_tasks=open_tasks)
        if load := loads.get(lane):
            load.count()
        return lane


def choose_lane(loads: Loads, *, open_tasks: int) -> str:
    """Return the lane for the next task of a client with so many *open_tasks*, or PARKED.

    A light client gets the lane in which its task starts earlier. Any other task is parked, unless
    the high lane can start it at once, or the middle one has room and nothing is parked.
    """
    is_light = open_tasks < LIGHT_MAX
    high, middle = (loads.get(lane) for lane in CLIENTS)
    if high is None or middle is None:
        return Priority.HIGH if is_light or high else PARKED
    if is_light:
        return Priority.HIGH if high.rounds <= middle.rounds else Priority.MIDDLE
    if high.rounds < 1:
        return Priority.HIGH
    parked = loads.get(PARKED)
    if parked and parked.waiting + parked.created:
        return PARKED
    has_room = middle.waiting + middle.created < room_of(middle.share)
    return Priority.MIDDLE if has_room else PARKED


def room_of(share: int) -> int:
    """Return how many tasks may wait in a middle lane with this *share* before others are parked.

    Two rounds of builds: enough that no slot is idle until the next tasks are moved there.
    """
    return 2 * share


def _load(consumer: ConsumerInfo) -> Load:
    return Load(
        waiting=consumer.num_pending or 0,
        running=consumer.num_ack_pending or 0,
        share=max(1, consumer.config.max_ack_pending or 1),
    )
