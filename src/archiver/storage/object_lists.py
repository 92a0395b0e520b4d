"""Lists a bucket's objects page by page, and reads only so much of each answer.

obstore's own listings allocate as many bytes as the answer announces, which ends the process if
these are too many.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from urllib.parse import quote, unquote_plus, urlencode
from xml.etree import ElementTree as ET

from archiver.errors import StorageUnavailable
from archiver.model import Region
from archiver.storage.bounded_xml import parse_time, parse_xml
from archiver.storage.s3_errors import TIMEOUT
from archiver.storage.s3_stores import CONTROL_TIMEOUT, S3Settings
from archiver.storage.signed_requests import SignedRequests

PAGE_KEYS = 1000
"""Keys per page of a listing, the most that S3 returns."""

PAGE_TIMEOUT = timedelta(seconds=20)
"""An operator who purges an archive should not wait minutes for a region that hangs."""

RETRIES = 3
FIRST_PAUSE_S = 0.1
"""Pause before the first retry of a page. Each further one is twice as long."""

_NO_CONNECTION = frozenset({"connection_lost", "connection_refused", "not_connected"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedObject:
    object_key: str
    size_bytes: int
    modified_at: datetime


class Page(NamedTuple):
    """Objects, folders (with a slash at the end), and the token for the next page, if any."""

    objects: Sequence[ListedObject]
    folders: Sequence[str]
    next_token: str | None


class ObjectLists:
    """The objects in one bucket. Every failed request raises StorageUnavailable."""

    def __init__(self, settings: S3Settings, *, region: Region) -> None:
        self._region = region
        self._requests = SignedRequests(
            settings, action="list its objects", subject=region, timeout=PAGE_TIMEOUT
        )
        self._checks = SignedRequests(
            settings, action="list its bucket", subject=region, timeout=CONTROL_TIMEOUT
        )

    async def check(self, prefix: str) -> None:
        """Return if the bucket can be listed below *prefix*. Lists one key."""
        query = _query({"delimiter": "/", "max-keys": "1", "prefix": prefix})
        try:
            async with asyncio.timeout(CONTROL_TIMEOUT.total_seconds()):
                _parse_page(await _send(self._checks, query, retries=1), self._region)
        except TimeoutError as exc:
            message = f"{self._region} did not list its bucket in time"
            raise StorageUnavailable(message, s3_code=TIMEOUT) from exc

    async def iter_pages(
        self, prefix: str = "", *, after: str | None = None, delimiter: str | None = None
    ) -> AsyncGenerator[Page, None]:
        """Yield the pages of the keys in the folder *prefix*, in the server's order.

        With *after*, begin behind this key if the server supports that.
        """
        wanted = {"max-keys": str(PAGE_KEYS)}
        if prefix:
            wanted["prefix"] = f"{prefix.rstrip('/')}/"
        if after:
            wanted["start-after"] = after
        if delimiter:
            wanted["delimiter"] = delimiter
        token: str | None = None
        while True:
            query = _query(wanted | ({"continuation-token": token} if token else {}))
            page = _parse_page(await _send(self._requests, query, retries=RETRIES), self._region)
            yield page
            if page.next_token is None:
                return
            if page.next_token == token:
                raise StorageUnavailable(f"{self._region} listed the same page of objects twice")
            token = page.next_token


def _query(wanted: dict[str, str]) -> str:
    fields = {"list-type": "2", "encoding-type": "url", **wanted}
    return urlencode(sorted(fields.items()), quote_via=quote, safe="")


async def _send(requests: SignedRequests, query: str, *, retries: int) -> bytes:
    """Return the list. A failure of the server or of the connection is tried again."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            async with requests.session() as session:
                answer = await requests.send(session, "GET", "", query)
        except StorageUnavailable as exc:
            if not retries or exc.s3_code not in _NO_CONNECTION:
                raise
        else:
            if not answer.failed:
                return answer.body
            if not retries or not answer.passing:
                raise requests.failure(answer)
        retries -= 1
        await asyncio.sleep(pause_s)
        pause_s *= 2


def _parse_page(body: bytes, region: Region) -> Page:
    try:
        return _page_of(parse_xml(body))
    except (ET.ParseError, ValueError) as exc:
        raise StorageUnavailable(f"{region} did not list its objects: invalid answer") from exc


def _page_of(root: ET.Element) -> Page:
    """Return the page in an answer. Raises ValueError."""
    if not root.tag.endswith("ListBucketResult"):
        raise ValueError(root.tag)
    decode = unquote_plus if root.findtext("{*}EncodingType") == "url" else str
    objects = [_parse_object(each, decode) for each in root.iterfind("{*}Contents")]
    folders = [decode(each.text or "") for each in root.iterfind("{*}CommonPrefixes/{*}Prefix")]
    if root.findtext("{*}IsTruncated", "").strip() != "true":
        return Page(objects, folders, None)
    if token := root.findtext("{*}NextContinuationToken"):
        return Page(objects, folders, token)
    raise ValueError("a next page without a token")


def _parse_object(found: ET.Element, decode: Callable[[str], str]) -> ListedObject:
    return ListedObject(
        object_key=decode(found.findtext("{*}Key", "")),
        size_bytes=int(found.findtext("{*}Size", "")),
        modified_at=parse_time(found.findtext("{*}LastModified", "")),
    )
