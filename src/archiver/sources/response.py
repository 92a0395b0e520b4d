"""A host's response, and the limits on reading it."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp

from archiver.errors import (
    SourceBusy,
    SourceError,
    SourceRefused,
    SourceTooSlow,
    SourceUnavailable,
    TruncatedArchive,
)
from archiver.sources.pace import Pace
from archiver.sources.translation import translated_errors

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
        match = _FILE_NAME.search(read_header(self._response, "Content-Disposition"))
        return match[1] if match else ""

    @property
    def is_html(self) -> bool:
        media_type, _, _ = read_header(self._response, "Content-Type").partition(";")
        return "html" in media_type.lower()

    @property
    def error(self) -> SourceError:
        """The error for the status of a failed response, when nothing more is known about it."""
        host, status = self._response.url.host, self.status
        match status:
            case 429 | 503:
                retry_after = parse_retry_after(read_header(self._response, "Retry-After"))
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
        with translated_errors(self._response.url):
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
        with translated_errors(self._response.url, broken_off=TruncatedArchive):
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


def read_header(response: aiohttp.ClientResponse, name: str) -> str:
    """Return a header of *response*; empty if it is absent or longer than HEADER_MAX_CHARS."""
    value = response.headers.get(name, "")
    return value if len(value) <= HEADER_MAX_CHARS else ""


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
