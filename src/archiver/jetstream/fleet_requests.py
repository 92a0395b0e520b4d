"""One request to all processes of a fleet, however many there are and however long each takes.

A process acknowledges a request at once and answers later. From the acknowledgements the sender
knows how many answers to wait for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

from nats.aio.client import Client
from nats.aio.msg import Msg

from archiver.jetstream.link import Link
from archiver.jetstream.translation import translated

ACKNOWLEDGEMENT = b"here"

ACKNOWLEDGED_WITHIN = timedelta(seconds=0.2)
"""How long the other processes may take to acknowledge after the first one has."""

ANSWER_TIMEOUT = timedelta(seconds=5)
"""A process that has to ask a silent region answers after 3 s."""

Answer = Callable[[], Awaitable[bytes]]
"""Returns the answer of this process to a request, within ANSWER_TIMEOUT."""


class FleetRequests:
    """Sends requests to the fleet, and gives this process's *answers* to those of others."""

    def __init__(self, *, link: Link, namespace: str, answers: Mapping[str, Answer]) -> None:
        self._link = link
        self._namespace = namespace
        self._answers = answers

    async def move_to(self, client: Client) -> None:
        """Answer requests in a new client."""
        for request, answer in self._answers.items():
            await _serve(client, self._subject(request), answer)

    async def send(self, request: str) -> Sequence[bytes]:
        """Return the answers of all processes that answer *request*.

        Raises:
            EngineUnavailable: The processes cannot be asked.
        """
        with translated("ask the fleet"):
            return await _gather(self._link.client, self._subject(request))

    def _subject(self, request: str) -> str:
        return f"{self._namespace}.ask.{request}"


async def _serve(client: Client, subject: str, answer: Answer) -> None:
    async def acknowledge(message: Msg) -> None:
        await message.respond(ACKNOWLEDGEMENT)

    async def respond(message: Msg) -> None:
        await message.respond(await answer())

    await client.subscribe(subject, cb=acknowledge)  # separate, so an answer cannot delay it
    await client.subscribe(subject, cb=respond)


async def _gather(client: Client, subject: str) -> Sequence[bytes]:
    answers = _Answers()
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=answers.collect)
    try:
        await client.publish(subject, reply=inbox)
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_TIMEOUT.total_seconds()):
                await answers.complete()
    finally:
        await subscription.unsubscribe()
    return answers.received


class _Answers:
    """The answers to one request, as they arrive."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self._acknowledged = 0
        self._changed = asyncio.Event()

    async def collect(self, message: Msg) -> None:
        if message.data == ACKNOWLEDGEMENT:
            self._acknowledged += 1
        elif message.data:  # an empty one is the server's own: no process has subscribed
            self.received.append(message.data)
        self._changed.set()

    async def complete(self) -> None:
        """Return when each process that has acknowledged has answered."""
        await self._changed.wait()
        await asyncio.sleep(ACKNOWLEDGED_WITHIN.total_seconds())
        while len(self.received) < self._acknowledged:
            self._changed.clear()
            await self._changed.wait()
