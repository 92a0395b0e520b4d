"""Requests tasks from each consumer in turn, for the waiting claims of a worker."""

import asyncio
import random
import secrets
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from nats.aio.msg import Msg

from archiver.breaker import BreakerState
from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.consumers import LINGER, ConsumerSet, Hint, SourceConsumer
from archiver.jetstream.feed import FEED, WAITING
from archiver.jetstream.later_orders import LaterOrders
from archiver.jetstream.parking import Parking
from archiver.jetstream.pauses import Pauses, StateOf
from archiver.jetstream.records import decode_waiting
from archiver.jetstream.stored_task import TaskMessage
from archiver.jetstream.task_subject import TaskSubject
from archiver.tasks import Priority, preferred
from archiver.telemetry import describe, log

RESERVED_FOR = timedelta(seconds=0.05)
"""How long a claim is reserved for the answer to a request. Most answers take a millisecond."""

SWEEP_EVERY = timedelta(seconds=2)
"""How often to check the consumers that have tasks. A killed worker announces nothing, and a
disconnected one misses announcements."""

LISTED_MAX = 1000
"""Tasks that the server lists for a sweep, in 100 kB. With more, every consumer is asked."""

REQUEST_MAX = 2 * LINGER
"""An older request was lost together with its server."""

PAUSE = timedelta(seconds=0.5)


NO_RESPONDERS = "503"


@dataclass(slots=True, kw_only=True)
class PullRequest:
    """A claim is ``reserved`` for its answer for a short while."""

    consumer: SourceConsumer
    sent_at: float
    reserved: bool = True


