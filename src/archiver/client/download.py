"""A download that resumes after failures, from any region that has a copy."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress

import urllib3

from archiver.client.api_client import ApiClient
from archiver.client.api_response import Located
from archiver.client.deadline import Deadline
from archiver.client.events import Events
from archiver.client.failures import CommandFailed, RetryLater, WrongBytes
from archiver.client.output import ArchiveWriter
from archiver.client.ranges import PARALLEL_MIN_BYTES, NoRanges, Ranges
from archiver.client.transport import NETWORK_ERRORS, Transport, reason

CHUNK_BYTES = 1024 * 1024
PAUSE_S = 0.2
PAUSE_GROWTH = 3.0
PAUSE_MAX_S = 10.0
PROGRESS_BYTES = 1024 * 1024
"""A request that brings this much resets the count of failures."""

Locate = Callable[[str, str], Located]
"""Locates the archive of a node, preferably in a region, and waits for it if necessary."""


class ResumableDownload:
    """Downloads one archive with as many requests as necessary.

    After a failure it asks Archiver for a fresh link, because the old one may have expired. The
    fresh link leads to the same region if that sent enough bytes, else to the next region with a
    copy.
    """

    def __init__(
        self,
        *,
        client: ApiClient,
        locate: Locate,
        retries: int,
        events: Events,
        deadline: Deadline,
    ) -> None:
        self._client = client
        self._locate = locate
        self._retries = retries
        self._events = events
        self._deadline = deadline
        self._bad_regions: set[str] = set()
        self._discards = 0

    def fetch(self, located: Located, writer: ArchiveWriter) -> Located:
        """Download the archive, and return the location of its last byte.

        Raises RetryLater after too many failures in a row, or WrongBytes from every region.
        """
        failures = 0
        while True:
            before, resumed = writer.size_bytes, writer.size_bytes > 0
            try:
                download_object(
                    self._client.transport, located, writer, self._events.advance, self._deadline
                )
            except WrongBytes as exc:
                failure: CommandFailed = exc
                self._discard(located, writer, exc, resumed=resumed)
                progressed = False
            except RetryLater as exc:
                failure = exc
                progressed = writer.size_bytes - before >= PROGRESS_BYTES
            else:
                return located
            failures = 1 if progressed else failures + 1
            if failures > self._retries:
                raise failure
            self._events.notice(f"{failure.message}; trying again")
            self._deadline.sleep(_pause_s(failures))
            located = self._relocate(located, failure, progressed=progressed)

    def _discard(
        self, located: Located, writer: ArchiveWriter, failure: WrongBytes, *, resumed: bool
    ) -> None:
        """Discard all bytes. A region that sent all of them is not used again."""
        self._discards += 1
        if self._discards > self._retries or not writer.restart():
            raise failure
        if not resumed:
            self._bad_regions.add(located.region)

    def _relocate(self, last: Located, failure: CommandFailed, *, progressed: bool) -> Located:
        """Return a fresh link, or the last one if it is not Archiver that responds."""
        try:
            region = last.region if progressed else self._next_region(last)
            fresh = self._locate(last.node, region)
        except CommandFailed as exc:
            if not (exc.elsewhere or isinstance(exc, RetryLater)):
                raise
            fresh = last
        if fresh.region in self._bad_regions:
            raise failure
        if fresh.sha256 != last.sha256:
            raise WrongBytes(f"Archiver promised sha256 {last.sha256}, and now {fresh.sha256}")
        return fresh

    def _next_region(self, last: Located) -> str:
        """Return the next region with a copy, in alphabetical order."""
        regions = {last.region}
        if last.status_url:
            with suppress(CommandFailed):
                status = self._client.fetch_status(last.status_url, self._deadline)
                regions |= status.presigned_urls.keys()
        ring = sorted(regions - self._bad_regions | {last.region})
        return ring[(ring.index(last.region) + 1) % len(ring)]


def _pause_s(failures: int) -> float:
    pause_s = min(PAUSE_S * PAUSE_GROWTH ** (failures - 1), PAUSE_MAX_S)
    return pause_s * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, to spread a fleet's retries


def download_object(
    transport: Transport,
    located: Located,
    writer: ArchiveWriter,
    report: Callable[[int], None],
    deadline: Deadline,
) -> None:
    """Download the bytes that *writer* lacks, and call *report* with the size of each chunk.

    No `If-Range` is needed, because the sha256 also covers the bytes of earlier requests.

    Raises:
        RetryLater: S3 did not send the object, or only part of it.
        WrongBytes: S3 sent other bytes than promised.
    """
    if writer.size_bytes < located.size_bytes:
        for chunk in _iter_chunks(transport, located, writer.size_bytes, deadline):
            if writer.size_bytes + len(chunk) > located.size_bytes:
                raise WrongBytes(f"{located.label} sent more than {located.size_bytes:,} bytes")
            writer.write(chunk)
            report(len(chunk))
    if writer.size_bytes < located.size_bytes:
        raise RetryLater(
            f"the download from {located.label} broke off after {writer.size_bytes:,} "
            f"of {located.size_bytes:,} bytes"
        )
    if writer.sha256 != located.sha256:
        raise WrongBytes(
            f"the bytes from {located.label} have sha256 {writer.sha256}, not {located.sha256}"
        )


def _iter_chunks(
    transport: Transport, located: Located, start: int, deadline: Deadline
) -> Iterator[bytes]:
    """Yield the object's bytes from byte *start* on, over several connections if they are many.

    The presigned URL is the only credential sent: S3 rejects requests with two.
    """
    if located.size_bytes - start >= PARALLEL_MIN_BYTES:
        ranges = Ranges(transport=transport, located=located, start=start, deadline=deadline)
        with suppress(NoRanges):
            yield from ranges
            return
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        with transport.get(located.url, headers, deadline) as response:
            skip = _count_known_bytes(response, located, start)
            while chunk := response.read(CHUNK_BYTES):
                _ = deadline.left_s
                if missing := chunk[skip:]:
                    yield missing
                skip = max(0, skip - len(chunk))
    except NETWORK_ERRORS as exc:
        _ = deadline.left_s
        raise RetryLater(f"the download from {located.label} broke off{reason(exc)}") from exc


def _count_known_bytes(response: urllib3.BaseHTTPResponse, located: Located, start: int) -> int:
    """Return how many bytes at the beginning of the body are known already.

    Content-Range says whether the body is a part, because rclone's S3 server sends parts with 200
    instead of 206: https://github.com/johannesboyne/gofakes3/pull/121

    Raises RetryLater if the body is something else, such as the page of a captive portal.
    """
    content_range = response.headers.get("Content-Range")
    expected_range = f"bytes {start}-{located.size_bytes - 1}/{located.size_bytes}"
    if response.status not in {200, 206} or content_range not in {None, expected_range}:
        raise RetryLater(f"{located.label} responded with {response.status}")
    expected = located.size_bytes - (start if content_range else 0)
    if response.length_remaining not in {None, expected}:
        raise RetryLater(
            f"{located.label} sends {response.length_remaining:,} bytes, not {expected:,}"
        )
    return 0 if content_range else start
