"""Tasks outside of the lanes that a client has joined, and its right to have them built soon."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import msgspec

from archiver.errors import EngineUnavailable
from archiver.jetstream.lanes import Lanes
from archiver.jetstream.records import decode_order, encode
from archiver.jetstream.task_stream import StoredMessage, TaskStream
from archiver.jetstream.task_subject import DEFERRED, PARKED, TaskSubject, client_token
from archiver.runtime.allowance import Allowance
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.single_flight import SingleFlight
from archiver.runtime.turns import Turns
from archiver.tasks import LIGHT_MAX, PROMOTED_WITHIN

REFUSED_FOR = timedelta(seconds=1)
"""Joining is not limited, and the server searches the queue to count a client's open tasks."""


class Promotions:
    """Moves a parked task to the lane that a new task of a light client would get.

    A deferred task becomes a task of the client that has joined it. Tasks outside of the lanes have
    no consumer, so none is moved that a worker may have. *open_tasks* returns the number for the
    token of a client.
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
        """Move *task*, which *client* has joined, if it is outside of the lanes and may be moved.

        Otherwise, and if the engine fails or another process moves it, the task is built later.
        The turns of its own client are for its own tasks.
        """
        token = client_token(client)
        is_parked = task.priority == PARKED and task.client != token
        if is_parked or task.priority == DEFERRED:
            with suppress(EngineUnavailable):
                await self._running.join_or_start(
                    (task.key_hash, token), lambda: self._promote(task, client)
                )

    async def _promote(self, task: TaskSubject, client: str) -> None:
        """One task of a client at a time, and one client of a crowd for the same task."""
        async with self._turns.of(client_token(client)), self._turns.of(task.key_hash):
            if task.priority == PARKED and client_token(client) in self._refused:
                return
            message = await self._tasks.find(task.key_hash)
            if message is None or self._tasks.parse(message.subject) != task:
                return
            if task.priority == DEFERRED:
                await self._hand_over(task, message, client)
            else:
                await self._move_forward(task, message, client_token(client))

    async def _hand_over(self, task: TaskSubject, message: StoredMessage, client: str) -> None:
        """Make a deferred task one of *client*, in the place that its next task would get."""
        order = decode_order(message.value)
        if order is None:
            return
        token = client_token(client)
        lane = await self._lanes.choose(task.source, open_tasks=await self._open_tasks(token))
        target = self._tasks.subject(lane, task.source, token, task.key_hash)
        await self._tasks.move(
            message, target, encode(msgspec.structs.replace(order, client=client))
        )

    async def _move_forward(self, task: TaskSubject, message: StoredMessage, token: str) -> None:
        """Move a parked task if the client of *token* is light, and has not moved many."""
        open_tasks = await self._open_tasks(token)
        if not self._allowance.take(token, besides=open_tasks):
            self._refused.put(token, None)
            return
        lane = await self._lanes.choose(task.source, open_tasks=open_tasks)
        target = self._tasks.subject(lane, task.source, task.client, task.key_hash)
        await self._tasks.move(message, target)
