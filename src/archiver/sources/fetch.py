"""The one guarded, streaming GET: whatever is asked of a host goes through here."""

import asyncio
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

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
from archiver.tls import create_ssl_context

CHUNK_BYTES = 1 << 20
"""How large a chunk becomes when bytes come faster than they are taken."""

LINGER = timedelta(milliseconds=10)
"""How long a chunk waits for more bytes, so that few make a chunk only if few come."""

HEADER_MAX_CHARS = 4096
"""A longer header of a host is ignored. Parsers of libraries take seconds over 8 kB of some."""

REDIRECTS_MAX = 3
CONNECT_TIMEOUT = timedelta(seconds=10)
RETRY_AFTER_MAX = timedelta(hours=1)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_FILE_NAME = re.compile(r'; ?filename="?([^";]{1,255})')

_PASSING = frozenset({408, 421, 425})
"""What a client does wrong only this time (RFC 9110, 15.5.9 and 15.5.20; RFC 8470, 5.2): too late,
on a connection for another host, too early."""


class Answer:
    """What a host answered: head now, body as it comes. Lives as long as the block that got it."""

    def __init__(
        self, *, response: aiohttp.ClientResponse, pace: Pace, read_timeout: timedelta
    ) -> None:
        self._response = response
        self._pace = pace
        self._read_timeout = read_timeout
        _end_with_connection(response)

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def reason(self) -> str:
        """The text beside the status, which many hosts send, but no proxy has to."""
        return self._response.reason or ""

    @property
    def declared_bytes(self) -> int:
        """How long the body is to be, or 0 if the host does not say."""
        return self._response.content_length or 0

    @property
    def file_name(self) -> str:
        """What the host would have the body saved as, or nothing if it does not say."""
        named = _FILE_NAME.search(_header(self._response, "Content-Disposition"))
        return named[1] if named else ""

    @property
    def is_html(self) -> bool:
        media_type, _, _ = _header(self._response, "Content-Type").partition(";")
        return "html" in media_type.lower()

    @property
    def failure(self) -> SourceError:
        """What the status means, if not that all is well and nothing more is known of it."""
        host, status = self._response.url.host, self.status
        match status:
            case 429 | 503:
                retry_after = parse_retry_after(_header(self._response, "Retry-After"))
                return SourceBusy(f"{host} is busy ({status})", retry_after=retry_after)
            case _ if 400 <= status < 500 and status not in _PASSING:  # noqa: PLR2004
                return SourceRefused(f"{host} refused to answer ({status})")
            case _:
                return SourceUnavailable(f"{host} did not answer as it should ({status})")

    async def text(self, most: int) -> bytes:
        """Return the body if it has at most *most* bytes, else so many and one more.

        Raises:
            SourceUnavailable, SourceTimeout: It did not come.
        """
        body = bytearray()
        with _our_errors(self._response.url):
            while len(body) <= most and (piece := await self._read(most + 1 - len(body))):
                body += piece
        return bytes(body)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body, in chunks of at most CHUNK_BYTES, none of which is held back long.

        Raises:
            TruncatedArchive: The host broke off, and so that one can tell.
            SourceTimeout: It fell silent, or the deadline is over.
            SourceTooSlow: It drips.
        """
        clock = asyncio.get_running_loop().time
        with _our_errors(self._response.url, broken_off=TruncatedArchive):
            asked_at = clock()
            while chunk := await self._chunk():
                if not self._pace.keeps(len(chunk), waited_s=clock() - asked_at):
                    raise SourceTooSlow(f"{self._response.url.host} sends too slowly")
                yield chunk
                asked_at = clock()

    async def _chunk(self) -> bytes:
        pieces = [await self._read(CHUNK_BYTES)]
        room = CHUNK_BYTES - len(pieces[0])
        # An error of aiohttp's own clock is a TimeoutError, too, but it raises it again next time.
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER.total_seconds()):
                while pieces[-1] and room:
                    pieces.append(await self._read(room))
                    room -= len(pieces[-1])
        return b"".join(pieces)

    async def _read(self, most: int) -> bytes:
        """Return some of the body. A host that sends nothing but its framing is silent."""
        try:
            async with asyncio.timeout(self._read_timeout.total_seconds()):
                return await self._response.content.read(most)
        except RuntimeError as exc:
            raise aiohttp.ClientPayloadError from exc  # what aiohttp means: the connection is gone


class Fetch:
    """Asks within a perimeter. Takes no proxy, no cookie and no credential from anywhere."""

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        perimeter: Perimeter,
        read_timeout: timedelta,
        pace: Callable[[], Pace],
    ) -> None:
        self._pace = pace
        self._session = session
        self._perimeter = perimeter
        self._read_timeout = read_timeout

    @asynccontextmanager
    async def get(self, url: str, *, deadline: timedelta) -> AsyncIterator[Answer]:
        """Yield the answer at *url*, or at the place to which it redirects.

        The deadline is for all of it: redirects, head and body.

        Raises:
            SourceUnavailable, SourceTimeout: There is none.
            ForbiddenAddress: The way there leaves the perimeter.
            SourceRefused: There are more redirects than one follows.
        """
        ends_at = asyncio.get_running_loop().time() + deadline.total_seconds()
        here = URL(url, encoded=True)
        for _ in range(REDIRECTS_MAX + 1):
            async with self._ask(here, ends_at=ends_at) as response:
                if response.status not in _REDIRECTS:
                    yield Answer(
                        response=response, pace=self._pace(), read_timeout=self._read_timeout
                    )
                    return
                target = _redirect_target(response)
                self._perimeter.check_redirect(here, target)
                here = target
        raise SourceRefused(f"{self._perimeter.home.host} redirects again and again")

    @asynccontextmanager
    async def _ask(self, url: URL, *, ends_at: float) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(
            total=max(ends_at - asyncio.get_running_loop().time(), 0.001),
            connect=CONNECT_TIMEOUT.total_seconds(),
        )
        if self._session.closed:  # of which aiohttp says nothing but RuntimeError
            raise SourceUnavailable(f"{url.host} is asked nothing by a process that ends")
        with _our_errors(url):
            async with asyncio.timeout(self._read_timeout.total_seconds()):
                response = await self._session.get(url, timeout=timeout, allow_redirects=False)
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
    resolver: AbstractResolver | None = None,
    ca_file: Path | None = None,
) -> AsyncIterator[Fetch]:
    """Yield a Fetch with connections of its own.

    A silence of *read_timeout* ends a transfer: one in which neither a whole head comes nor any of
    the body. No connection is used twice: a host that sends more than its answer would have it
    taken for the next one. hgweb must not know, for it sends in chunks only if it may go on.
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
            ssl=create_ssl_context(ca_file),
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "User-Agent": user_agent,
            "Accept-Encoding": "identity",
            "Connection": "keep-alive",
        },
        middlewares=(_ask_once,),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=CHUNK_BYTES,
    ) as session:
        yield Fetch(
            session=session,
            perimeter=perimeter,
            read_timeout=read_timeout,
            pace=partial(Pace, min_rate_bytes_s=min_rate_bytes_s, window=min_rate_window),
        )


