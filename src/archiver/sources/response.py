"""A host's response, the limits on reading it, and aiohttp's errors in our words."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TypeAlias

import aiohttp
from yarl import URL

from archiver.errors import (
    BadPack,
    ForbiddenAddress,
    SourceBusy,
    SourceError,
    SourceRefused,
    SourceTimeout,
    SourceTooSlow,
    SourceUnavailable,
    TruncatedArchive,
)
from archiver.sources.config import SourceConfig
from archiver.telemetry import METRICS

CHUNK_BYTES = 1 << 20
"""Size of a chunk when bytes arrive faster than they are consumed."""

LINGER = timedelta(milliseconds=10)
"""How long a chunk waits for more bytes. Chunks are small only when the host is slow."""

HEADER_MAX_CHARS = 4096
"""Longer headers are ignored: libraries take seconds to parse 8 kB of some of them."""

RETRY_AFTER_MAX = timedelta(hours=1)

_FILE_NAME = re.compile(r'; ?filename="?([^";]{1,255})')

_TRANSIENT_CLIENT_ERRORS = frozenset({408, 421, 425})
"""Statuses that a retry may avoid: too late, on a connection for another host, too early
(RFC 9110, 15.5.9 and 15.5.20; RFC 8470, 5.2)."""


class OutsidePerimeterError(OSError):
    """Prevents a socket. It is an OSError: aiohttp then tries the name's other addresses."""


BrokenOff: TypeAlias = type[SourceUnavailable | TruncatedArchive | BadPack]
"""The error for a body that ends early, which depends on the kind of body."""


@contextmanager
def translated_errors(url: URL, *, broken_off: BrokenOff = SourceUnavailable) -> Iterator[None]:
    """Translate aiohttp's errors, whose texts may quote URLs and the host's bytes."""
    try:
        yield
    except aiohttp.ClientConnectorError as exc:
        if isinstance(exc.__cause__, OutsidePerimeterError):
            raise ForbiddenAddress(f"{url.host} has an address that is not allowed") from exc
        raise SourceUnavailable(f"{url.host} cannot be reached") from exc
    except TimeoutError as exc:
        raise SourceTimeout(f"{url.host} took too long") from exc
    except aiohttp.ClientPayloadError as exc:
        raise broken_off(f"{url.host} closed the connection before the end of the body") from exc
    except (aiohttp.ClientError, ValueError) as exc:
        raise SourceUnavailable(f"{url.host} sent a malformed HTTP response") from exc


class Pace:
    """Measures the rate of a transfer over windows of waiting time.

    Only time spent waiting for the host counts. Time during which the consumer reads nothing does
    not: the host cannot send then.
    """

    def __init__(self, *, min_rate_bytes_s: int, window: timedelta) -> None:
        self._min_rate_bytes_s = min_rate_bytes_s
        self._window_s = window.total_seconds()
        self._waited_s = 0.0
        self._size_bytes = 0

    def is_kept(self, size_bytes: int, *, waited_s: float) -> bool:
        """Add a chunk and the wait for it. Return False if a window that ends here was too slow."""
        self._waited_s += waited_s
        self._size_bytes += size_bytes
        if self._waited_s < self._window_s:
            return True
        kept = self._size_bytes >= self._min_rate_bytes_s * self._waited_s
        self._waited_s, self._size_bytes = 0.0, 0
        return kept


