"""Files of Git LFS from their host: its batch API, then one download for each file.

Protocol: https://github.com/git-lfs/git-lfs/tree/main/docs/api (server discovery, batch, basic
transfers).
"""

import dataclasses
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from http import HTTPStatus

from yarl import URL

from archiver.errors import (
    ArchiverError,
    BadLfsFile,
    LfsFileMissing,
    LfsRefused,
    SourceBusy,
    SourceUnavailable,
)
from archiver.git_objects.lfs_pointer import Pointer
from archiver.names import display_path
from archiver.runtime.threads import run_in_thread
from archiver.sources.fetch import Fetch, open_fetch
from archiver.sources.git.client import GitClient
from archiver.sources.git.lfs.batch import (
    MEDIA_TYPE,
    RESPONSE_MAX_BYTES,
    Link,
    MalformedBatchError,
    Offer,
    OtherSize,
    Refusal,
    encode_request,
    parse_response,
)
from archiver.sources.git.lfs.pointer_search import LfsEntry
from archiver.sources.git.lfs.server_url import server_url
from archiver.sources.response import HostResponse
from archiver.telemetry import METRICS

BATCH_DEADLINE = timedelta(minutes=1)
"""Time for the links of 100 files. GitHub takes a second."""

LINKS_PER_FILE = 2
"""How many links are tried: the first one may have expired since the host gave it."""

_HEADERS = {"Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE}

_NO_LFS = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
)
_MISSING = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE, HTTPStatus.UNPROCESSABLE_ENTITY})
_EXPIRED = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


class _ExpiredError(Exception):
    """The link is no longer valid, or never was."""