class Dispatcher:
    """Hands each message of the queue to a waiting claim.

    A consumer is asked when it may have a task: one was published or given back, its last answer
    was a task, or a sweep found one. An idle consumer costs nothing and occupies no claim. A
    message that arrives when no claim waits goes back to the queue, for a worker that has room.
    *state_of* returns the state of a source's breaker: a paused source is not asked for tasks.
    """

    def __init__(
        self,
        *,
        connection: Connection,
        caps: Mapping[str, int],
        lease: timedelta,
        state_of: StateOf = lambda _: BreakerState.CLOSED,
    ) -> None:
        self._pauses = Pauses(state_of=state_of)
        self.consumers = ConsumerSet(
            connection=connection, caps=caps, lease=lease, on_ready=self._raise_hint
        )
        self._parking = Parking(tasks=connection.tasks, caps=caps)
        self._later = LaterOrders(tasks=connection.tasks, sources=caps)
        self._connection = connection
        self._claims: deque[asyncio.Future[TaskMessage | None]] = deque()
        self._reserved = 0
        self._handed_out = 0
        self._closed = False
        self._serving: asyncio.Task[object] | None = None
        self._changed = asyncio.Event()
        self._requests: dict[str, PullRequest] = {}
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        connection.tasks.published.add(self._on_task_published)

    async def next_message(self) -> TaskMessage | None:
        if self._closed:
            return None
        claim: asyncio.Future[TaskMessage | None] = asyncio.get_running_loop().create_future()
        self._claims.append(claim)
        self._parking.check_all()  # the build that has just ended may have left room
        self._changed.set()
        try:
            return await claim
        finally:
            if claim in self._claims:
                self._claims.remove(claim)

    def _pop_claim(self) -> asyncio.Future[TaskMessage | None] | None:
        while self._claims:
            if not (claim := self._claims.popleft()).done():
                return claim
        return None

    def close(self) -> None:
        """End the waiting claims, and give back every message that arrives from now on.

        Requests, moves of parked tasks and ``serve_claims`` end, too.
        """
        self._closed = True
        if self._serving:
            self._serving.cancel()
        while claim := self._pop_claim():
            claim.set_result(None)

    async def serve_claims(self) -> None:
        """Request tasks for the waiting claims until cancelled or closed."""
        self._serving = asyncio.current_task()
        connection = self._connection
        connection.feed.gaps.add(self._start_over)
        connection.feed.subscribe(WAITING, self._on_waiting)
        await connection.link.subscriptions.subscribe(f"{self._inbox}.*", self._receive)
        await connection.tasks.listen()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.consumers.keep_complete())
            group.create_task(self._request_tasks())
            group.create_task(self._sweep())
            group.create_task(self._parking.keep_lanes_filled())
            group.create_task(self._later.keep_returning())

    async def leave(self) -> None:
        """Stop listening, after everything that was sent to this worker is given back."""
        await self._connection.link.subscriptions.unsubscribe(f"{self._inbox}.*")

    @property
    def _has_free_claim(self) -> bool:
        return len(self._claims) > self._reserved

    async def _request_tasks(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._has_free_claim:
                first = preferred(self._handed_out)
                if (consumer := self.consumers.choose(first, self._pauses.admits)) is None:
                    break
                self._pauses.note_request(consumer)
                await self._request(consumer)

    async def _request(self, consumer: SourceConsumer) -> None:
        token = secrets.token_hex(8)
        lingering = consumer.hint is Hint.ANNOUNCED
        consumer.hint, consumer.request = Hint.NONE, token
        self._reserved += 1
        self._requests[token] = PullRequest(consumer=consumer, sent_at=time.monotonic())
        asyncio.get_running_loop().call_later(RESERVED_FOR.total_seconds(), self._release, token)
        try:
            await consumer.send_request(f"{self._inbox}.{token}", lingering=lingering)
        except Exception as exc:  # noqa: BLE001 - the other consumers must still be asked
            log.debug("lane.broken", lane=consumer.name, cause=describe(exc))
            self._settle(token)
            consumer.raise_hint(Hint.MAYBE)
            await asyncio.sleep(PAUSE.total_seconds())

    def _release(self, token: str) -> None:
        """Reserve no claim any longer. The answer may still come."""
        request = self._requests.get(token)
        if request and request.reserved:
            request.reserved = False
            self._reserved -= 1
            self._changed.set()

    def _settle(self, token: str) -> SourceConsumer | None:
        """Forget a request that was answered or lost; return its consumer."""
        self._release(token)
        request = self._requests.pop(token, None)
        if request is None:
            return None
        request.consumer.request = None
        return request.consumer

    async def _receive(self, message: Msg) -> None:
        if message.subject.startswith(self._inbox):  # a status; a task arrives on its own subject
            consumer = self._settle(message.subject.rpartition(".")[2])
            if consumer and (message.headers or {}).get("Status") == NO_RESPONDERS:
                self.consumers.recreate(consumer)
        else:
            await self._receive_task(message)
        self._changed.set()

    async def _receive_task(self, message: Msg) -> None:
        consumer = self.consumers.of_subject(message.subject)
        if consumer is None:
            return
        if consumer.request:
            self._settle(consumer.request)
        consumer.raise_hint(Hint.MAYBE)
        if consumer.priority is Priority.MIDDLE:
            self._parking.check(consumer.source)
        task_message = TaskMessage(message, connection=self._connection)
        paused = self._pauses.is_paused(consumer)  # since it was asked
        if not paused and self._has_free_claim and (claim := self._pop_claim()):
            self._handed_out += 1
            claim.set_result(task_message)
        else:
            await task_message.give_back()

    def _on_task_published(self, task: TaskSubject) -> None:
        self._parking.note(task)
        if consumer := self.consumers.get(task.priority, task.source):
            self._raise_hint(consumer, Hint.ANNOUNCED)

    def _on_waiting(self, key_hash: str, payload: bytes) -> None:
        record = decode_waiting(payload)
        if record is None:
            self._connection.unreadable.note(FEED, key_hash)
        elif consumer := self.consumers.get(record.priority, record.source):
            loop = asyncio.get_running_loop()
            loop.call_later(record.after_s, self._raise_hint, consumer, Hint.ANNOUNCED)

    def _raise_hint(self, consumer: SourceConsumer, hint: Hint = Hint.MAYBE) -> None:
        consumer.raise_hint(hint)
        self._changed.set()

    def _start_over(self) -> None:
        """Requests may have been lost, and the server may be another one, with stale consumers."""
        for token in tuple(self._requests):
            self._settle(token)
        self.consumers.recreate(*self.consumers)
        self._parking.start_over()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY.total_seconds() * random.uniform(0.8, 1.2))  # noqa: S311 - not used for security
            self._give_up_requests()
            self._parking.check_all()
            try:
                subjects = await self._connection.tasks.subjects(most=LISTED_MAX)
            except EngineUnavailable as exc:
                log.debug("lanes.not_swept", code=exc.code)
                continue
            except Exception:  # noqa: BLE001 - the next sweep may succeed
                log.exception("lanes.broken")
                continue
            held = None if subjects is None else set(map(self.consumers.of_subject, subjects))
            for consumer in self.consumers:
                if held is None or consumer in held:
                    self._raise_hint(consumer)

    def _give_up_requests(self) -> None:
        oldest = time.monotonic() - REQUEST_MAX.total_seconds()
        for token, request in tuple(self._requests.items()):
            if request.sent_at < oldest:
                self._settle(token)
                request.consumer.raise_hint(Hint.ANNOUNCED)  # it may be at its cap
