"""Lists and aborts unfinished multipart uploads.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html
"""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Literal, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree as ET

import aiohttp

from archiver.errors import StorageUnavailable
from archiver.ports.bucket_contents import UnfinishedUpload
from archiver.storage.bounded_xml import parse_time, parse_xml
from archiver.storage.s3_stores import S3Settings
from archiver.storage.signed_requests import SignedRequests


class Page(NamedTuple):
    """A part of a list of uploads, and the query for the next part, if there is one."""

    uploads: Sequence[UnfinishedUpload]
    next_query: str


class MultipartUploads:
    """The unfinished multipart uploads in one bucket. Failures raise StorageUnavailable."""

    def __init__(self, settings: S3Settings) -> None:
        self._requests = SignedRequests(settings, action="list or abort its uploads")

    async def abort(self, object_key: str, *, until: datetime) -> None:
        """Abort the uploads of *object_key* that were initiated at or before *until*."""
        async with self._requests.session() as session:
            for upload in (await self._list(session, object_key)).uploads:
                if upload.object_key == object_key and upload.initiated_at <= until:
                    await self._abort(session, upload)

    async def iter_uploads(self, prefix: str) -> AsyncGenerator[UnfinishedUpload, None]:
        """Yield the uploads of keys that begin with *prefix*, page by page."""
        query: str | None = ""
        while query is not None:
            async with self._requests.session() as session:
                page = await self._list(session, prefix, query)
            for upload in page.uploads:
                yield upload
            query = page.next_query or None

    async def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Abort *upload*, unless it has ended."""
        async with self._requests.session() as session:
            await self._abort(session, upload)

    async def _list(self, session: aiohttp.ClientSession, prefix: str, query: str = "") -> Page:
        """Return up to a thousand uploads of keys that begin with *prefix*."""
        wanted = f"uploads=&prefix={quote(prefix, safe='')}{query}"
        found = _parse(await self._send(session, "GET", "", wanted))
        uploads = [
            UnfinishedUpload(
                object_key=upload.findtext("{*}Key", ""),
                upload_id=upload.findtext("{*}UploadId", ""),
                initiated_at=parse_time(upload.findtext("{*}Initiated", "")),
            )
            for upload in found.iterfind("{*}Upload")
        ]
        return Page(uploads, _next_query(found))

    async def _abort(self, session: aiohttp.ClientSession, upload: UnfinishedUpload) -> None:
        query = f"uploadId={quote(upload.upload_id, safe='')}"
        await self._send(session, "DELETE", f"/{quote(upload.object_key)}", query)

    async def _send(
        self,
        session: aiohttp.ClientSession,
        method: Literal["GET", "DELETE"],
        path: str,
        query: str,
    ) -> bytes:
        answer = await self._requests.send(session, method, path, query)
        # 404 if the upload was aborted already; from rclone also if there are none at all.
        if answer.failed and answer.status != HTTPStatus.NOT_FOUND:
            message = "the bucket does not allow its uploads to be listed or aborted"
            raise StorageUnavailable(message, s3_code=answer.code)
        return answer.body


def _parse(body: bytes) -> ET.Element:
    try:
        return parse_xml(body)
    except ET.ParseError as exc:
        raise StorageUnavailable("the bucket did not list or abort its uploads") from exc


def _next_query(found: ET.Element) -> str:
    """Return what to add to the query for the uploads after *found*; empty if these were all."""
    key, upload_id = (found.findtext(f"{{*}}Next{name}Marker", "") for name in ("Key", "UploadId"))
    if found.findtext("{*}IsTruncated") != "true" or not key:
        return ""
    return f"&key-marker={quote(key, safe='')}&upload-id-marker={quote(upload_id, safe='')}"
