"""Archiver's public interface, from the outside."""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

from archiver import __version__
from archiver.cli.answers import (
    POLL_MAX_S,
    Accepted,
    Answer,
    Located,
    Progress,
    host,
    is_url,
    origin,
    understand,
    understand_status,
)
from archiver.cli.failures import (
    CommandFailed,
    Declined,
    Misused,
    NoAnswer,
    RetryLater,
    WrongBytes,
)
from archiver.cli.output import Sink

CHUNK_BYTES = 1024 * 1024
ANSWER_MAX_BYTES = 1024 * 1024
"""Of the JSON that Archiver sends: thousands of times what it is."""
CONNECT_S = 10.0
SILENCE_S = 60.0
ANSWER_S = 90.0
"""How long one answer may take in all: more than any server holds a question."""
POLL_MIN_S = 0.2
HOLD_S = 10
"""How long a server may hold a question about a task. One that can tags its answers."""
AWAY_S = 60.0
"""How long a wait for a task goes on without an answer: Archiver may be restarting."""

_PLAIN_REV = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._~-]+")

NOT_MODIFIED = 304


class Client:
    """Speaks to one Archiver. Whatever goes wrong is a CommandFailed."""

    def __init__(self, *, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server.rstrip("/")

    def archive_url(self, source: str, repo: str, rev: str, query: Mapping[str, str | None]) -> str:
        """Return the address of an archive. A rev that proxies may change in a path is a parameter.

        Arguments that are not UTF-8 are sent as they are, for the server to refuse.
        """
        given = {name: value for name, value in query.items() if value}
        path = f"{quote(source, safe='')}/{quote(repo.strip('/'), errors='surrogateescape')}"
        if _PLAIN_REV.fullmatch(rev):
            path = f"{path}/{rev}"
        else:
            given = {"rev": rev, **given}
        encoded = urlencode(given, safe="/", errors="surrogateescape")
        return f"{self._server}/archiver/{path}" + (f"?{encoded}" if encoded else "")

    def status_url(self, task: str) -> str:
        """Return the status URL of a task id, or *task* if it is a URL already."""
        if is_url(task):
            return task
        return f"{self._server}/archiver/status/{quote(task, safe=':')}"

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask, and follow no redirect.

        Raises:
            NoAnswer: The server did not answer.
            CommandFailed: The answer is too long.
        """
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._session.get(
                    URL(url, encoded=True), headers=headers, allow_redirects=False
                ) as response,
            ):
                return Answer(
                    status=response.status,
                    reason=response.reason or "",
                    headers={name.lower(): value for name, value in response.headers.items()},
                    body=await _body(response),
                )
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            raise NoAnswer(f"{host(url)} does not answer{_why(exc)}") from exc

    async def ask(self, url: str) -> Located | Accepted:
        """Return where the archive of *url* is, or where to ask how far it is."""
        return understand(await self.get(url), asked=url)

    async def progress(self, status_url: str) -> Progress:
        return understand_status(await self.get(status_url))

    async def change(self, status_url: str, known: Progress, wait_s: int = HOLD_S) -> Progress:
        """Return the status when it is another one than *known*, which has a tag; or after a while.

        Raises:
            RetryLater: There was no answer, or no room to wait.
        """
        separator = "&" if urlsplit(status_url).query else "?"
        headers = {"If-None-Match": known.tag or ""}
        answer = await self.get(f"{status_url}{separator}wait={wait_s}", headers)
        return known if answer.status == NOT_MODIFIED else understand_status(answer)

    async def wait(self, accepted: Accepted, report: Callable[[Progress], None]) -> None:
        """Return when the archive is to be asked for again; tell *report* the task's progress.

        That is when the task has ended in success. An Archiver that is away for less than a minute
        is asked again, and then asked for the archive, too, since it may have lost the task; the
        caller sets the deadline.

        Raises:
            RetryLater: Archiver is away, or its answers lead to an address that is unreachable.
            CommandFailed: The task failed, or something else than an Archiver is at that address.
        """
        loop = asyncio.get_running_loop()
        delay_s, known, was_away = POLL_MIN_S, None, False
        heard = loop.time() if _heard(accepted) else None
        while True:
            last = known
            try:
                known = await self._next(accepted.status_url, last)
            except CommandFailed as exc:
                known, heard = None, _heard_after(exc, accepted, heard=heard, now=loop.time())
                was_away |= not isinstance(exc, Declined)
            else:
                heard = loop.time()
                report(known)
                known.check()
                if known.ended:
                    return
                if was_away and accepted.asked:
                    with suppress(RetryLater):
                        answer = await self.ask(accepted.asked)
                        if isinstance(answer, Located) or answer.status_url != accepted.status_url:
                            return
                        was_away = False
                if known.tag and known is not last:
                    continue
            await asyncio.sleep(delay_s)
            delay_s = min(1.5 * delay_s, max(POLL_MIN_S, min(accepted.retry_after_s, POLL_MAX_S)))

    async def _next(self, status_url: str, known: Progress | None) -> Progress:
        """Return the status: when it has changed, if the server can tell that."""
        if known and known.tag:
            return await self.change(status_url, known)
        return await self.progress(status_url)

    async def download(self, located: Located, sink: Sink, report: Callable[[int], None]) -> None:
        """Add to *sink* what it lacks of the archive; tell *report* how many bytes each chunk has.

        No `If-Range` is needed: the sha256 covers the bytes that were there before as well.

        Raises:
            RetryLater: S3 did not give it, or not all of it.
            WrongBytes: It gave something else.
        """
        if sink.size_bytes < located.size_bytes:
            await self._download(located, sink, report)
        if sink.sha256 != located.sha256:
            raise WrongBytes(
                f"the bytes from {located.place} have sha256 {sink.sha256}, not {located.sha256}"
            )

    async def _download(self, located: Located, sink: Sink, report: Callable[[int], None]) -> None:
        async for chunk in self._chunks(located, sink.size_bytes):
            if sink.size_bytes + len(chunk) > located.size_bytes:
                raise WrongBytes(f"{located.place} gives more than {located.size_bytes:,} bytes")
            sink.write(chunk)
            report(len(chunk))
        if sink.size_bytes < located.size_bytes:
            raise RetryLater(
                f"the download from {located.place} broke off after {sink.size_bytes:,} "
                f"of {located.size_bytes:,} bytes"
            )

    async def _chunks(self, located: Located, start: int) -> AsyncIterator[bytes]:
        """Read from S3, from byte *start* on.

        Only what the link itself says is sent: S3 refuses two credentials.
        """
        headers = {"Range": f"bytes={start}-"} if start else None
        try:
            async with self._session.get(
                URL(located.url, encoded=True), headers=headers, allow_redirects=False
            ) as response:
                skip = _skipped(response, located, start)
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                    if wanted := chunk[skip:]:
                        yield wanted
                    skip = max(0, skip - len(chunk))
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            raise RetryLater(f"the download from {located.place} broke off{_why(exc)}") from exc


@asynccontextmanager
async def open_client(server: str) -> AsyncIterator[Client]:
    """Yield a client. Raises Misused unless *server* is an http or https URL."""
    if not is_url(server):
        raise Misused("--server must be an http or https URL")
    async with aiohttp.ClientSession(
        headers={"User-Agent": f"archiver-cli/{__version__}", "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=SILENCE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    ) as session:
        yield Client(session=session, server=server)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > ANSWER_MAX_BYTES:
            raise CommandFailed(
                f"{response.host} answers with more than {ANSWER_MAX_BYTES:,} bytes"
            )
    return bytes(body)


def _skipped(response: aiohttp.ClientResponse, located: Located, start: int) -> int:
    """Return how many bytes of the body to leave out, because they are there already.

    Whether it is the requested part is seen by its Content-Range: rclone sends one with 200.

    Raises:
        RetryLater: It is an error, or another part than the one requested.
        WrongBytes: It is an object of another size.
    """
    sent = response.headers.get("Content-Range")
    part = f"bytes {start}-{located.size_bytes - 1}/{located.size_bytes}"
    if response.status not in {200, 206} or sent not in {None, part}:
        raise RetryLater(f"{located.place} answers {response.status}")
    expected = located.size_bytes - (start if sent else 0)
    if response.content_length not in {None, expected}:
        raise WrongBytes(f"{located.place} has {response.content_length:,} bytes, not {expected:,}")
    return 0 if sent else start


def _heard(accepted: Accepted) -> bool:
    """Return whether the address of the status URL has just answered another request."""
    return bool(accepted.asked) and origin(accepted.asked or "") == origin(accepted.status_url)


def _heard_after(
    exc: CommandFailed, accepted: Accepted, *, heard: float | None, now: float
) -> float:
    """Return when Archiver was last heard of, if it is to be asked again.

    Raises:
        CommandFailed: It is not.
    """
    known = heard is not None or not accepted.asked
    if isinstance(exc, Declined) or (known and type(exc) is RetryLater):
        return now
    if heard is None:
        kind = NoAnswer if isinstance(exc, NoAnswer) else CommandFailed
        raise kind(_led_astray(accepted, exc)) from exc
    if isinstance(exc, NoAnswer) and now - heard <= AWAY_S:
        return heard
    raise exc


def _led_astray(accepted: Accepted, exc: CommandFailed) -> str:
    """Return what is wrong with a status URL from which no status ever came."""
    if not accepted.asked:
        return exc.message
    return (
        f"{origin(accepted.status_url)} gives no status ({exc.message}). "
        f"{origin(accepted.asked)} leads its clients there: the setting server.public_url of that "
        "Archiver has to name an address at which they reach it"
    )


def _why(exc: Exception) -> str:
    """Return why there was no answer, if that is known, in words of our own."""
    match exc:
        case aiohttp.ClientConnectorDNSError():
            return ": its name does not resolve"
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            return ": its certificate is not trusted"
        case aiohttp.ClientConnectorSSLError():
            return ": TLS failed"
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int() as number)) if number > 0:
            return f": {os.strerror(number)}"
        case TimeoutError():
            return ": nothing came in time"
        case _:
            return ""
