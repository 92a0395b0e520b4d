"""The wire to NATS: dialled, kept up, and dialled anew when nothing else helps."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client

from archiver.concurrency import ending, heeded, undisturbed
from archiver.errors import EngineUnavailable
from archiver.telemetry import describe, log

KEEP_ALIVE = timedelta(seconds=2)
"""A server that is silent is given up when it has not answered for two to three times as long.
Until then, whoever needs it waits for it in vain."""

RENEW_AFTER = timedelta(seconds=10)
"""nats-py reconnects by itself, until its task dies of an error that it did not expect; then it
never does. A client that has been without a server for so long is given up for a new one."""

LOOK_EVERY = timedelta(seconds=1)

CLOSE_TIMEOUT = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where NATS is and how to log in. ``urls`` may name several servers of one cluster."""

    urls: Sequence[str]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    credentials_file: Path | None = None
    replicas: int = 1


class Link:
    """One client of NATS at a time.

    ``on_dialled`` is awaited with each new client before it is used; ``on_gap`` is called when
    messages may have been missed.
    """

    def __init__(
        self,
        *,
        servers: Servers,
        name: str,
        on_dialled: Callable[[Client], Awaitable[None]],
        on_gap: Callable[[], None],
        renew_after: timedelta = RENEW_AFTER,
    ) -> None:
        self._servers = servers
        self._name = name
        self._on_dialled = on_dialled
        self._on_gap = on_gap
        self._renew_after = renew_after
        self._client: Client | None = None
        self._up = asyncio.Event()

    @property
    def client(self) -> Client:
        """The client, if it has a server now. Raises EngineUnavailable."""
        if self._client is None or not self._client.is_connected:
            raise EngineUnavailable("the engine is not connected")
        return self._client

    async def wait(self, within: timedelta | None = None) -> None:
        """Return as soon as there is a server, or when the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within.total_seconds() if within else None):
                await self._up.wait()

    async def keep(self) -> None:
        """Be connected, whatever happens, until cancelled."""
        while True:
            client = Client()
            try:
                await self._dial(client)
                await self._watch_over(client)
            except Exception as exc:  # noqa: BLE001 - whatever it is, dialling again is the answer
                log.warning("engine.dial_failed", cause=describe(exc))
                await asyncio.sleep(LOOK_EVERY.total_seconds())
            finally:
                await self._drop(client)

    async def _dial(self, client: Client) -> None:
        with heeded():
            await ending(client.connect(**self._options()))  # which tries again for ever
            await self._on_dialled(client)
        self._client = client
        self._connected()
        log.info("engine.connected")

    async def _watch_over(self, client: Client) -> None:
        """Return when *client* has been without a server for too long."""
        looks_left = looks = self._renew_after // LOOK_EVERY
        while looks_left:
            await asyncio.sleep(LOOK_EVERY.total_seconds())
            looks_left = looks if client.is_connected else looks_left - 1

    async def _drop(self, client: Client) -> None:
        self._client = None
        self._up.clear()
        await undisturbed(_close(client))

    def _connected(self) -> None:
        self._up.set()
        self._on_gap()

    def _options(self) -> dict[str, Any]:
        servers = self._servers
        return {
            "servers": list(servers.urls),
            "name": self._name,
            "user": servers.user,
            "password": servers.password,
            "user_credentials": str(servers.credentials_file) if servers.credentials_file else None,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.25,
            "connect_timeout": 2,
            "ping_interval": KEEP_ALIVE.total_seconds(),
            "max_outstanding_pings": 2,
            "error_cb": self._heard_error,
            "disconnected_cb": self._heard_disconnect,
            "reconnected_cb": self._heard_reconnect,
        }

    async def _heard_error(self, exc: Exception) -> None:
        if isinstance(exc, nats.errors.SlowConsumerError):
            self._on_gap()
        log.debug("engine.error", cause=describe(exc))  # four a second while a server is away

    async def _heard_disconnect(self) -> None:
        self._up.clear()
        if self._client:
            log.warning("engine.disconnected")

    async def _heard_reconnect(self) -> None:
        if self._client:
            self._connected()
            log.info("engine.reconnected")


async def _close(client: Client) -> None:
    """Close what can be closed: whoever disturbs it half-way leaves a socket behind."""
    with suppress(nats.errors.Error, OSError):
        async with asyncio.timeout(CLOSE_TIMEOUT.total_seconds()):
            await client.close()
