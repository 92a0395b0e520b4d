"""Parked tasks that another client has joined, and that client's right to have them built soon."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

from archiver.errors import EngineUnavailable
from archiver.jetstream.lanes import Lanes
from archiver.jetstream.task_stream import TaskStream
from archiver.jetstream.task_subject import PARKED, TaskSubject, client_token
from archiver.runtime.allowance import Allowance
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.single_flight import SingleFlight
from archiver.runtime.turns import Turns
from archiver.tasks import LIGHT_MAX, PROMOTED_WITHIN

REFUSED_FOR = timedelta(seconds=1)
"""Joining is not limited, and the server searches the queue to count a client's open tasks."""


class Promotions:
    """Moves a parked task to the lane that a new task of a light client would get.

    A parked task has no consumer, so none is moved that a worker may have. *open_tasks* returns
    the number for the token of a client.
    """

    def __init__(
        self, *, tasks: TaskStream, lanes: Lanes, open_tasks: Callable[[str], Awaitable[int]]
    ) -> None:
        self._tasks = tasks
        self._lanes = lanes
        self._open_tasks = open_tasks
        self._allowance = Allowance(most=LIGHT_MAX, within=PROMOTED_WITHIN)
        self._refused: BoundedCache[str, None] = BoundedCache(ttl=REFUSED_FOR, max_bytes=MEGABYTE)
        self._turns = Turns()
        self._running: SingleFlight[tuple[str, str], None] = SingleFlight()

    async def promote(self, task: TaskSubject, client: str) -> None:
        """Move *task*, which *client* has joined, if it is parked and the client may do so.

        Otherwise, and if the engine fails or another process moves it, the task is built later.
        The turns of its own client are for its own tasks.
        """
        token = client_token(client)
        if task.priority == PARKED and task.client != token:
            with suppress(EngineUnavailable):
                await self._running.join_or_start(
                    (task.key_hash, token), lambda: self._promote(task, token)
                )

    async def _promote(self, task: TaskSubject, token: str) -> None:
        """One task of a client at a time, and one client of a crowd for the same task."""
        async with self._turns.of(token), self._turns.of(task.key_hash):
            if token in self._refused:
                return
            message = await self._tasks.find(task.key_hash)
            if message is None or self._tasks.parse(message.subject) != task:
                return
            open_tasks = await self._open_tasks(token)
            if not self._allowance.take(token, besides=open_tasks):
                self._refused.put(token, None)
                return
            lane = await self._lanes.choose(task.source, open_tasks=open_tasks)
            target = self._tasks.subject(lane, task.source, task.client, task.key_hash)
            await self._tasks.move(message, target)
