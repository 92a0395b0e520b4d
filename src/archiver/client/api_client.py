"""HTTP client of one Archiver server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from archiver.client.api_response import (
    Accepted,
    ApiResponse,
    Located,
    TaskStatus,
    parse_archive_response,
    parse_status_response,
)
from archiver.client.archive_request import ArchiveRequest
from archiver.client.credentials import find_credentials
from archiver.client.deadline import Deadline
from archiver.client.failures import InvalidUsage, NoResponse, NotArchiver
from archiver.client.prewarm import Prewarmed, parse_prewarm_response, to_json
from archiver.client.text import host, is_url, origin
from archiver.client.transport import NETWORK_ERRORS, Transport, reason

BODY_MAX_BYTES = 8 * 1024 * 1024
"""Room for the results of a batch with the longest names. Any other JSON has a few kB."""
CHUNK_BYTES = 64 * 1024
RESPONSE_S = 90.0
"""Deadline for one whole response; longer than any server holds a request."""
HOLD_S = 10
"""Seconds that a server may hold a status request. Servers that can do so send an ETag."""

_PLAIN_REV = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._~-]+")

NOT_MODIFIED = 304


class ApiClient:
    """Sends requests to one Archiver server. Every failure is a CommandFailed."""

    def __init__(
        self,
        *,
        transport: Transport,
        server: str,
        authorization: str = "",
        response_s: float = RESPONSE_S,
    ) -> None:
        self.transport = transport
        self._response_s = response_s
        self._server = server.rstrip("/")
        self._credentials = {"Authorization": authorization} if authorization else {}

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

    def get(
        self,
        url: str,
        deadline: Deadline,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> ApiResponse:
        """Send a GET request without following redirects. Raises NoResponse, or CommandFailed.

        With a *body*, which is JSON, it is a POST request.

        The credentials go to the server alone. A URL at another origin cannot be requested with
        them.
        """
        if self._credentials and origin(url) != origin(self._server):
            raise InvalidUsage(
                f"the token is for {origin(self._server)}, and {origin(url)} would not get it",
                hint=self._moved_hint(url),
            )
        late = NoResponse(f"{host(url)} does not respond: timed out")
        within = Deadline(self._response_s, late, within=deadline)
        kind = {} if body is None else {"Content-Type": "application/json"}
        try:
            with self.transport.get(
                url, {**(headers or {}), **kind, **self._credentials}, within, body
            ) as response:
                return ApiResponse(
                    status=response.status,
                    reason=response.reason or "",
                    headers={name.lower(): value for name, value in response.headers.items()},
                    body=_read_body(response, host(url)),
                )
        except NETWORK_ERRORS as exc:
            _ = deadline.left_s
            raise NoResponse(f"{host(url)} does not respond{reason(exc)}") from exc

    def _moved_hint(self, url: str) -> str:
        """Return what to do if *url* leads to the same server. Only Archiver has its paths."""
        if not urlsplit(url).path.startswith(f"{urlsplit(self._server).path}/archiver/"):
            return ""
        return f"If both are the same server, use --server {origin(url)}"

    def locate(self, url: str, deadline: Deadline) -> Located | Accepted:
        """Return where the archive of *url* is, or the task that builds it."""
        return parse_archive_response(self.get(url, deadline), requested_url=url)

    def prewarm(self, requests: Sequence[ArchiveRequest], deadline: Deadline) -> list[Prewarmed]:
        """Return the result of each request, of which there are at most BATCH_MAX.

        Raises CommandFailed if the server refuses all of them.
        """
        body = json.dumps({"requests": [to_json(each) for each in requests]}).encode()
        response = self.get(f"{self._server}/archiver/tasks", deadline, body=body)
        return parse_prewarm_response(response, requests)

    def fetch_status(self, status_url: str, deadline: Deadline) -> TaskStatus:
        return parse_status_response(self.get(status_url, deadline))

    def wait_for_change(
        self, status_url: str, last: TaskStatus, *, wait_s: int = HOLD_S, deadline: Deadline
    ) -> TaskStatus:
        """Return the status once it differs from *last*, or after *wait_s* seconds.

        *last* must have an ETag. Raises RetryLater if the server holds too many requests.
        """
        separator = "&" if urlsplit(status_url).query else "?"
        headers = {"If-None-Match": last.etag or ""}
        response = self.get(f"{status_url}{separator}wait={wait_s}", deadline, headers)
        return last if response.status == NOT_MODIFIED else parse_status_response(response)


@contextmanager
def open_client(server: str, *, response_s: float = RESPONSE_S) -> Iterator[ApiClient]:
    """Yield a client, which sends the credentials in the environment to *server*.

    It waits for a response for *response_s* seconds.

    Raises InvalidUsage unless *server* is an http or https URL without credentials.
    """
    if not is_url(server):
        raise InvalidUsage("the server must be an http or https URL")
    if urlsplit(server).username is not None:
        raise InvalidUsage(
            "the URL of the server must not contain a user name or a password",
            hint="The token is in ARCHIVER_TOKEN, or the password for this host in ~/.netrc.",
        )
    authorization = find_credentials(server)
    transport = Transport()
    try:
        yield ApiClient(
            transport=transport,
            server=server,
            authorization=authorization,
            response_s=response_s,
        )
    finally:
        transport.close()


def _read_body(response: urllib3.BaseHTTPResponse, sender: str) -> bytes:
    body = bytearray()
    while chunk := response.read1(CHUNK_BYTES):
        body += chunk
        if len(body) > BODY_MAX_BYTES:
            raise NotArchiver(f"{sender} sent more than {BODY_MAX_BYTES:,} bytes")
    return bytes(body)
