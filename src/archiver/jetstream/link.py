"""The client of NATS: connected, kept up, and replaced if it does not recover."""

import asyncio
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from archiver.errors import EngineUnavailable
from archiver.jetstream.capacity import Capacity
from archiver.jetstream.connection_faults import Faults, TlsNotOffered, UnreadableFile, reason_of
from archiver.jetstream.subscriptions import Subscriptions
from archiver.runtime.notifications import Subscribers
from archiver.runtime.tasks import cancellable, complete_despite_cancellation, reraise_cancellation
from archiver.telemetry import METRICS, describe, log
from archiver.tls import create_ssl_context

REQUEST_TIMEOUT = timedelta(seconds=3)
"""A healthy server answers in milliseconds; one that elects a leader takes about this long."""

KEEP_ALIVE = timedelta(seconds=2)
"""A silent server is given up after two to three times as long. Until then, callers wait for it in
vain."""

RENEW_AFTER = timedelta(seconds=10)
"""nats-py reconnects by itself, until its task dies of an unexpected error. A failed handshake
leaves it waiting permanently. So a client that has been without a server for this long is replaced
by a new one."""

CHECK_EVERY = timedelta(seconds=1)

CLOSE_TIMEOUT = timedelta(seconds=5)

QUIET_FOR = timedelta(seconds=1)
"""By then a restarted server, or another one of its cluster, is available again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The addresses of NATS, and how to log in. ``urls`` may name several servers of one cluster.

    ``ca_file`` holds authorities to trust besides the system's. ``tls_cert`` and ``tls_key`` are
    for servers that require a client certificate. New streams get so many ``replicas``, and all of
    them room for ``capacity``.
    """

    urls: Sequence[str]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    credentials_file: Path | None = None
    ca_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    replicas: int = 1
    capacity: Capacity = field(default_factory=Capacity)

    @property
    def requires_tls(self) -> bool:
        """Whether to send nothing to a server that does not offer TLS."""
        named = any(url.startswith("tls://") for url in self.urls)
        return named or self.ca_file is not None or self.tls_cert is not None

    def tls(self) -> ssl.SSLContext:
        """Return the context of the files as they are now. Raises UnreadableFile."""
        try:
            context = create_ssl_context(self.ca_file)
            if self.tls_cert:
                # An empty password keeps OpenSSL from asking for one on the terminal.
                context.load_cert_chain(self.tls_cert, self.tls_key, password="")
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            raise UnreadableFile from exc
        return context


class _Client(Client):
    """Closes two gaps of nats-py.

    It lets the server decide on TLS, so it would send a password over a plain connection. Its
    search for the JWT in a credentials file never ends if the JWT is missing.
    """

    def __init__(self, servers: Servers) -> None:
        super().__init__()
        self._servers = servers

    @property
    def cluster_size(self) -> int | None:
        """See ``Link.cluster_size``."""
        if not self._server_info.get("cluster"):
            return 1
        return len(self._server_info.get("connect_urls") or ()) or None

    def _connect_command(self) -> bytes:
        if self._servers.requires_tls and not self._server_info.get("tls_required"):
            raise TlsNotOffered
        if not self._servers.credentials_file:
            return super()._connect_command()
        try:
            _require_credentials(self._servers.credentials_file)
            return super()._connect_command()
        except Exception as exc:  # a broken file raises many kinds of errors
            raise UnreadableFile from exc


def _require_credentials(path: Path) -> None:
    text = path.read_bytes()
    if b"BEGIN NATS USER JWT" not in text or b"BEGIN USER NKEY SEED" not in text:
        raise ValueError("not a credentials file")