class _OutsideError(OSError):
    """Keeps a socket from being made; an OSError, so that a name's other addresses get tried."""


async def _ask_once(
    request: aiohttp.ClientRequest, ask: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from asking again on its own: what is tried again, and when, others decide."""
    try:
        return await ask(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
        raise SourceUnavailable(f"{request.url.host} broke off before it answered") from exc


def _end_with_connection(response: aiohttp.ClientResponse) -> None:
    """Have the body end when its connection does: aiohttp forgets it when the framing is broken."""

    def end(closed: asyncio.Future[None]) -> None:
        lost = None if closed.cancelled() else closed.exception()
        if not content.is_eof() and not content.exception():
            content.set_exception(aiohttp.ClientPayloadError(), lost or ConnectionError())

    content = response.content
    protocol = response.connection.protocol if response.connection else None
    if protocol is not None and (closed := protocol.closed):
        closed.add_done_callback(end)


@contextmanager
def _our_errors(
    url: URL, *, broken_off: type[SourceUnavailable | TruncatedArchive] = SourceUnavailable
) -> Iterator[None]:
    """Translate what aiohttp raises, which may quote URLs and what the host said."""
    try:
        yield
    except aiohttp.ClientConnectorError as exc:
        if isinstance(exc.__cause__, _OutsideError):
            raise ForbiddenAddress(f"{url.host} has an address that is not allowed") from exc
        raise SourceUnavailable(f"{url.host} cannot be reached") from exc
    except TimeoutError as exc:
        raise SourceTimeout(f"{url.host} took too long") from exc
    except aiohttp.ClientPayloadError as exc:
        raise broken_off(f"{url.host} broke off in the middle") from exc
    except (aiohttp.ClientError, ValueError) as exc:
        raise SourceUnavailable(f"{url.host} did not speak HTTP as it should") from exc


def _header(response: aiohttp.ClientResponse, name: str) -> str:
    """Return a header of *response*, or nothing if it is absent or too long."""
    value = response.headers.get(name, "")
    return value if len(value) <= HEADER_MAX_CHARS else ""


def _redirect_target(response: aiohttp.ClientResponse) -> URL:
    nowhere = SourceUnavailable(f"{response.url.host} redirects to nowhere")
    location = _header(response, "Location")
    if not location:
        raise nowhere
    try:
        return response.url.join(URL(location))
    except ValueError as exc:
        raise nowhere from exc


def parse_retry_after(text: str) -> timedelta | None:
    """Return for how long a Retry-After (RFC 9110, 10.2.3) asks, but at most RETRY_AFTER_MAX.

    None if it does not say.
    """
    try:
        asked = timedelta(seconds=int(text)) if text.isdigit() else _until(text)
    except OverflowError:
        return RETRY_AFTER_MAX
    except ValueError:
        return None
    return min(max(asked, timedelta()), RETRY_AFTER_MAX)


def _until(http_date: str) -> timedelta:
    moment = parsedate_to_datetime(http_date)
    return moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)
