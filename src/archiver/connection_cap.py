"""Limits the connections to a small HTTP server, so that they never use up the descriptors."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

CONNECTIONS_MAX = 64
"""Prometheus and a load balancer need a few."""

STALL_S = 10
"""How long a client may take no bytes of an answer."""

BACKLOG = 128

ACCEPT_LOG_PAUSE_S = 60

_OUT_OF_RESOURCES = "socket.accept() out of system resource"


async def listen(
    protocol: Callable[[], asyncio.Protocol],
    host: str,
    port: int,
    *,
    connections_max: int = CONNECTIONS_MAX,
) -> asyncio.Server:
    """Return a server that closes connections beyond *connections_max* at once."""
    opened: set[asyncio.BaseTransport] = set()
    loop = asyncio.get_running_loop()
    # asyncio accepts as many connections in a row as the backlog. Without descriptors, each of
    # these attempts fails, logs, and plans another round.
    server = await loop.create_server(
        lambda: _Connection(protocol(), opened, connections_max), host, port, backlog=1
    )
    for listener in server.sockets:
        with listener.dup() as real:
            real.listen(BACKLOG)
    return server


@contextmanager
def accept_errors_logged_rarely() -> Iterator[None]:
    """Log at most once a minute during the block that no connection can be accepted."""
    rarely, logger = _Rarely(), logging.getLogger("asyncio")
    logger.addFilter(rarely)
    try:
        yield
    finally:
        logger.removeFilter(rarely)


class _Rarely(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._quiet_until = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.getMessage().startswith(_OUT_OF_RESOURCES):
            return True
        now = time.monotonic()
        if now < self._quiet_until:
            return False
        self._quiet_until = now + ACCEPT_LOG_PAUSE_S
        return True


class _Connection(asyncio.Protocol):
    """Passes everything on to *inner*, unless there are too many connections."""

    def __init__(
        self, inner: asyncio.Protocol, opened: set[asyncio.BaseTransport], connections_max: int
    ) -> None:
        self._inner = inner
        self._opened = opened
        self._connections_max = connections_max
        self._transport: asyncio.Transport | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        real = cast(asyncio.Transport, transport)
        if len(self._opened) >= self._connections_max:
            real.abort()
            return
        self._transport = real
        self._opened.add(real)
        self._inner.connection_made(real)

    def data_received(self, data: bytes) -> None:
        if self._transport:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._transport else None

    def pause_writing(self) -> None:
        if self._transport:
            self._inner.pause_writing()
            self._stall = asyncio.get_running_loop().call_later(STALL_S, self._transport.abort)

    def resume_writing(self) -> None:
        if self._transport:
            self._cancel_stall()
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport:
            self._cancel_stall()
            self._opened.discard(self._transport)
            self._inner.connection_lost(exc)

    def _cancel_stall(self) -> None:
        if self._stall:
            self._stall.cancel()
            self._stall = None
