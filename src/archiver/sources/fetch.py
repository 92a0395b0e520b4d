"""The guarded, streaming GET that carries every request to a host."""

import asyncio
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from archiver.errors import (
    ForbiddenAddress,
    SourceBusy,
    SourceError,
    SourceRefused,
    SourceTimeout,
    SourceTooSlow,
    SourceUnavailable,
    TruncatedArchive,
)
from archiver.sources.pace import RATE_WINDOW, Pace
from archiver.sources.perimeter import Perimeter
from archiver.tls import trusting

CHUNK_BYTES = 1 << 20
"""Size of a chunk when bytes arrive faster than they are consumed."""

LINGER = timedelta(milliseconds=10)
"""How long a chunk waits for more bytes. Chunks are small only when the host is slow."""

HEADER_MAX_CHARS = 4096
"""Longer headers are ignored: libraries take seconds to parse 8 kB of some of them."""

REDIRECTS_MAX = 3
CONNECT_TIMEOUT = timedelta(seconds=10)
RETRY_AFTER_MAX = timedelta(hours=1)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_FILE_NAME = re.compile(r'; ?filename="?([^";]{1,255})')

_TRANSIENT_CLIENT_ERRORS = frozenset({408, 421, 425})
"""Statuses that a retry may avoid: too late, on a connection for another host, too early
(RFC 9110, 15.5.9 and 15.5.20; RFC 8470, 5.2)."""


NO_HEADERS: Mapping[str, str] = MappingProxyType({})

CountBytes = Callable[[int], None]
"""Called with the size of each chunk of an archive that arrives."""


class HostResponse:
    """A host's response: the head, and a body to read inside the block that received it."""

    def __init__(
        self,
        *,
        response: aiohttp.ClientResponse,
        pace: Pace,
        read_timeout: timedelta,
        count_bytes: CountBytes,
    ) -> None:
        self._response = response
        self._pace = pace
        self._read_timeout = read_timeout
        self._count_bytes = count_bytes
        _end_with_connection(response)

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def reason(self) -> str:
        """The text beside the status. Many hosts send one; proxies may drop it."""
        return self._response.reason or ""

    @property
    def declared_bytes(self) -> int:
        """The announced length of the body; 0 if the host announced none."""
        return self._response.content_length or 0

    @property
    def file_name(self) -> str:
        """The file name that the host suggests for the body; empty if it suggests none."""
        match = _FILE_NAME.search(_header(self._response, "Content-Disposition"))
        return match[1] if match else ""

    @property
    def is_html(self) -> bool:
        media_type, _, _ = _header(self._response, "Content-Type").partition(";")
        return "html" in media_type.lower()

    @property
    def error(self) -> SourceError:
        """The error for the status of a failed response, when nothing more is known about it."""
        host, status = self._response.url.host, self.status
        match status:
            case 429 | 503:
                retry_after = parse_retry_after(_header(self._response, "Retry-After"))
                return SourceBusy(f"{host} is busy ({status})", retry_after=retry_after)
            case _ if 400 <= status < 500 and status not in _TRANSIENT_CLIENT_ERRORS:  # noqa: PLR2004
                return SourceRefused(f"{host} refused the request ({status})")
            case _:
                return SourceUnavailable(f"{host} sent an unexpected response ({status})")

    async def read_body(self, max_bytes: int) -> bytes:
        """Return the body, cut after *max_bytes* + 1 bytes.

        Raises:
            SourceUnavailable, SourceTimeout: The body did not arrive.
        """
        body = bytearray()
        with _translated_errors(self._response.url):
            while len(body) <= max_bytes and (piece := await self._read(max_bytes + 1 - len(body))):
                body += piece
        return bytes(body)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body in chunks of at most CHUNK_BYTES, each delayed by at most LINGER.

        Raises:
            TruncatedArchive: The host closed the connection before the announced end.
            SourceTimeout: The host fell silent, or the deadline passed.
            SourceTooSlow: The host sends below the minimum rate.
        """
        clock = asyncio.get_running_loop().time
        with _translated_errors(self._response.url, broken_off=TruncatedArchive):
            waiting_since = clock()
            while chunk := await self._read_chunk():
                if not self._pace.is_kept(len(chunk), waited_s=clock() - waiting_since):
                    raise SourceTooSlow(f"{self._response.url.host} sends too slowly")
                self._count_bytes(len(chunk))
                yield chunk
                waiting_since = clock()

    async def _read_chunk(self) -> bytes:
        pieces = [await self._read(CHUNK_BYTES)]
        room = CHUNK_BYTES - len(pieces[0])
        # aiohttp's own timeout is a TimeoutError, too. It raises that again at the next read.
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER.total_seconds()):
                while pieces[-1] and room:
                    pieces.append(await self._read(room))
                    room -= len(pieces[-1])
        return b"".join(pieces)

    async def _read(self, max_bytes: int) -> bytes:
        """Return some of the body. Framing without content counts as silence."""
        try:
            async with asyncio.timeout(self._read_timeout.total_seconds()):
                return await self._response.content.read(max_bytes)
        except RuntimeError as exc:
            raise aiohttp.ClientPayloadError from exc  # aiohttp's word for a lost connection


class Fetch:
    """Sends requests within a perimeter, without proxies, cookies or ambient credentials."""

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        perimeter: Perimeter,
        read_timeout: timedelta,
        new_pace: Callable[[], Pace],
        count_bytes: CountBytes,
    ) -> None:
        self._new_pace = new_pace
        self._count_bytes = count_bytes
        self._session = session
        self._perimeter = perimeter
        self._read_timeout = read_timeout

    @asynccontextmanager
    async def get(
        self, url: str, *, deadline: timedelta, headers: Mapping[str, str] = NO_HEADERS
    ) -> AsyncIterator[HostResponse]:
        """Yield the response at *url*, after redirects. Every request of it carries *headers*.

        The deadline covers redirects, head and body.

        Raises:
            SourceUnavailable, SourceTimeout: The host did not respond.
            ForbiddenAddress: A redirect or an address leaves the perimeter.
            SourceRefused: There are more than REDIRECTS_MAX redirects.
        """
        ends_at = asyncio.get_running_loop().time() + deadline.total_seconds()
        here = URL(url, encoded=True)
        for _ in range(REDIRECTS_MAX + 1):
            async with self._send(here, headers, ends_at=ends_at) as response:
                if response.status not in _REDIRECTS:
                    yield HostResponse(
                        response=response,
                        pace=self._new_pace(),
                        read_timeout=self._read_timeout,
                        count_bytes=self._count_bytes,
                    )
                    return
                target = _redirect_target(response)
                self._perimeter.check_redirect(here, target)
                here = target
        raise SourceRefused(f"{self._perimeter.home.host} redirects too often")

    @asynccontextmanager
    async def _send(
        self, url: URL, headers: Mapping[str, str], *, ends_at: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(
            total=max(ends_at - asyncio.get_running_loop().time(), 0.001),
            connect=CONNECT_TIMEOUT.total_seconds(),
        )
        if self._session.closed:  # aiohttp would raise a plain RuntimeError
            raise SourceUnavailable(f"the process is stopping: no request is sent to {url.host}")
        with _translated_errors(url):
            async with asyncio.timeout(self._read_timeout.total_seconds()):
                response = await self._session.get(
                    url, headers=headers, timeout=timeout, allow_redirects=False
                )
        async with response:
            yield response


@asynccontextmanager
async def open_fetch(
    *,
    perimeter: Perimeter,
    read_timeout: timedelta,
    user_agent: str,
    min_rate_bytes_s: int = 0,
    min_rate_window: timedelta = RATE_WINDOW,
    count_bytes: CountBytes = lambda _: None,
    resolver: AbstractResolver | None = None,
    ca_file: Path | None = None,
) -> AsyncIterator[Fetch]:
    """Yield a Fetch with its own connections.

    A transfer fails after *read_timeout* without a whole head or any byte of the body. No
    connection is reused: surplus bytes after a response would be read as the next response.
    """

    def guarded_socket(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not perimeter.admits(address[0], address[1]):
            raise _OutsideError
        return socket.socket(family, kind, protocol)

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            resolver=resolver,
            socket_factory=guarded_socket,
            force_close=True,
            ssl=trusting(ca_file),
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "User-Agent": user_agent,
            "Accept-Encoding": "identity",
        },
        middlewares=(_send_once,),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=CHUNK_BYTES,
    ) as session:
        yield Fetch(
            session=session,
            perimeter=perimeter,
            read_timeout=read_timeout,
            new_pace=partial(Pace, min_rate_bytes_s=min_rate_bytes_s, window=min_rate_window),
            count_bytes=count_bytes,
        )


class _OutsideError(OSError):
    """Prevents a socket. It is an OSError: aiohttp then tries the name's other addresses."""


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


