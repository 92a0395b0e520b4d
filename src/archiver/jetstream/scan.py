"""Reads a stream through, some messages at a time, or says that these were not all."""

from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import timedelta
from typing import Protocol

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import ConsumerInfo

PORTION = 500
"""Entries of a bucket that come at a time: less than 1 MB."""


class Reading(Protocol):
    """A ``JetStreamContext.PullSubscription`` of a consumer that nobody else reads from."""

    async def consumer_info(self) -> ConsumerInfo: ...

    async def fetch(self, batch: int, timeout: float) -> list[Msg]: ...  # noqa: ASYNC109 - nats-py's

    async def unsubscribe(self) -> None: ...


async def scan(reading: Reading, *, timeout: timedelta) -> AsyncGenerator[Msg, None]:  # noqa: ASYNC109
    """Yield all messages that there are for *reading*, and end it.

    What was left may have been taken away when it was asked for: if nothing comes within *timeout*,
    there is a second look at how much is left.

    Raises:
        nats.errors.Error: These are not all.
    """
    received, silent = 0, False
    try:
        while left := await _left(reading, received):
            messages = await _portion(reading, min(left, PORTION), timeout)
            if silent and not messages:
                raise nats.errors.TimeoutError
            silent = not messages
            received += len(messages)
            for message in messages:
                yield message
    finally:
        with suppress(nats.errors.Error):  # the connection is lost, and the reading with it
            await reading.unsubscribe()


async def _left(reading: Reading, received: int) -> int:
    """Return how many have not come, those that were sent and are lost among them."""
    info = await reading.consumer_info()
    sent = info.delivered.consumer_seq if info.delivered else 0
    return sent + (info.num_pending or 0) - received


async def _portion(reading: Reading, size: int, timeout: timedelta) -> list[Msg]:  # noqa: ASYNC109
    try:
        return await reading.fetch(size, timeout.total_seconds())
    except TimeoutError:
        return []