class HostResponse:
    """A host's response: the head, and a body to read inside the block that received it."""

    def __init__(self, response: aiohttp.ClientResponse, config: SourceConfig) -> None:
        self._response = response
        self._config = config
        _end_with_connection(response)

    @property
    def url(self) -> str:
        """The address that sent the response, after redirects."""
        return str(self._response.url)

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def reason(self) -> str:
        """The text beside the status. Many hosts send one; proxies may drop it."""
        return self._response.reason or ""

    @property
    def declared_bytes(self) -> int:
        """The announced length of the body, or 0."""
        return self._response.content_length or 0

    @property
    def file_name(self) -> str:
        """The file name that the host suggests for the body; empty if it suggests none."""
        match = _FILE_NAME.search(read_header(self._response, "Content-Disposition"))
        return match[1] if match else ""

    @property
    def media_type(self) -> str:
        """The Content-Type in lower case, without parameters; empty if there is no such header."""
        media_type, _, _ = read_header(self._response, "Content-Type").partition(";")
        return media_type.strip().lower()

    @property
    def is_html(self) -> bool:
        return "html" in self.media_type

    @property
    def was_authorized(self) -> bool:
        """Whether the request carried the configured authorization."""
        return "Authorization" in self._response.request_info.headers

    @property
    def retry_after(self) -> timedelta | None:
        """The delay that the host requests; None if it requests none."""
        return parse_retry_after(read_header(self._response, "Retry-After"))

    @property
    def error(self) -> SourceError:
        """The error for the status of a failed response, when nothing more is known about it."""
        host, status = self._response.url.host, self.status
        match status:
            case 429 | 503:
                return SourceBusy(f"{host} is busy ({status})", retry_after=self.retry_after)
            case _ if 400 <= status < 500 and status not in _TRANSIENT_CLIENT_ERRORS:  # noqa: PLR2004
                return SourceRefused(f"{host} refused the request ({status})")
            case _:
                return SourceUnavailable(f"{host} sent an unexpected response ({status})")

    async def read_body(self, max_bytes: int) -> bytes:
        """Return the body, cut after *max_bytes* + 1 bytes. Raises SourceError."""
        body = bytearray()
        while len(body) <= max_bytes and (piece := await self.read(max_bytes + 1 - len(body))):
            body += piece
        return bytes(body)

    async def read(self, max_bytes: int) -> bytes:
        """Return the next bytes of the body, or nothing at its end. Raises SourceError."""
        with translated_errors(self._response.url):
            return await self._read(max_bytes)

    async def chunks(
        self, *, broken_off: BrokenOff = TruncatedArchive
    ) -> AsyncGenerator[bytes, None]:
        """Yield the body in chunks of at most CHUNK_BYTES, each delayed by at most LINGER.

        Raises *broken_off*, SourceTooSlow, or SourceTimeout after a silence or the deadline.
        """
        clock = asyncio.get_running_loop().time
        pace = Pace(
            min_rate_bytes_s=self._config.min_rate_bytes_s, window=self._config.min_rate_window
        )
        received = METRICS.source_bytes.labels(source=self._config.name)
        with translated_errors(self._response.url, broken_off=broken_off):
            waiting_since = clock()
            while chunk := await self._read_chunk():
                if not pace.is_kept(len(chunk), waited_s=clock() - waiting_since):
                    raise SourceTooSlow(f"{self._response.url.host} sends too slowly")
                received.inc(len(chunk))
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
            async with asyncio.timeout(self._config.read_timeout.total_seconds()):
                return await self._response.content.read(max_bytes)
        except RuntimeError as exc:
            raise aiohttp.ClientPayloadError from exc  # aiohttp's word for a lost connection


def _end_with_connection(response: aiohttp.ClientResponse) -> None:
    """End the body when its connection ends, which aiohttp omits if the framing is broken."""

    def end_body(closed: asyncio.Future[None]) -> None:
        lost = None if closed.cancelled() else closed.exception()
        if not content.is_eof() and not content.exception():
            content.set_exception(aiohttp.ClientPayloadError(), lost or ConnectionError())

    content = response.content
    protocol = response.connection.protocol if response.connection else None
    if protocol is not None and (closed := protocol.closed):
        closed.add_done_callback(end_body)


def read_header(response: aiohttp.ClientResponse, name: str) -> str:
    """Return a header of *response*; empty if it is absent or longer than HEADER_MAX_CHARS."""
    value = response.headers.get(name, "")
    return value if len(value) <= HEADER_MAX_CHARS else ""


def parse_retry_after(text: str) -> timedelta | None:
    """Return the delay that a Retry-After (RFC 9110, 10.2.3) states, if any; at most an hour."""
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
