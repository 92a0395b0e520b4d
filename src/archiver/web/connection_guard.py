"""Bounds the connections of one client to this process.

The HTTP server accepts any number of connections from one address. So this module looks at the
process's own sockets, and shuts down those of a client that has too many. That needs ``/proc`` and
``TCP_INFO`` of Linux; on other systems nothing is bounded.
"""

import asyncio
import os
import socket
import struct
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from heapq import nlargest
from operator import attrgetter
from pathlib import Path

from archiver.runtime.threads import run_in_thread
from archiver.telemetry import METRICS, log
from archiver.web.client_address import ClientResolver
from archiver.web.file_limit import connections_max

INTERVAL_S = 2.0
"""How long a client that fills the process can keep others waiting. Looking at a connection takes
15 µs of a thread."""

LOG_INTERVAL_S = 60.0

OWN_FILES = Path("/proc/self/fd")

_LAST_DATA = struct.Struct("=44xI4xI")
"""``tcpi_last_data_sent`` and ``tcpi_last_data_recv`` of ``struct tcp_info``: milliseconds since
the last data in each direction, or since the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Connection:
    """A connection at this file descriptor, which may have another one a moment later."""

    descriptor: int
    peer: tuple[str, int]
    idle_ms: int


class ConnectionGuard:
    """Shuts down what a client has beyond *limit* connections to *port* in this process.

    Clients are addresses, or IPv6 networks, as *clients* names them. Connections from trusted
    proxies are not counted.
    """

    def __init__(
        self,
        *,
        port: int,
        limit: int,
        clients: ClientResolver,
        files: Path = OWN_FILES,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._port = port
        self._limit = limit
        self._clients = clients
        self._files = files
        self._now = now
        self._unlogged: Counter[str] = Counter()
        self._log_at = now()
        self._is_blind = False

    async def watch(self) -> None:
        """Close the excess every two seconds, in a thread: the event loop continues meanwhile."""
        while sys.platform == "linux":
            await asyncio.sleep(INTERVAL_S)
            self.report(await run_in_thread(self.close_excess))

    def close_excess(self) -> Counter[str]:
        """Shut down the excess of each client, idle longest first. Return the number per client."""
        descriptors = self._descriptors()
        if len(descriptors) <= self._limit:
            return Counter()
        closed: Counter[str] = Counter()
        for client, connections in self._by_client(descriptors).items():
            excess = len(connections) - self._limit
            for each in nlargest(excess, connections, key=attrgetter("idle_ms")):
                closed[client] += _shut_down(each)
        return closed

    def report(self, closed: Counter[str]) -> None:
        """Count *closed* connections, and log them once a minute."""
        METRICS.connections_closed.inc(closed.total())
        self._unlogged.update(closed)
        if not self._unlogged or self._now() < self._log_at:
            return
        log.warning(
            "connections.closed",
            client=self._unlogged.most_common(1)[0][0],
            connections=self._unlogged.total(),
            clients=len(self._unlogged),
        )
        self._unlogged.clear()
        self._log_at = self._now() + LOG_INTERVAL_S

    def _descriptors(self) -> list[int]:
        try:
            return [int(name) for name in os.listdir(self._files)]  # noqa: PTH208 - it is faster
        except OSError as exc:
            if not self._is_blind:
                log.warning("connections.not_counted", reason=exc.strerror)
            self._is_blind = True
            return []

    def _by_client(self, descriptors: list[int]) -> dict[str, list[_Connection]]:
        found: dict[str, list[_Connection]] = defaultdict(list)
        for descriptor in descriptors:
            connection = _look_at(descriptor, self._port)
            if connection is None:
                continue
            client = self._clients.peer(connection.peer[0])
            if not client.is_proxy:
                found[client.group].append(connection)
        return found


def connection_share(limit: int) -> int:
    """Return *limit*, or half of the connections that the process may have if that is less."""
    return min(limit, connections_max() // 2)


def _look_at(descriptor: int, port: int) -> _Connection | None:
    """Return the connection that was accepted on *port*; None if the file is something else."""
    try:
        with _duplicate(descriptor) as file:
            if file.family not in {socket.AF_INET, socket.AF_INET6}:
                return None
            if file.getsockname()[1] != port:
                return None
            info = file.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA.size)
            peer = file.getpeername()[:2]  # the listening socket has none: OSError
            idle_ms = min(_LAST_DATA.unpack(info))
    except OSError:
        return None
    return _Connection(descriptor=descriptor, peer=peer, idle_ms=idle_ms)


def _shut_down(connection: _Connection) -> bool:
    """Shut *connection* down, so that the server closes it. Return whether it was still there."""
    try:
        with _duplicate(connection.descriptor) as file:
            if file.getpeername()[:2] != connection.peer:
                return False
            file.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    return True


def _duplicate(descriptor: int) -> socket.socket:
    """Return a second handle of a socket. Raises OSError if the file is none, or was closed.

    The server may close its own, and reuse the number, at any moment. The duplicate stays what it
    is, so that whatever was found out about it holds.
    """
    duplicate = os.dup(descriptor)
    try:
        return socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        raise