class LfsClient:
    """Downloads the LFS files of one source's repositories.

    Requests go to the host of ``url_template``, and downloads to that and to ``lfs_hosts``.
    """

    def __init__(
        self,
        git: GitClient,
        *,
        fetch: Fetch,
        downloads: Fetch,
        batch_deadline: timedelta = BATCH_DEADLINE,
    ) -> None:
        self.source = git.config.name
        self.limits = git.config.limits
        self._config = git.config
        self._urls = git.urls
        self._failures = git.failures
        self._fetch = fetch
        self._downloads = downloads
        self._batch_deadline = batch_deadline

    async def links(
        self, repo: str, entries: Sequence[LfsEntry], *, lfs_url: str = ""
    ) -> Mapping[Pointer, Link]:
        """Return a link for each of at most 100 *entries*, whose hashes differ.

        *lfs_url* is the address in the commit's ``.lfsconfig``, if any.

        Raises LfsFileMissing for the first file that the host does not have, LfsRefused, BadLfsFile
        if it has another size, or another SourceError.
        """
        pointers = [entry.pointer for entry in entries]
        url = f"{server_url(self._urls.repo(repo), lfs_url)}/objects/batch"
        request = self._fetch.post(
            url, encode_request(pointers), deadline=self._batch_deadline, headers=_HEADERS
        )
        async with request as response:
            body = await response.read_body(RESPONSE_MAX_BYTES)
            if response.status != HTTPStatus.OK:
                raise self._batch_failure(repo, response, body)
        try:
            offers = parse_response(body, pointers)
        except MalformedBatchError as exc:
            raise SourceUnavailable(
                f"{self.source} sent a response that Git LFS would not send: {exc}"
            ) from exc
        return {entry.pointer: self._accept(repo, entry, offers) for entry in entries}

    def _batch_failure(self, repo: str, response: HostResponse, body: bytes) -> ArchiverError:
        """Return the error for a batch that failed. What the host says about it is logged."""
        status = response.status
        if status in _BUSY or response.retry_after:
            return SourceBusy(f"{self.source} is busy ({status})", retry_after=response.retry_after)
        if body:
            self._failures.note(body)
        if status in _NO_LFS:
            return LfsRefused(f"{self.source} serves no Git LFS for {repo} ({status})")
        if 400 <= status < 500:  # noqa: PLR2004
            return LfsRefused(
                f"{self.source} refuses the LFS files of {repo} ({status}): the token of the "
                "source may not have access to them, or a quota is used up"
            )
        return SourceUnavailable(f"{self.source} failed to list the LFS files of {repo} ({status})")

    def _accept(self, repo: str, entry: LfsEntry, offers: Mapping[Pointer, Offer]) -> Link:
        match offers[entry.pointer]:
            case Link() as link:
                self._require_allowed(link)
                return link
            case Refusal(status):
                raise self._refusal(repo, entry, status)
            case OtherSize(size_bytes):
                raise BadLfsFile(
                    f"{self.source} has {size_bytes:,} bytes for {_describe(repo, entry)}"
                )

    def _refusal(self, repo: str, entry: LfsEntry, status: int) -> ArchiverError:
        if status in _MISSING:
            return LfsFileMissing(f"{self.source} does not have {_describe(repo, entry)}")
        if status in _BUSY:
            return SourceBusy(f"{self.source} is busy ({status})", retry_after=None)
        return SourceUnavailable(
            f"{self.source} does not offer {_describe(repo, entry)}: it reports {status}"
        )

    def _require_allowed(self, link: Link) -> None:
        """Raise LfsRefused if no setting allows the host of *link*. The link itself is a secret."""
        if self._downloads.admits(link.href):
            return
        raise LfsRefused(
            f"{self.source} has its LFS files at {_host_of(link)}: sources.{self.source}.lfs_hosts "
            "does not have that host, or its address is unsafe"
        )

    async def chunks(
        self, repo: str, entry: LfsEntry, link: Link | None, *, lfs_url: str = ""
    ) -> AsyncGenerator[bytes, None]:
        """Yield the file of *entry*, in chunks of at most 1 MiB. Its end proves that it is right.

        The host is asked for a link if there is none, and once more if that has expired.

        Raises BadLfsFile for other bytes, LfsFileMissing, LfsRefused, or another SourceError.
        """
        for _ in range(LINKS_PER_FILE):
            if link is None or link.has_expired:
                link = (await self.links(repo, [entry], lfs_url=lfs_url))[entry.pointer]
            try:
                async with (
                    self._open(link) as response,
                    aclosing(self._proven(repo, entry, response)) as chunks,
                ):
                    async for chunk in chunks:
                        yield chunk
                    return
            except _ExpiredError:
                link = None
        raise BadLfsFile(
            f"{self.source} has no valid link for {_describe(repo, entry)}: its links are refused"
        )

    @asynccontextmanager
    async def _open(self, link: Link) -> AsyncIterator[HostResponse]:
        async with self._downloads.get(
            link.href, deadline=self._config.deadline, own_headers=link.headers
        ) as response:
            if response.status in _EXPIRED:
                if pause := response.retry_after:
                    raise SourceBusy(f"{_host_of(link)} asks for a pause", retry_after=pause)
                raise _ExpiredError
            if response.status != HTTPStatus.OK:
                raise response.error
            yield response

    async def _proven(
        self, repo: str, entry: LfsEntry, response: HostResponse
    ) -> AsyncGenerator[bytes, None]:
        pointer = entry.pointer
        if response.declared_bytes > pointer.size_bytes:
            raise self._wrong(repo, entry)
        fetched = METRICS.lfs_fetched_bytes.labels(source=self.source)
        size_bytes, hashed = 0, hashlib.sha256()
        async with aclosing(response.chunks(broken_off=SourceUnavailable)) as chunks:
            async for chunk in chunks:
                size_bytes += len(chunk)
                if size_bytes > pointer.size_bytes:
                    raise self._wrong(repo, entry)
                await run_in_thread(hashed.update, chunk)
                fetched.inc(len(chunk))
                yield chunk
        if (size_bytes, hashed.hexdigest()) != (pointer.size_bytes, pointer.sha256):
            raise self._wrong(repo, entry)

    def _wrong(self, repo: str, entry: LfsEntry) -> BadLfsFile:
        return BadLfsFile(f"{self.source} sent other bytes for {_describe(repo, entry)}")


@asynccontextmanager
async def open_lfs_client(
    git: GitClient, fetch: Fetch, *, batch_deadline: timedelta = BATCH_DEADLINE
) -> AsyncIterator[LfsClient]:
    """Yield a client that asks *git*'s host with *fetch*, and has connections for downloads."""
    config = dataclasses.replace(git.config, redirect_hosts=git.config.git.lfs_hosts)
    async with open_fetch(config, setting="lfs_hosts") as downloads:
        yield LfsClient(git, fetch=fetch, downloads=downloads, batch_deadline=batch_deadline)


def _describe(repo: str, entry: LfsEntry) -> str:
    pointer = entry.pointer
    return (
        f"the LFS file {display_path(entry.path)} of {repo}, with SHA-256 {pointer.sha256} and "
        f"{pointer.size_bytes:,} bytes"
    )


def _host_of(link: Link) -> str:
    """Return the host of *link* and its port, fit for display."""
    try:
        url = URL(link.href, encoded=True)
        port = "" if url.is_default_port() else f":{url.port}"
        return f"{ascii(url.raw_host or '')[1:-1]}{port}"
    except ValueError:
        return "a malformed address"
