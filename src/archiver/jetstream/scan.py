"""Reads all messages of a stream, in portions, or raises an error."""

from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import timedelta
from typing import Protocol

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import ConsumerInfo

PORTION = 500
"""Entries of a bucket per request: less than 1 MB."""


class Subscription(Protocol):
    """A ``JetStreamContext.PullSubscription`` of a consumer with no other reader."""

    async def consumer_info(self) -> ConsumerInfo: ...

    async def fetch(self, batch: int, timeout: float) -> list[Msg]: ...  # noqa: ASYNC109 - nats-py's

    async def unsubscribe(self) -> None: ...


async def scan(subscription: Subscription, *, timeout: timedelta) -> AsyncGenerator[Msg, None]:  # noqa: ASYNC109
    """Yield all messages of *subscription*, and end it.

    The remaining messages may have been removed since they were counted. If none arrives within
    *timeout*, they are counted once more.

    Raises:
        nats.errors.Error: Not all messages arrived.
    """
    received, silent = 0, False
    try:
        while remaining := await _remaining(subscription, received):
            messages = await _fetch(subscription, min(remaining, PORTION), timeout)
            if silent and not messages:
                raise nats.errors.TimeoutError
            silent = not messages
            received += len(messages)
            for message in messages:
                yield message
    finally:
        with suppress(nats.errors.Error):  # the connection is lost, and with it the subscription
            await subscription.unsubscribe()


async def _remaining(subscription: Subscription, received: int) -> int:
    """Return how many messages have not arrived, including messages that were sent and lost."""
    info = await subscription.consumer_info()
    sent = info.delivered.consumer_seq if info.delivered else 0
    return sent + (info.num_pending or 0) - received


async def _fetch(subscription: Subscription, size: int, timeout: timedelta) -> list[Msg]:  # noqa: ASYNC109
    try:
        return await subscription.fetch(size, timeout.total_seconds())
    except TimeoutError:
        return []
