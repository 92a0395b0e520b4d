"""Multipart uploads that nobody will finish: found and aborted.

obstore has no call for either, so both are sent here, to URLs that obstore signs.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import quote
from xml.etree import ElementTree as ET

import aiohttp
import obstore
from obstore.exceptions import BaseError
from yarl import URL

from archiver.errors import StorageUnavailable
from archiver.storage.faults import TIMEOUT, answered, s3_code
from archiver.storage.stores import CONTROL_TIMEOUT, S3Settings, proxy_of, signing_store
from archiver.tls import create_ssl_context

SIGNED_FOR = timedelta(minutes=1)

LIST_MAX_BYTES = 8 << 20
"""A thousand uploads, which is what S3 lists at a time, are less than 2 MiB."""


MULTIPLE_CHOICES = 300
"""From here on, an answer is a redirect, which is not followed, or an error."""

ABSENT = 404
"""Somebody else has aborted the upload; or there is none at all, to rclone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """An upload that was begun and neither completed nor aborted."""

    object_key: str
    upload_id: str
    at: datetime


class Unfinished:
    """The multipart uploads in one bucket. Raises StorageUnavailable where the bucket fails."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings

    async def abort(self, object_key: str, *, until: datetime) -> None:
        """Abort the uploads of *object_key* that began by then."""
        async with self._session() as session:
            for begun in await self._list(session, object_key):
                if begun.object_key == object_key and begun.at <= until:
                    await self._abort(session, begun)

    async def abort_old(self, prefix: str, *, than: timedelta) -> int:
        """Abort uploads below *prefix* that began longer ago *than* that; return how many."""
        async with self._session() as session:
            latest = datetime.now(UTC) - than
            old = [begun for begun in await self._list(session, prefix) if begun.at < latest]
            for begun in old:
                await self._abort(session, begun)
        return len(old)

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

    async def _list(self, session: aiohttp.ClientSession, prefix: str) -> Sequence[Begun]:
        """Return the uploads, up to a thousand, of keys that begin with *prefix*."""
        body = await self._send(session, "GET", "", f"uploads=&prefix={quote(prefix, safe='')}")
        uploads = ET.fromstring(body).iterfind("{*}Upload")  # noqa: S314 - the bucket is trusted
        return [
            Begun(
                object_key=upload.findtext("{*}Key", ""),
                upload_id=upload.findtext("{*}UploadId", ""),
                at=_moment(upload.findtext("{*}Initiated", "")),
            )
            for upload in uploads
        ]

    async def _abort(self, session: aiohttp.ClientSession, begun: Begun) -> None:
        query = f"uploadId={quote(begun.upload_id, safe='')}"
        await self._send(session, "DELETE", f"/{quote(begun.object_key)}", query)

    async def _send(
        self,
        session: aiohttp.ClientSession,
        method: Literal["GET", "DELETE"],
        path: str,
        query: str,
    ) -> bytes:
        store = signing_store(self._settings, f"{path}?{query}")
        url = await obstore.sign_async(store, method, "-", SIGNED_FOR)
        target = URL(url, encoded=True)
        async with session.request(
            method, target, allow_redirects=False, proxy=proxy_of(self._settings)
        ) as response:
            body = await _body(response)
            if response.status >= MULTIPLE_CHOICES and response.status != ABSENT:
                code = answered(response.status, body.decode(errors="replace"))
                message = "the bucket does not let its uploads be listed or aborted"
                raise StorageUnavailable(message, s3_code=code)
            return body


def _moment(text: str) -> datetime:
    """Return a date as S3 writes it; one without a time zone, as some servers have, is in UTC."""
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > LIST_MAX_BYTES:
            raise StorageUnavailable("the bucket's list of uploads does not end")
    return bytes(body)
