"""Lists and aborts unfinished multipart uploads.

obstore has no call for either, so the requests are sent here, to URLs that obstore signs.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Literal, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree as ET

import aiohttp
import obstore
from obstore.exceptions import BaseError
from yarl import URL

from archiver.errors import StorageUnavailable
from archiver.ports.bucket_contents import UnfinishedUpload
from archiver.storage.s3_errors import TIMEOUT, response_code, s3_code
from archiver.storage.s3_stores import CONTROL_TIMEOUT, S3Settings, proxy_url, signing_store
from archiver.tls import create_ssl_context

SIGNATURE_TTL = timedelta(minutes=1)

LIST_MAX_BYTES = 8 << 20
"""S3 lists a thousand uploads at a time, which are less than 2 MiB."""


class Page(NamedTuple):
    """A part of a list of uploads, and the query for the next part, if there is one."""

    uploads: Sequence[UnfinishedUpload]
    next_query: str


class MultipartUploads:
    """The unfinished multipart uploads in one bucket. Failures raise StorageUnavailable."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings

    async def abort(self, object_key: str, *, until: datetime) -> None:
        """Abort the uploads of *object_key* that were initiated at or before *until*."""
        async with self._session() as session:
            for upload in (await self._list(session, object_key)).uploads:
                if upload.object_key == object_key and upload.initiated_at <= until:
                    await self._abort(session, upload)

    async def iter_uploads(self, prefix: str) -> AsyncGenerator[UnfinishedUpload, None]:
        """Yield the uploads of keys that begin with *prefix*, page by page."""
        query: str | None = ""
        while query is not None:
            async with self._session() as session:
                page = await self._list(session, prefix, query)
            for upload in page.uploads:
                yield upload
            query = page.next_query or None

    async def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Abort *upload*, unless it has ended."""
        async with self._session() as session:
            await self._abort(session, upload)

    @asynccontextmanager
    async def _session(self) -> AsyncGenerator[aiohttp.ClientSession, None]:
        timeout = aiohttp.ClientTimeout(total=CONTROL_TIMEOUT.total_seconds())
        try:
            connector = aiohttp.TCPConnector(ssl=create_ssl_context(self._settings.ca_file))
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                yield session
        except TimeoutError as exc:
            message = "the bucket did not list or abort its uploads in time"
            raise StorageUnavailable(message, s3_code=TIMEOUT) from exc
        except (aiohttp.ClientError, BaseError, OSError, ValueError, ET.ParseError) as exc:
            message = "the bucket did not list or abort its uploads"
            raise StorageUnavailable(message, s3_code=s3_code(exc)) from exc

    async def _list(self, session: aiohttp.ClientSession, prefix: str, query: str = "") -> Page:
        """Return up to a thousand uploads of keys that begin with *prefix*."""
        wanted = f"uploads=&prefix={quote(prefix, safe='')}{query}"
        body = await self._send(session, "GET", "", wanted)
        found = ET.fromstring(body)  # noqa: S314 - the bucket is trusted
        uploads = [
            UnfinishedUpload(
                object_key=upload.findtext("{*}Key", ""),
                upload_id=upload.findtext("{*}UploadId", ""),
                initiated_at=_parse_time(upload.findtext("{*}Initiated", "")),
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
        store = signing_store(self._settings, f"{path}?{query}")
        url = await obstore.sign_async(store, method, "-", SIGNATURE_TTL)
        target = URL(url, encoded=True)
        async with session.request(
            method, target, allow_redirects=False, proxy=proxy_url(self._settings)
        ) as response:
            body = await _read_body(response)
            # 404 if the upload was aborted already; from rclone also if there are none at all.
            # Redirects are not followed.
            if response.status >= HTTPStatus.MULTIPLE_CHOICES and (
                response.status != HTTPStatus.NOT_FOUND
            ):
                code = response_code(response.status, body.decode(errors="replace"))
                message = "the bucket does not allow its uploads to be listed or aborted"
                raise StorageUnavailable(message, s3_code=code)
            return body


def _next_query(found: ET.Element) -> str:
    """Return what to add to the query for the uploads after *found*; empty if these were all."""
    key, upload_id = (found.findtext(f"{{*}}Next{name}Marker", "") for name in ("Key", "UploadId"))
    if found.findtext("{*}IsTruncated") != "true" or not key:
        return ""
    return f"&key-marker={quote(key, safe='')}&upload-id-marker={quote(upload_id, safe='')}"


def _parse_time(text: str) -> datetime:
    """Return a time as S3 writes it. Some servers omit the time zone; it is UTC then."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > LIST_MAX_BYTES:
            raise StorageUnavailable(
                f"the bucket's list of uploads has more than {LIST_MAX_BYTES:,} bytes"
            )
    return bytes(body)
