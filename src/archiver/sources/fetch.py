"""The guarded, streaming request: GET and POST, to the hosts of one source."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from archiver.errors import ForbiddenAddress, SourceRefused, SourceTimeout, SourceUnavailable
from archiver.sources.config import SourceConfig
from archiver.sources.perimeter import Perimeter
from archiver.sources.response import (
    CHUNK_BYTES,
    HostResponse,
    OutsidePerimeterError,
    read_header,
    translated_errors,
)
from archiver.tls import create_ssl_context

REDIRECTS_MAX = 3
CONNECT_TIMEOUT = timedelta(seconds=10)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


_Origin: TypeAlias = tuple[str, str, int | None]
"""Scheme, host and port."""


@dataclass(frozen=True, slots=True)
class _Headers:
    """The headers of a request and its redirects: those for each host, and those for *origin*."""

    everywhere: Mapping[str, str]
    own: Mapping[str, str] = field(default_factory=dict)
    origin: _Origin | None = None

    def own_for(self, url: URL) -> Mapping[str, str]:
        return self.own if _origin(url) == self.origin else {}


class Fetch:
    """Sends requests within a perimeter, without proxies, cookies or ambient credentials.

    The configured authorization goes to the origin of ``url_template``: its scheme, host and port.
    A redirect to any other origin does not carry it.
    """

    def __init__(
        self, config: SourceConfig, *, session: aiohttp.ClientSession, perimeter: Perimeter
    ) -> None:
        self._config = config
        self._session = session
        self._perimeter = perimeter

    def admits(self, url: str) -> bool:
        """Return whether a request to *url*, which the host has named, would stay inside."""
        try:
            self._perimeter.check_redirect(self._perimeter.home, URL(url, encoded=True))
        except (ForbiddenAddress, ValueError):
            return False
        return True

    def get(
        self,
        url: str,
        *,
        deadline: timedelta,
        headers: Mapping[str, str] | None = None,
        own_headers: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[HostResponse]:
        """Yield the response at *url*, after redirects. Every request of it carries *headers*.

        The origin of *url* alone gets *own_headers*; an ``Authorization`` in them replaces the
        configured one. The deadline covers redirects, head and body.

        Raises SourceUnavailable, SourceTimeout, ForbiddenAddress, or SourceRefused after
        REDIRECTS_MAX redirects.
        """
        sent = _Headers(headers or {}, own_headers or {}, _origin(URL(url, encoded=True)))
        return self._request("GET", url, None, sent, deadline=deadline)

    def post(
        self, url: str, body: bytes, *, deadline: timedelta, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[HostResponse]:
        """Yield the response to *body*, like ``get``. A redirect repeats the method and the body.

        Git hosts redirect requests for a renamed repository with 301. A GET of the new address
        would not be the same question.
        """
        return self._request("POST", url, body, _Headers(headers), deadline=deadline)

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: "_Headers",
        *,
        deadline: timedelta,
    ) -> AsyncIterator[HostResponse]:
        ends_at = asyncio.get_running_loop().time() + deadline.total_seconds()
        here = URL(url, encoded=True)
        for _ in range(REDIRECTS_MAX + 1):
            async with self._send(method, here, body, headers, ends_at=ends_at) as response:
                if response.status not in _REDIRECTS:
                    yield HostResponse(response, self._config)
                    return
                target = _redirect_target(response)
                self._perimeter.check_redirect(here, target)
                here = target
        raise SourceRefused(f"{self._perimeter.home.host} redirects too often")

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        url: URL,
        body: bytes | None,
        headers: "_Headers",
        *,
        ends_at: float,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(
            total=max(ends_at - asyncio.get_running_loop().time(), 0.001),
            connect=CONNECT_TIMEOUT.total_seconds(),
        )
        if self._session.closed:  # aiohttp would raise a plain RuntimeError
            raise SourceUnavailable(f"the process is stopping: no request is sent to {url.host}")
        with translated_errors(url):
            async with asyncio.timeout(self._config.read_timeout.total_seconds()):
                response = await self._session.request(
                    method,
                    url,
                    data=body,
                    headers={
                        **headers.everywhere,
                        **self._authorization(url),
                        **headers.own_for(url),
                    },
                    timeout=timeout,
                    allow_redirects=False,
                )
        async with response:
            yield response

    def _authorization(self, url: URL) -> Mapping[str, str]:
        if not self._config.authorization or _origin(url) != _origin(self._perimeter.home):
            return {}
        return {"Authorization": self._config.authorization}


@asynccontextmanager
async def within(deadline: timedelta, *, source: str) -> AsyncIterator[None]:
    """Limit the block to *deadline*. Raises SourceTimeout."""
    try:
        async with asyncio.timeout(deadline.total_seconds()):
            yield
    except TimeoutError as exc:
        raise SourceTimeout(f"{source} took too long") from exc


@asynccontextmanager
async def open_fetch(
    config: SourceConfig,
    *,
    resolver: AbstractResolver | None = None,
    setting: str = "redirect_hosts",
) -> AsyncIterator[Fetch]:
    """Yield a Fetch with its own connections, inside its own perimeter.

    *setting* is the setting that errors name for the ``redirect_hosts`` of *config*.

    No connection is reused: surplus bytes after a response would be read as the next response.
    """
    perimeter = Perimeter(
        home=URL(config.url_template.partition("{")[0]),
        redirect_hosts=config.redirect_hosts,
        allow_private_addresses=config.allow_private_addresses,
        setting=setting,
    )

    def guarded_socket(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not perimeter.admits(address[0], address[1]):
            raise OutsidePerimeterError
        return socket.socket(family, kind, protocol)

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            resolver=resolver,
            socket_factory=guarded_socket,
            force_close=True,
            ssl=create_ssl_context(config.ca_file),
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": config.user_agent, "Accept-Encoding": "identity"},
        middlewares=(_send_once,),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=CHUNK_BYTES,
    ) as session:
        yield Fetch(config, session=session, perimeter=perimeter)


async def _send_once(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Disable aiohttp's own retries: the worker decides when to retry."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
        raise SourceUnavailable(
            f"{request.url.host} closed the connection before it responded"
        ) from exc


def _origin(url: URL) -> _Origin:
    """Return the origin. ``URL.origin`` keeps a default port that is spelled out."""
    return url.scheme, (url.raw_host or "").lower(), url.port


def _redirect_target(response: aiohttp.ClientResponse) -> URL:
    invalid = SourceUnavailable(f"{response.url.host} redirects without a valid address")
    location = read_header(response, "Location")
    if not location:
        raise invalid
    try:
        return response.url.join(URL(location))
    except ValueError as exc:
        raise invalid from exc
