"""Requests to one git host, each with a deadline, a few at a time; its addresses and its errors.

Protocol: https://git-scm.com/docs/protocol-v2, over https://git-scm.com/docs/http-protocol.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from archiver.errors import BadPack, SourceTimeout, SourceUnavailable, UnknownRepo
from archiver.model import Archive
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.single_flight import SingleFlight
from archiver.sources.config import SourceConfig
from archiver.sources.fetch import Fetch, within
from archiver.sources.git.capabilities import (
    ADVERTISEMENT_MAX_BYTES,
    Capabilities,
    parse_advertisement,
)
from archiver.sources.git.failures import Failures
from archiver.sources.git.pkt_line import Marker, encode
from archiver.sources.response import HostResponse
from archiver.sources.templates import fill

QUERY_DEADLINE = timedelta(seconds=10)
"""Time for a query that takes the host milliseconds, including the wait for a free slot."""

ENDPOINTS_TTL = timedelta(hours=1)
"""How long a repository is known to exist, and to have this object format."""

ENDPOINTS_MAX_BYTES = 4 * MEGABYTE
"""Some 5,000 repositories."""

RESULT_TYPE = "application/x-git-upload-pack-result"

_ADVERTISEMENT = "/info/refs?service=git-upload-pack"
_HEADERS = {"Git-Protocol": "version=2"}
_POST_HEADERS: Mapping[str, str] = {
    **_HEADERS,
    "Content-Type": "application/x-git-upload-pack-request",
    "Accept": RESULT_TYPE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The address of a repository after redirects, and what the host can do there.

    Some hosts redirect only the first request, for example to the address that ends in ``.git``.
    """

    url: str
    capabilities: Capabilities


class GitUrls:
    """The addresses of repositories, and of the archives that the host itself offers."""

    def __init__(self, template: str, *, archive_template: str = "") -> None:
        self._template = template
        self._archive_template = archive_template

    def repo(self, repo: str) -> str:
        return fill(self._template, {"repo": repo})

    def advertisement(self, repo: str) -> str:
        return f"{self.repo(repo)}{_ADVERTISEMENT}"

    def archive(self, archive: Archive) -> str | None:
        """Return the host's own address of *archive*; None if no template can express it."""
        if not self._archive_template or (
            archive.subdir and "{subdir}" not in self._archive_template
        ):
            return None
        names = {"repo": archive.repo, "basename": archive.basename, "node": archive.node}
        parts = {"suffix": archive.suffix, "subdir": archive.subdir}
        return fill(self._archive_template, names | parts)


class GitClient:
    """Sends requests to one source. *query_deadline* includes the wait for a free slot."""

    def __init__(
        self, config: SourceConfig, fetch: Fetch, *, query_deadline: timedelta = QUERY_DEADLINE
    ) -> None:
        self.config = config
        self.urls = GitUrls(config.url_template, archive_template=config.git.archive_url_template)
        self.failures = Failures(config.name, authorization=config.authorization)
        self._fetch = fetch
        self._query_slots = asyncio.Semaphore(config.lookup_concurrency)
        self._query_deadline = query_deadline
        self._probes: SingleFlight[str, Endpoint] = SingleFlight()
        self._endpoints: BoundedCache[str, Endpoint] = BoundedCache(
            max_bytes=ENDPOINTS_MAX_BYTES, ttl=ENDPOINTS_TTL
        )

    async def capabilities(self, repo: str) -> Capabilities:
        """Return what the host can do with *repo*, as it said within the last hour.

        Raises UnknownRepo, UnsupportedHost, or another SourceError.
        """
        return (await self._endpoint(repo)).capabilities

    async def _endpoint(self, repo: str) -> Endpoint:
        if known := self._endpoints.get(repo):
            return known
        return await self._probes.join_or_start(repo, lambda: self._probe(repo))

    async def _probe(self, repo: str) -> Endpoint:
        url = self.urls.advertisement(repo)
        async with (
            self._query_slot(),
            self._fetch.get(url, deadline=self._query_deadline, headers=_HEADERS) as response,
        ):
            if failure := self.failures.of_response(repo, response):
                raise failure
            body = await response.read_body(ADVERTISEMENT_MAX_BYTES)
        with self.failures.translated():
            capabilities = parse_advertisement(response.media_type, body)
        base, tail, _ = response.url.rpartition(_ADVERTISEMENT)
        endpoint = Endpoint(url=base if tail else self.urls.repo(repo), capabilities=capabilities)
        self._endpoints.put(repo, endpoint)
        return endpoint

    @asynccontextmanager
    async def query(
        self, repo: str, command: str, arguments: Iterable[str]
    ) -> AsyncIterator[HostResponse]:
        """Yield the response to a command that takes the host milliseconds.

        The deadline of a query includes the block. Raises like ``send``.
        """
        endpoint = await self._endpoint(repo)  # before it takes a slot, because that may need one
        body = _request(command, arguments, endpoint.capabilities)
        async with (
            self._query_slot(),
            self._post(repo, endpoint, body, deadline=self._query_deadline) as response,
        ):
            yield response

    @asynccontextmanager
    async def send(
        self, repo: str, command: str, arguments: Iterable[str], *, deadline: timedelta
    ) -> AsyncIterator[HostResponse]:
        """Yield the response to *command*. The deadline includes its body.

        Raises UnknownRepo, UnsupportedHost, or another SourceError.
        """
        endpoint = await self._endpoint(repo)
        body = _request(command, arguments, endpoint.capabilities)
        async with self._post(repo, endpoint, body, deadline=deadline) as response:
            yield response

    @asynccontextmanager
    async def _post(
        self, repo: str, endpoint: Endpoint, body: bytes, *, deadline: timedelta
    ) -> AsyncIterator[HostResponse]:
        url = f"{endpoint.url}/git-upload-pack"
        try:
            async with self._fetch.post(
                url, body, deadline=deadline, headers=_POST_HEADERS
            ) as response:
                if failure := self.failures.of_response(repo, response):
                    raise failure
                if response.media_type != RESULT_TYPE:
                    raise self.failures.malformed()
                yield response
        except (UnknownRepo, SourceUnavailable, SourceTimeout, BadPack):
            self._endpoints.pop(repo)  # the repository may have been moved or replaced
            raise

    @asynccontextmanager
    async def _query_slot(self) -> AsyncIterator[None]:
        """Limit the block, and the wait for a free slot, to the deadline of a query."""
        async with within(self._query_deadline, source=self.config.name), self._query_slots:
            yield


def _request(command: str, arguments: Iterable[str], capabilities: Capabilities) -> bytes:
    """Return the body of a request. Hosts refuse capabilities that they did not offer."""
    head = [f"command={command}"]
    if capabilities.object_format:
        head.append(f"object-format={capabilities.object_format}")
    return encode([*head, Marker.DELIMITER, *arguments, Marker.FLUSH])
