"""HTTP client of one Archiver server."""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

from archiver import __version__
from archiver.client.api_response import (
    Accepted,
    ApiResponse,
    Located,
    TaskStatus,
    parse_archive_response,
    parse_status_response,
)
from archiver.client.failures import CommandFailed, InvalidUsage, NoResponse
from archiver.client.text import host, is_url, origin

BODY_MAX_BYTES = 1024 * 1024
"""Thousands of times the size of any JSON that Archiver sends."""
CONNECT_S = 10.0
SILENCE_S = 60.0
RESPONSE_S = 90.0
"""Deadline for one whole response; longer than any server holds a request."""
HOLD_S = 10
"""Seconds that a server may hold a status request. Servers that can do so send an ETag."""

NETWORK_ERRORS = (aiohttp.ClientError, TimeoutError, ValueError)
"""What aiohttp raises for a request that fails; ValueError is for a malformed response."""

_PLAIN_REV = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._~-]+")

NOT_MODIFIED = 304

TOKEN_VARIABLE = "ARCHIVER_TOKEN"  # noqa: S105 - the name of a variable

_TOKEN = re.compile(r"[!-~]*")


class ApiClient:
    """Sends requests to one Archiver server. Every failure is a CommandFailed."""

    def __init__(self, *, session: aiohttp.ClientSession, server: str, token: str = "") -> None:
        self.session = session
        self._server = server.rstrip("/")
        self._credentials = {"Authorization": f"Bearer {token}"} if token else {}

    def archive_url(self, source: str, repo: str, rev: str, query: Mapping[str, str | None]) -> str:
        """Return the URL of an archive.

        A rev that proxies may change in a path becomes a query parameter. Arguments that are not
        UTF-8 are sent unchanged; the server rejects them.
        """
        parameters = {name: value for name, value in query.items() if value}
        path = f"{quote(source, safe='')}/{quote(repo.strip('/'), errors='surrogateescape')}"
        if _PLAIN_REV.fullmatch(rev):
            path = f"{path}/{rev}"
        else:
            parameters = {"rev": rev, **parameters}
        encoded = urlencode(parameters, safe="/", errors="surrogateescape")
        return f"{self._server}/archiver/{path}" + (f"?{encoded}" if encoded else "")

    def status_url(self, task: str) -> str:
        """Return the status URL of a task id, or *task* if it is a URL already."""
        if is_url(task):
            return task
        return f"{self._server}/archiver/status/{quote(task, safe=':')}"

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> ApiResponse:
        """Send a GET request without following redirects. Raises NoResponse, or CommandFailed.

        The token goes to the server alone. A URL at another origin cannot be requested with one.
        """
        headers = {**(headers or {}), **self._credentials}
        if self._credentials and origin(url) != origin(self._server):
            raise InvalidUsage(
                f"the token is for {origin(self._server)}, and {origin(url)} would not get it; "
                f"if both are the same server, use --server {origin(url)}"
            )
        try:
            async with (
                asyncio.timeout(RESPONSE_S),
                self.session.get(
                    URL(url, encoded=True), headers=headers, allow_redirects=False
                ) as response,
            ):
                return ApiResponse(
                    status=response.status,
                    reason=response.reason or "",
                    headers={name.lower(): value for name, value in response.headers.items()},
                    body=await _read_body(response),
                )
        except NETWORK_ERRORS as exc:
            raise NoResponse(f"{host(url)} does not respond{reason(exc)}") from exc

    async def locate(self, url: str) -> Located | Accepted:
        """Return where the archive of *url* is, or the task that builds it."""
        return parse_archive_response(await self.get(url), requested_url=url)

    async def fetch_status(self, status_url: str) -> TaskStatus:
        return parse_status_response(await self.get(status_url))

    async def wait_for_change(
        self, status_url: str, last: TaskStatus, wait_s: int = HOLD_S
    ) -> TaskStatus:
        """Return the status once it differs from *last*, or after *wait_s* seconds.

        *last* must have an ETag. Raises RetryLater if the server holds too many requests.
        """
        separator = "&" if urlsplit(status_url).query else "?"
        headers = {"If-None-Match": last.etag or ""}
        response = await self.get(f"{status_url}{separator}wait={wait_s}", headers)
        return last if response.status == NOT_MODIFIED else parse_status_response(response)


@asynccontextmanager
async def open_client(server: str) -> AsyncIterator[ApiClient]:
    """Yield a client, which sends the token in the environment to *server*.

    Raises InvalidUsage unless *server* is an http or https URL.
    """
    if not is_url(server):
        raise InvalidUsage("--server must be an http or https URL")
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not _TOKEN.fullmatch(token):
        raise InvalidUsage(
            f"{TOKEN_VARIABLE} must be printable ASCII without spaces and ends of lines"
        )
    async with aiohttp.ClientSession(
        headers={"User-Agent": f"archiver-cli/{__version__}", "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=SILENCE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    ) as session:
        yield ApiClient(session=session, server=server, token=token)


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > BODY_MAX_BYTES:
            raise CommandFailed(f"{response.host} sent more than {BODY_MAX_BYTES:,} bytes")
    return bytes(body)


def reason(exc: Exception) -> str:
    """Return why a request failed, to append to a sentence; empty if that is unknown.

    The words are ours, because those of libraries may quote secrets.
    """
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
            return ": timed out"
        case _:
            return ""