def _end_with_connection(response: aiohttp.ClientResponse) -> None:
    """End the body when its connection ends, which aiohttp omits if the framing is broken."""

    def end(closed: asyncio.Future[None]) -> None:
        lost = None if closed.cancelled() else closed.exception()
        if not content.is_eof() and not content.exception():
            content.set_exception(aiohttp.ClientPayloadError(), lost or ConnectionError())

    content = response.content
    protocol = response.connection.protocol if response.connection else None
    if protocol is not None and (closed := protocol.closed):
        closed.add_done_callback(end)


@contextmanager
def _translated_errors(
    url: URL, *, broken_off: type[SourceUnavailable | TruncatedArchive] = SourceUnavailable
) -> Iterator[None]:
    """Translate aiohttp's errors, whose texts may quote URLs and the host's bytes."""
    try:
        yield
    except aiohttp.ClientConnectorError as exc:
        if isinstance(exc.__cause__, _OutsideError):
            raise ForbiddenAddress(f"{url.host} has an address that is not allowed") from exc
        raise SourceUnavailable(f"{url.host} cannot be reached") from exc
    except TimeoutError as exc:
        raise SourceTimeout(f"{url.host} took too long") from exc
    except aiohttp.ClientPayloadError as exc:
        raise broken_off(f"{url.host} closed the connection before the end of the body") from exc
    except (aiohttp.ClientError, ValueError) as exc:
        raise SourceUnavailable(f"{url.host} sent a malformed HTTP response") from exc


def _header(response: aiohttp.ClientResponse, name: str) -> str:
    """Return a header of *response*; empty if it is absent or longer than HEADER_MAX_CHARS."""
    value = response.headers.get(name, "")
    return value if len(value) <= HEADER_MAX_CHARS else ""


def _redirect_target(response: aiohttp.ClientResponse) -> URL:
    invalid = SourceUnavailable(f"{response.url.host} redirects without a valid address")
    location = _header(response, "Location")
    if not location:
        raise invalid
    try:
        return response.url.join(URL(location))
    except ValueError as exc:
        raise invalid from exc


def parse_retry_after(text: str) -> timedelta | None:
    """Return the delay that a Retry-After (RFC 9110, 10.2.3) states, at most RETRY_AFTER_MAX.

    None if the text states no delay.
    """
    try:
        delay = timedelta(seconds=int(text)) if text.isdigit() else _until(text)
    except OverflowError:
        return RETRY_AFTER_MAX
    except ValueError:
        return None
    return min(max(delay, timedelta()), RETRY_AFTER_MAX)


def _until(http_date: str) -> timedelta:
    moment = parsedate_to_datetime(http_date)
    return moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)
