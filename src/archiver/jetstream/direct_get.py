"""Reads keys of NATS the short way: those that are asked for in one turn go out together."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from archiver.errors import EngineUnavailable
from archiver.runtime.tasks import cancel_and_wait

NOTHING_THERE, NOBODY_THERE = "404", "503"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A value of a key-value bucket and the revision at which it stands there.

    An empty value is the mark of one that was removed.
    """

    value: bytes
    revision: int


Outcome = Entry | Exception | None


class Batch:
    """Who waits for what stands under which subject; ``ended`` when nobody does any longer.

    ``tokens`` are the names under which it was asked for.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.tokens: list[str] = []
        self._loop = loop
        self._waiting: dict[str, list[asyncio.Future[Entry | None]]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._waiting))

    def add(self, subject: str) -> asyncio.Future[Entry | None]:
        answer: asyncio.Future[Entry | None] = self._loop.create_future()
        self._waiting.setdefault(subject, []).append(answer)
        return answer

    def answer(self, subject: str, outcome: Outcome) -> None:
        for answer in self._waiting.pop(subject, ()):
            if answer.done():
                continue
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)
        if not self._waiting and not self.ended.done():
            self.ended.set_result(None)


class DirectGet:
    """Direct gets (ADR-31 of NATS): no JSON and no base64 come back, which is half the work.

    Each key has a question of its own; what is dear about one, its deadline and its turn in the
    loop, those of a turn share. One question for them all (``multi_last``) was measured to spare
    neither side anything more. What nats-py raises, comes out as it is; NoRespondersError, where
    there is no such stream or it allows no direct gets.
    """

    def __init__(self, *, timeout: timedelta) -> None:
        self._timeout_s = timeout.total_seconds()
        self._gathering: Batch | None = None
        self._asked: dict[str, tuple[Batch, str]] = {}
        self._resolving: set[asyncio.Task[None]] = set()
        self._questions = 0
        self._inbox = ""

    async def listen(self, client: Client) -> None:
        """Have answers to what is asked by way of *client* come here."""
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.*", cb=self._receive)

    async def _receive(self, message: Msg) -> None:
        asked = self._asked.pop(message.subject.rpartition(".")[2], None)
        if asked:
            batch, subject = asked
            batch.answer(subject, _outcome(message))

    async def get(self, client: Client, stream: str, subject: str) -> Entry | None:
        """Return the last message of *subject*, if there is one."""
        place = f"$JS.API.DIRECT.GET.{stream}.{subject}"
        if self._gathering is None:
            self._gathering = self._begin(client)
        return await self._gathering.add(place)

    def _begin(self, client: Client) -> Batch:
        """Return a batch that is resolved by itself, next turn: whoever began it may leave."""
        batch = Batch()
        resolving = asyncio.create_task(self._resolve(client, batch))
        self._resolving.add(resolving)
        resolving.add_done_callback(partial(self._ended, batch))
        return batch

    async def _resolve(self, client: Client, batch: Batch) -> None:
        self._gathering = None
        async with asyncio.timeout(self._timeout_s):
            for place in batch:
                await self._ask(client, batch, place)
            await batch.ended

    def _ended(self, batch: Batch, resolving: asyncio.Task[None]) -> None:
        """Have everyone who still waits in *batch* get an answer, whatever happened."""
        self._resolving.discard(resolving)
        if self._gathering is batch:
            self._gathering = None
        for token in batch.tokens:
            self._asked.pop(token, None)
        failure = None if resolving.cancelled() else resolving.exception()
        silence = EngineUnavailable("the engine did not give a key")
        for place in batch:
            batch.answer(place, failure if isinstance(failure, Exception) else silence)

    async def close(self) -> None:
        """Have everyone who waits go without an answer."""
        await cancel_and_wait(*self._resolving)

    async def _ask(self, client: Client, batch: Batch, place: str) -> None:
        self._questions += 1
        token = str(self._questions)
        batch.tokens.append(token)
        self._asked[token] = (batch, place)
        await client.publish(place, reply=f"{self._inbox}.{token}")


def _outcome(message: Msg) -> Outcome:
    headers = message.headers or {}
    match headers.get("Status"):
        case None:
            return Entry(value=message.data, revision=int(headers["Nats-Sequence"]))
        case status if status == NOTHING_THERE:
            return None
        case status if status == NOBODY_THERE:
            return nats.errors.NoRespondersError()
        case _:
            return EngineUnavailable("the engine did not give a key")
