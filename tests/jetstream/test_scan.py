"""A scan yields all messages of a stream, or raises an error."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import cast

import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, ConsumerInfo, SequenceInfo

from archiver.jetstream.key_value import PORTION, scan


class Script:
    """A consumer with scripted answers.

    With the first answer, ``lost`` messages are sent and do not arrive, and ``taken`` messages are
    removed. ``ended`` is set when the reader unsubscribes.
    """

    def __init__(
        self, pending: int, answers: Sequence[int], *, lost: int = 0, taken: int = 0
    ) -> None:
        self.pending = pending
        self.ended = False
        self._answers = list(answers)
        self._lost = lost
        self._taken = taken
        self._sent = 0

    async def consumer_info(self) -> ConsumerInfo:
        return ConsumerInfo(
            name="scan",
            stream_name="bucket",
            config=ConsumerConfig(),
            created=datetime.now(UTC),
            delivered=SequenceInfo(consumer_seq=self._sent, stream_seq=self._sent),
            num_pending=self.pending,
        )

    async def fetch(self, batch: int, timeout: float) -> list[Msg]:  # noqa: ASYNC109 - nats-py's
        assert 0 < batch <= PORTION
        assert timeout
        arrive = self._answers.pop(0) if self._answers else 0
        self._sent += arrive + self._lost
        self.pending -= arrive + self._lost + self._taken
        self._lost = self._taken = 0
        if not arrive:
            raise nats.errors.TimeoutError
        return [Msg(Client(), subject="key", data=b"value") for _ in range(arrive)]

    async def unsubscribe(self) -> None:
        self.ended = True
        raise nats.errors.ConnectionClosedError


def scanned(script: Script) -> AsyncGenerator[Msg, None]:
    subscription = cast("JetStreamContext.PullSubscription", script)
    return scan(subscription, timeout=timedelta(seconds=1))


async def count(script: Script) -> int:
    async with aclosing(scanned(script)) as messages:
        return len([message async for message in messages])


@pytest.mark.parametrize("answers", ((), (1,), (PORTION, PORTION, 3), (2, 0, 1)))
def test_all_messages_arrive(answers: tuple[int, ...]) -> None:
    script = Script(sum(answers), answers)
    assert asyncio.run(count(script)) == sum(answers)
    assert script.ended


@pytest.mark.parametrize(("pending", "arrive"), ((3, 1), (2, 0)))
def test_messages_removed_after_the_count_are_not_missed(pending: int, arrive: int) -> None:
    script = Script(pending, [arrive], taken=2)
    assert asyncio.run(count(script)) == arrive
    assert script.ended


@pytest.mark.parametrize("script", (Script(2, [1]), Script(3, [2], lost=1)))
def test_messages_that_do_not_arrive_are_an_error(script: Script) -> None:
    with pytest.raises(nats.errors.TimeoutError):
        asyncio.run(count(script))
    assert script.ended


def test_a_reader_that_stops_ends_the_subscription() -> None:
    script = Script(9, [3, 3, 3])

    async def play() -> None:
        async with aclosing(scanned(script)) as messages:
            async for _ in messages:
                break

    asyncio.run(play())
    assert script.ended