class Link:
    """One client of NATS at a time. ``gaps`` notifies when messages may have been missed."""

    def __init__(
        self, *, servers: Servers, name: str, renew_after: timedelta = RENEW_AFTER
    ) -> None:
        self.subscriptions = Subscriptions()
        self.gaps: Subscribers[[]] = Subscribers()
        self.faults = Faults()
        self._servers = servers
        self._name = name
        self._renew_after = renew_after
        self._client: _Client | None = None
        self._up = asyncio.Event()
        self._down_since = time.monotonic()
        self._is_connected = METRICS.engine_connected.labels(process=name)

    @property
    def client(self) -> Client:
        """The client, if it is connected now. Raises EngineUnavailable."""
        if self._client and self._client.is_connected:
            return self._client
        raise EngineUnavailable("the engine is not connected")

    @property
    def server_version(self) -> tuple[int, int, int]:
        version = self.client.connected_server_version
        return version.major, version.minor, version.patch

    @property
    def cluster_size(self) -> int | None:
        """The number of addresses in the cluster that the server names, its own included.

        None if it names none (``no_advertise``). A server may have several addresses.
        """
        return self._client.cluster_size if self._client else None

    @property
    def js(self) -> JetStreamContext:
        return self.client.jetstream(timeout=REQUEST_TIMEOUT.total_seconds())

    @property
    def is_up(self) -> bool:
        return self._client is not None and self._client.is_connected

    async def wait(self, within: timedelta | None = None) -> None:
        """Return as soon as a server is connected, or when the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within.total_seconds() if within else None):
                await self._up.wait()

    async def keep_connected(self) -> None:
        """Stay connected until cancelled."""
        while True:
            client = _Client(self._servers)
            try:
                await self._connect(client)
                await self._watch_over(client)
            except Exception as exc:  # noqa: BLE001 - any failure is answered by a new client
                self.faults.report("engine.unreachable", exc)
                await asyncio.sleep(CHECK_EVERY.total_seconds())
            finally:
                await self._drop(client)

    async def _connect(self, client: _Client) -> None:
        with reraise_cancellation():
            async with asyncio.timeout(self._renew_after.total_seconds()):
                await cancellable(client.connect(**self._options()))
            await self.subscriptions.move_to(client)
        self._client = client
        self._connected()
        log.info("engine.connected")

    async def _watch_over(self, client: Client) -> None:
        checks_left = checks = self._renew_after // CHECK_EVERY
        while checks_left:
            await asyncio.sleep(CHECK_EVERY.total_seconds())
            checks_left = checks if client.is_connected else checks_left - 1

    async def _drop(self, client: Client) -> None:
        self._client = None
        self._down()
        await complete_despite_cancellation(_close(client))  # else a socket would stay open

    def _connected(self) -> None:
        self._up.set()
        self._is_connected.set(1)
        self.faults.forget_all()
        self.gaps.notify()

    def _down(self) -> None:
        if self._up.is_set():
            self._down_since = time.monotonic()
            self.faults.forget_all()
        self._up.clear()
        self._is_connected.set(0)

    def _options(self) -> dict[str, Any]:
        servers = self._servers
        return {
            "servers": list(servers.urls),
            "name": self._name,
            "user": servers.user,
            "password": servers.password,
            "token": servers.token,
            "tls": servers.tls(),
            "user_credentials": str(servers.credentials_file) if servers.credentials_file else None,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.25,
            "connect_timeout": 2,
            "ping_interval": KEEP_ALIVE.total_seconds(),
            "max_outstanding_pings": 2,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnect,
            "reconnected_cb": self._on_reconnect,
        }

    async def _on_error(self, exc: Exception) -> None:
        if isinstance(exc, nats.errors.SlowConsumerError):
            self.gaps.notify()
        log.debug("engine.error", cause=describe(exc))  # four a second while a server is away
        if self._up.is_set():
            if reason_of(exc) == "not_permitted":
                self.faults.report("engine.not_ready", exc)
            return
        quiet_s = self._down_since + QUIET_FOR.total_seconds() - time.monotonic()
        asyncio.get_running_loop().call_later(max(quiet_s, 0), self._report_absence, exc)

    def _report_absence(self, exc: Exception) -> None:
        if not self._up.is_set():
            self.faults.report("engine.unreachable", exc)

    async def _on_disconnect(self) -> None:
        self._down()
        if self._client:
            log.warning("engine.disconnected")

    async def _on_reconnect(self) -> None:
        if self._client:
            self._connected()
            log.info("engine.reconnected")


async def _close(client: Client) -> None:
    with suppress(nats.errors.Error, OSError):
        async with asyncio.timeout(CLOSE_TIMEOUT.total_seconds()):
            await client.close()
