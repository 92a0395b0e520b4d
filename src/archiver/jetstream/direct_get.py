"""Reads keys of NATS by direct gets: those requested in one turn of the loop are sent together."""

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import count

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from archiver.errors import EngineUnavailable
from archiver.jetstream.subscriptions import Receive
from archiver.runtime.tasks import cancel_and_wait

NOT_FOUND, NO_RESPONDERS = "404", "503"


@dataclass(frozen=True, slots=True, kw_only=True)
class KvEntry:
    """A value of a key-value bucket, and its revision.

    An empty value is the marker of a deleted entry.
    """

    value: bytes
    revision: int


Outcome = KvEntry | Exception | None


class Batch:
    """Gets that share a deadline, by subject. ``ended`` is set when all have an outcome.

    ``tokens`` are the last tokens of their reply subjects.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.tokens: list[str] = []
        self._loop = loop
        self._waiters: dict[str, list[asyncio.Future[KvEntry | None]]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._waiters))

    def add(self, subject: str) -> asyncio.Future[KvEntry | None]:
        waiter: asyncio.Future[KvEntry | None] = self._loop.create_future()
        self._waiters.setdefault(subject, []).append(waiter)
        return waiter

    def resolve(self, subject: str, outcome: Outcome) -> None:
        for waiter in self._waiters.pop(subject, ()):
            if waiter.done():
                continue
            if isinstance(outcome, Exception):
                waiter.set_exception(outcome)
            else:
                waiter.set_result(outcome)
        if not self._waiters and not self.ended.done():
            self.ended.set_result(None)


class DirectGet:
    """Direct gets (ADR-31 of NATS): answers without JSON and base64, which is half the work.

    Each key has a request of its own. The deadline and the turn of the event loop, which cost more,
    are shared by a batch. One request for all keys (``multi_last``) was measured to save nothing
    more on either side.

    Every client must call ``answers`` with the messages on its subject. Errors of nats-py are
    passed on. NoRespondersError means that the stream does not exist, or allows no direct gets.
    """

    def __init__(self, *, timeout: timedelta) -> None:
        self._timeout_s = timeout.total_seconds()
        self._gathering: Batch | None = None
        self._requests: dict[str, tuple[Batch, str]] = {}
        self._resolving: set[asyncio.Task[None]] = set()
        self._tokens = map(str, count())
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self.answers: tuple[str, Receive] = f"{self._inbox}.*", self._receive

    async def _receive(self, message: Msg) -> None:
        if request := self._requests.pop(message.subject.rpartition(".")[2], None):
            batch, subject = request
            batch.resolve(subject, _outcome(message))

    async def get(self, client: Client, stream: str, subject: str) -> KvEntry | None:
        """Return the last message of *subject*, if there is one."""
        api_subject = f"$JS.API.DIRECT.GET.{stream}.{subject}"
        if self._gathering is None:
            self._gathering = self._begin(client)
        return await self._gathering.add(api_subject)

    def _begin(self, client: Client) -> Batch:
        """Return a batch that is sent in the next turn, even if its first caller is cancelled."""
        batch = Batch()
        resolving = asyncio.create_task(self._send(client, batch))
        self._resolving.add(resolving)
        resolving.add_done_callback(partial(self._end, batch))
        return batch

    async def _send(self, client: Client, batch: Batch) -> None:
        self._gathering = None
        async with asyncio.timeout(self._timeout_s):
            for subject in batch:
                token = next(self._tokens)
                batch.tokens.append(token)
                self._requests[token] = (batch, subject)
                await client.publish(subject, reply=f"{self._inbox}.{token}")
            await batch.ended

    def _end(self, batch: Batch, resolving: asyncio.Task[None]) -> None:
        """Give an outcome to everyone who still waits in *batch*."""
        self._resolving.discard(resolving)
        if self._gathering is batch:
            self._gathering = None
        for token in batch.tokens:
            self._requests.pop(token, None)
        failure = None if resolving.cancelled() else resolving.exception()
        silence = EngineUnavailable("the engine did not return a key")
        for subject in batch:
            batch.resolve(subject, failure if isinstance(failure, Exception) else silence)

    async def close(self) -> None:
        """Have all waiting gets raise EngineUnavailable."""
        await cancel_and_wait(*self._resolving)


def _outcome(message: Msg) -> Outcome:
    headers = message.headers or {}
    match headers.get("Status"):
        case None:
            return KvEntry(value=message.data, revision=int(headers["Nats-Sequence"]))
        case status if status == NOT_FOUND:
            return None
        case status if status == NO_RESPONDERS:
            return nats.errors.NoRespondersError()
        case _:
            return EngineUnavailable("the engine did not return a key")
