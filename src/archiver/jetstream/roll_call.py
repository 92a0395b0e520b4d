"""One question to all processes of a fleet, however many there are and however long each takes.

A process says at once that it is here, and then answers. So whoever asks knows for how many answers
to wait.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta

from nats.aio.client import Client
from nats.aio.msg import Msg

HERE = b"here"

SAYING_SO = timedelta(seconds=0.2)
"""How long the other processes may take to say that they are here after the first one has."""

ANSWER_TIMEOUT = timedelta(seconds=5)
"""A process that has to ask a silent region answers after 3 s."""

Say = Callable[[], Awaitable[bytes]]
"""Returns what this process answers to a question of another one, within ANSWER_TIMEOUT."""


async def answer(client: Client, subject: str, say: Say) -> None:
    """Have this process answer the questions on *subject* from now on."""

    async def say_here(message: Msg) -> None:
        await message.respond(HERE)

    async def respond(message: Msg) -> None:
        await message.respond(await say())

    await client.subscribe(subject, cb=say_here)  # of its own, so that no answer holds it up
    await client.subscribe(subject, cb=respond)


async def gather(client: Client, subject: str) -> Sequence[bytes]:
    """Return the answers to a question on *subject*. Raises as nats-py does."""
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
    return answers.given


class _Answers:
    """The answers to one question, as they come."""

    def __init__(self) -> None:
        self.given: list[bytes] = []
        self._here = 0
        self._heard = asyncio.Event()

    async def collect(self, message: Msg) -> None:
        if message.data == HERE:
            self._here += 1
        elif message.data:  # an empty one is the server's own: no process has subscribed
            self.given.append(message.data)
        self._heard.set()

    async def complete(self) -> None:
        """Return when each process that says that it is here has answered."""
        await self._heard.wait()
        await asyncio.sleep(SAYING_SO.total_seconds())
        while len(self.given) < self._here:
            self._heard.clear()
            await self._heard.wait()
