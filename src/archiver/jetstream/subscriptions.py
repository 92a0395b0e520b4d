"""Subscriptions to subjects of NATS that survive a new client."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from archiver.errors import EngineUnavailable
from archiver.jetstream.translation import translated

DRAIN_TIMEOUT = timedelta(seconds=1)

Receive = Callable[[Msg], Awaitable[None]]


class Subscriptions:
    """nats-py restores subscriptions after a reconnection, but not in a new client."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._receivers: dict[str, Receive] = {}
        self._subscriptions: dict[str, Subscription] = {}

    async def move_to(self, client: Client) -> None:
        """Subscribe to everything again in a new client."""
        self._client = client
        for subject, receive in self._receivers.items():
            self._subscriptions[subject] = await client.subscribe(subject, cb=receive)

    async def subscribe(self, subject: str, receive: Receive) -> None:
        """Call *receive* with every message on *subject* from now on, in order."""
        self._receivers[subject] = receive
        with suppress(EngineUnavailable), translated("subscribe"):
            if self._client:
                subscription = await self._client.subscribe(subject, cb=receive)
                self._subscriptions[subject] = subscription

    async def unsubscribe(self, subject: str) -> None:
        """End the subscription after the messages that were already sent are received."""
        self._receivers.pop(subject, None)
        subscription = self._subscriptions.pop(subject, None)
        with suppress(EngineUnavailable), translated("unsubscribe"):
            async with asyncio.timeout(DRAIN_TIMEOUT.total_seconds()):
                if subscription:
                    await subscription.drain()  # type: ignore[no-untyped-call]
