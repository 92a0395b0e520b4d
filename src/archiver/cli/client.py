"""Archiver's public interface, from the outside."""

import asyncio
import hashlib
import json
import math
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlencode, urlsplit

import aiohttp
from yarl import URL

from archiver import __version__
from archiver.cli.failures import CommandFailed, Misused, NotFound, RetryLater, WrongBytes

CHUNK_BYTES = 1024 * 1024
CONNECT_S = 10.0
SILENCE_S = 60.0
POLL_MIN_S = 0.2
POLL_MAX_S = 3.0
HOLD_S = 10
"""How long a server may hold a question about a task. One that can tags its answers."""

_PLAIN_REV = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._~-]+")

NOT_MODIFIED = 304
UNKNOWN = frozenset({"unknown_source", "unknown_repo", "unknown_rev", "unknown_subdir"})

_MEANING = {
    400: Misused,
    404: NotFound,
    429: RetryLater,
    502: RetryLater,
    503: RetryLater,
    504: RetryLater,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer without its connection. Names of headers are in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str] = field(repr=False)
    body: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where the archive is, and what its bytes have to be. ``url`` is presigned: a secret."""

    url: str = field(repr=False)
    sha256: str
    size_bytes: int
    node: str
    region: str

    @property
    def file_name(self) -> str:
        """The last segment of the URL, as far as it is safe to call a file so."""
        last = unquote(urlsplit(self.url).path).rpartition("/")[2]
        return re.sub(r"[^A-Za-z0-9._+-]", "-", last).lstrip(".-") or "archive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The archive is being brought; ``status_url`` tells how far it is."""

    status_url: str
    retry_after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the status URL says; ``tag`` is the server's name for it, if it has one."""

    state: str
    phase: str
    bytes_done: int
    tag: str | None = None
    result: Mapping[str, Any] = field(repr=False)

    @property
    def ended(self) -> bool:
        return self.state in {"SUCCESS", "FAILURE"}

    def check(self) -> None:
        """Return unless the task failed. Raises CommandFailed with its reason."""
        if self.state != "FAILURE":
            return
        error = self.result.get("error") or {}
        code = str(error.get("code", "failed"))
        message = f"{code}: {error.get('message') or self.result.get('status')}"
        raise NotFound(message) if code in UNKNOWN else CommandFailed(message)


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
        if urlsplit(task).scheme in {"http", "https"}:
            return task
        return f"{self._server}/archiver/status/{quote(task, safe=':')}"

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask, and follow no redirect.

        Raises:
            RetryLater: There was no answer.
        """
        try:
            async with self._session.get(
                URL(url, encoded=True), headers=headers, allow_redirects=False
            ) as response:
                return Answer(
                    status=response.status,
                    reason=response.reason or "",
                    headers={name.lower(): value for name, value in response.headers.items()},
                    body=_object(await response.read()),
                )
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            raise RetryLater(f"{_host(url)} does not answer") from exc

    async def ask(self, url: str) -> Located | Accepted:
        """Return where the archive of *url* is, or who says when it is there."""
        return understand(await self.get(url))

    async def progress(self, status_url: str) -> Progress:
        return _progress(await self.get(status_url))

    async def change(self, status_url: str, known: Progress, wait_s: int = HOLD_S) -> Progress:
        """Return the status when it is another one than *known*, which has a tag; or after a while.

        Raises:
            RetryLater: There was no answer, or no room to wait.
        """
        headers = {"If-None-Match": known.tag or ""}
        answer = await self.get(f"{status_url}?wait={wait_s}", headers)
        return known if answer.status == NOT_MODIFIED else _progress(answer)

    async def wait(self, accepted: Accepted, report: Callable[[Progress], None]) -> None:
        """Return when the task has ended in success; tell *report* how far it is meanwhile.

        An Archiver that does not answer for a while is asked again; the caller sets the deadline.

        Raises:
            CommandFailed: The task failed.
        """
        delay_s, known = POLL_MIN_S, None
        while True:
            last = known
            try:
                known = await self._next(accepted.status_url, last)
            except RetryLater:
                known = None
            else:
                report(known)
                known.check()
                if known.ended:
                    return
                if known.tag and known is not last:
                    continue
            await asyncio.sleep(delay_s)
            delay_s = min(1.5 * delay_s, max(POLL_MIN_S, min(accepted.retry_after_s, POLL_MAX_S)))

    async def _next(self, status_url: str, known: Progress | None) -> Progress:
        """Return the status: when it has changed, if the server can tell that."""
        if known and known.tag:
            return await self.change(status_url, known)
        return await self.progress(status_url)

    async def download(
        self, located: Located, sink: BinaryIO, report: Callable[[int], None]
    ) -> None:
        """Write the archive to *sink*; tell *report* how many bytes each chunk has.

        Raises:
            RetryLater: S3 did not give it.
            WrongBytes: It gave something else.
        """
        digest, size_bytes = hashlib.sha256(), 0
        async for chunk in self._chunks(located):
            sink.write(chunk)
            digest.update(chunk)
            size_bytes += len(chunk)
            report(len(chunk))
        if (digest.hexdigest(), size_bytes) != (located.sha256, located.size_bytes):
            raise WrongBytes(
                f"{located.region} gave {size_bytes} bytes with sha256 {digest.hexdigest()}, "
                f"not {located.size_bytes} with {located.sha256}"
            )

    async def _chunks(self, located: Located) -> AsyncIterator[bytes]:
        """Read from S3. Only what the link itself says is sent: S3 refuses two credentials."""
        try:
            async with self._session.get(
                URL(located.url, encoded=True), allow_redirects=False
            ) as response:
                if response.status != 200:  # noqa: PLR2004
                    raise RetryLater(f"{located.region} answers {response.status}")
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                    yield chunk
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise RetryLater(f"the download from {located.region} broke off") from exc


@asynccontextmanager
async def open_client(server: str) -> AsyncIterator[Client]:
    """Yield a client. Raises Misused unless *server* is an http or https URL."""
    if urlsplit(server).scheme not in {"http", "https"} or not urlsplit(server).hostname:
        raise Misused("--server must be an http or https URL")
    async with aiohttp.ClientSession(
        headers={"User-Agent": f"archiver-cli/{__version__}", "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=SILENCE_S),
        auto_decompress=False,
    ) as session:
        yield Client(session=session, server=server)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def understand(answer: Answer) -> Located | Accepted:
    """Return what an answer to a request for an archive means.

    Raises:
        CommandFailed: Neither that it is there nor that it will be.
    """
    match answer.status:
        case 302:
            return _located(answer)
        case 202:
            return _accepted(answer)
        case _:
            raise _refusal(answer)


def _located(answer: Answer) -> Located:
    try:
        return Located(
            url=answer.headers["location"],
            sha256=answer.headers["archiver-sha256"],
            size_bytes=int(answer.headers["archiver-size"]),
            node=answer.headers["archiver-node"],
            region=answer.headers["archiver-region"],
        )
    except (KeyError, ValueError) as exc:
        raise CommandFailed("the redirect does not say what it leads to") from exc


def _accepted(answer: Answer) -> Accepted:
    if "location" not in answer.headers:
        raise CommandFailed("the answer does not say where to ask how far it is")
    return Accepted(status_url=answer.headers["location"], retry_after_s=_retry_after_s(answer))


def _retry_after_s(answer: Answer) -> float:
    try:
        delay_s = float(answer.headers.get("retry-after", POLL_MAX_S))
    except ValueError:
        return POLL_MAX_S
    return delay_s if math.isfinite(delay_s) else POLL_MAX_S


def _progress(answer: Answer) -> Progress:
    result = answer.body.get("result")
    if answer.status != 200 or not isinstance(result, dict):  # noqa: PLR2004
        raise _refusal(answer)
    return Progress(
        state=str(result.get("state")),
        phase=str(result.get("phase", "")),
        bytes_done=int(result.get("bytes_done") or 0),
        tag=answer.headers.get("etag"),
        result=result,
    )


def _refusal(answer: Answer) -> CommandFailed:
    """Return what a status that is neither 302 nor 202 means to the one who asked."""
    detail = answer.body.get("detail") or answer.reason or "no reason is given"
    if allowed := answer.body.get("allowed"):
        detail = f"{detail} (allowed: {allowed})"
    code = answer.body.get("code", answer.status)
    return _MEANING.get(answer.status, CommandFailed)(f"{code}: {detail}")
