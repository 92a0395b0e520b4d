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
        self._receivers: list[tuple[str, Receive]] = []
        self._subscriptions: dict[str, Subscription] = {}

    def add(self, subject: str, receive: Receive) -> None:
        """Call *receive* with every message on *subject*, in order, from the next client on."""
        self._receivers.append((subject, receive))

    async def subscribe(self, subject: str, receive: Receive) -> None:
        """Call *receive* with every message on *subject*, in order, from now on."""
        self.add(subject, receive)
        with suppress(EngineUnavailable), translated("subscribe"):
            if self._client:
                await self._subscribe(self._client, subject, receive)

    async def move_to(self, client: Client) -> None:
        """Subscribe to everything again in a new client."""
        self._client = client
        for subject, receive in tuple(self._receivers):
            await self._subscribe(client, subject, receive)

    async def _subscribe(self, client: Client, subject: str, receive: Receive) -> None:
        self._subscriptions[subject] = await client.subscribe(subject, cb=receive)

    async def unsubscribe(self, subject: str) -> None:
        """End the subscription after the messages that were already sent are received."""
        self._receivers = [one for one in self._receivers if one[0] != subject]
        subscription = self._subscriptions.pop(subject, None)
        with suppress(EngineUnavailable), translated("unsubscribe"):
            async with asyncio.timeout(DRAIN_TIMEOUT.total_seconds()):
                if subscription:
                    await subscription.drain()  # type: ignore[no-untyped-call]
