"""How busy the lanes of a source are, and which lane a new task of a client gets."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from nats.js.api import ConsumerInfo

from archiver.errors import EngineUnavailable
from archiver.jetstream.consumers import consumer_name
from archiver.jetstream.task_stream import TaskStream
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
    """The tasks of a lane, as the server reported them, and those ``created`` here since then.

    ``share`` of them may run at a time.
    """

    waiting: int
    running: int
    share: int
    created: int = 0

    @property
    def rounds(self) -> float:
        """How many rounds of builds it takes until all tasks have run."""
        return (self.waiting + self.running + self.created) / self.share


Loads: TypeAlias = Mapping[Priority, Load]
"""The lanes for which the server has a consumer: none until a worker has run."""


class Lanes:
    """Reads the loads of each source at most once a second."""

    def __init__(self, *, tasks: TaskStream) -> None:
        self._tasks = tasks
        self._loads: BoundedCache[str, dict[Priority, Load]] = BoundedCache(
            ttl=LOADS_TTL, max_bytes=SOURCES_MAX_BYTES
        )
        self._reading: SingleFlight[str, dict[Priority, Load]] = SingleFlight()

    async def loads(self, source: str) -> Loads:
        """Return the loads of the lanes of clients; none if the engine does not answer."""
        loads = self._loads.get(source)
        if loads is None:
            loads = await self._reading.join_or_start(source, lambda: self._read(source))
        return loads

    async def _read(self, source: str) -> dict[Priority, Load]:
        names = [consumer_name(source, priority) for priority in CLIENTS]
        try:
            found = await asyncio.gather(*map(self._tasks.consumer, names))
        except EngineUnavailable:
            found = [None for _ in names]
        loads = {p: _load(one) for p, one in zip(CLIENTS, found, strict=True) if one}
        self._loads.put(source, loads)
        return loads

    async def waiting(self, source: str) -> int:
        """Return how many tasks of clients wait for *source*. Raises EngineUnavailable.

        Until a worker has run, all tasks are counted.
        """
        loads = await self.loads(source)
        if not loads:
            return await self._tasks.count()
        return sum(load.waiting + load.created for load in loads.values())

    async def choose(self, source: str, *, open_tasks: int) -> Priority:
        """Return the lane for the next task of a client with so many *open_tasks*."""
        loads = await self.loads(source)
        lane = choose_lane(loads, open_tasks=open_tasks)
        if load := loads.get(lane):
            load.created += 1
        return lane


def choose_lane(loads: Loads, *, open_tasks: int) -> Priority:
    """Return the lane for the next task of a client with so many *open_tasks*.

    A light client gets the lane in which its task starts earlier. Any other gets the middle one,
    unless the high one can start the task at once.
    """
    is_light = open_tasks < LIGHT_MAX
    high, middle = (loads.get(lane) for lane in CLIENTS)
    if high is None or middle is None:
        return Priority.HIGH if is_light or high else Priority.MIDDLE
    if is_light:
        return Priority.HIGH if high.rounds <= middle.rounds else Priority.MIDDLE
    return Priority.HIGH if high.rounds < 1 else Priority.MIDDLE


def _load(consumer: ConsumerInfo) -> Load:
    return Load(
        waiting=consumer.num_pending or 0,
        running=consumer.num_ack_pending or 0,
        share=max(1, consumer.config.max_ack_pending or 1),
    )
