"""A bucket as a diagnosis tries it: with one small object that is removed again.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLifecycleConfiguration.html
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Literal
from xml.etree import ElementTree as ET

import aiohttp
import obstore
from yarl import URL

from archiver.errors import StorageUnavailable
from archiver.manifest_check import object_prefix
from archiver.model import Archive, Node
from archiver.ports.diagnosis import Lifecycle, LinkAnswer, UploadRule
from archiver.runtime.tasks import complete_despite_cancellation
from archiver.storage.bounded_xml import parse_xml
from archiver.storage.bucket import Bucket
from archiver.storage.multipart import MultipartUploads
from archiver.storage.s3_errors import (
    ObjectExists,
    ObjectMissing,
    response_code,
    translate_errors,
)
from archiver.storage.s3_stores import (
    CONTROL_TIMEOUT,
    S3Settings,
    bucket_url,
    control_store,
    proxy_url,
    read_at_most,
)
from archiver.storage.signed_requests import SignedRequests
from archiver.storage.transport_errors import lost_code
from archiver.tls import create_ssl_context

READ_MAX_BYTES = 64 << 10
"""An answer is not read further: the trial object has a few bytes, and an error a few hundred."""

NO_RULES = "NoSuchLifecycleConfiguration"
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


def trial_key() -> str:
    """Return a new key of an object of an archive that cannot exist.

    If the process is killed, sweeps remove the object like that of any abandoned upload.
    """
    archive = Archive(source="doctor", repo="trial", node=Node("0" * 40), subdir="", suffix="tar")
    return f"{object_prefix(archive)}{secrets.token_hex(8)}-0/{archive.file_name}"


class S3TrialBucket:
    """Implements ``ports.diagnosis.TrialBucket``. *bucket* presigns its links."""

    def __init__(
        self, settings: S3Settings, *, bucket: Bucket, public_endpoint: str | None
    ) -> None:
        self.object_key = trial_key()
        self._settings = settings
        self._bucket = bucket
        self._public = replace(settings, endpoint=public_endpoint or settings.endpoint)
        self._store = control_store(settings)
        self._uploads = MultipartUploads(settings)
        self._rules = SignedRequests(settings, action="show its lifecycle rules")

    async def list_objects(self) -> None:
        await self._bucket.check_access()

    async def clock_lead(self) -> timedelta | None:
        async with self._client() as client:
            before = datetime.now(UTC)
            async with client.head(
                bucket_url(self._settings),
                allow_redirects=False,
                proxy=proxy_url(self._settings),
            ) as response:
                after = datetime.now(UTC)
                return lead_of(response.headers.get("Date", ""), before, after)

    async def create(self, body: bytes) -> bool:
        """A caller that is cancelled waits: the object could appear after it was removed."""
        return await complete_despite_cancellation(self._create(body))

    async def _create(self, body: bytes) -> bool:
        try:
            async with self._request("store an object"):
                await obstore.put_async(self._store, self.object_key, body, mode="create")
        except ObjectExists:
            return False
        return True

    async def read(self) -> bytes:
        async with self._request("return an object"):
            response = await obstore.get_async(self._store, self.object_key)
            return await read_at_most(response, READ_MAX_BYTES) or b""

    async def follow_link(
        self, method: Literal["GET", "HEAD"], *, first_bytes: int | None = None
    ) -> LinkAnswer:
        url = self._bucket.presign(self.object_key, method)
        headers = {"Range": f"bytes=0-{first_bytes - 1}"} if first_bytes else {}
        async with (
            self._client() as client,
            client.request(
                method,
                URL(url, encoded=True),
                headers=headers,
                allow_redirects=False,
                proxy=proxy_url(self._public),
            ) as response,
        ):
            body = await _read_start(response)
            failed = response.status >= HTTPStatus.MULTIPLE_CHOICES
            text = body.decode(errors="replace")
            return LinkAnswer(
                status=response.status,
                body=body,
                size_bytes=response.content_length,
                code=response_code(response.status, text) if failed else None,
            )

    async def list_uploads(self) -> None:
        async with aclosing(self._uploads.iter_uploads(self.object_key)) as uploads:
            await anext(uploads, None)

    async def lifecycle(self) -> Lifecycle:
        async with self._rules.session() as session:
            answer = await self._rules.send(session, "GET", "", "lifecycle=")
        if not answer.failed:
            return _parse_rules(answer.body)
        if answer.code == NO_RULES:
            return Lifecycle(uploads=UploadRule.MISSING)
        if answer.status in _REFUSED:
            return Lifecycle(uploads=UploadRule.HIDDEN)
        return Lifecycle(uploads=UploadRule.UNSUPPORTED)

    async def delete(self) -> None:
        await complete_despite_cancellation(self._delete())

    async def _delete(self) -> None:
        try:
            async with self._request("delete an object"):
                await obstore.delete_async(self._store, self.object_key)
        except ObjectMissing:
            return

    @asynccontextmanager
    async def _request(self, action: str) -> AsyncGenerator[None, None]:
        with translate_errors(self._bucket.region, action):
            async with asyncio.timeout(CONTROL_TIMEOUT.total_seconds()):
                yield

    @asynccontextmanager
    async def _client(self) -> AsyncGenerator[aiohttp.ClientSession, None]:
        """Yield a client without credentials. Failures in the block raise StorageUnavailable."""
        timeout = aiohttp.ClientTimeout(total=CONTROL_TIMEOUT.total_seconds())
        try:
            connector = aiohttp.TCPConnector(ssl=create_ssl_context(self._settings.ca_file))
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
                yield client
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise StorageUnavailable(
                f"{self._bucket.region} did not answer", s3_code=lost_code(exc)
            ) from exc


async def _read_start(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) >= READ_MAX_BYTES:
            break
    return bytes(body)


def lead_of(date: str, before: datetime, after: datetime) -> timedelta | None:
    """Return how far a clock is ahead that said *date*, in whole seconds, between two moments."""
    try:
        said = parsedate_to_datetime(date)
        said = said.astimezone(UTC) if said.tzinfo else said.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    if said > after:
        return said - after
    return min(timedelta(0), said + timedelta(seconds=1) - before)


def _parse_rules(body: bytes) -> Lifecycle:
    try:
        root = parse_xml(body)
    except ET.ParseError:
        return Lifecycle(uploads=UploadRule.UNSUPPORTED)
    if not root.tag.endswith("LifecycleConfiguration"):  # as of rclone, which lists the bucket
        return Lifecycle(uploads=UploadRule.UNSUPPORTED)
    rules = [rule for rule in root.iterfind("{*}Rule") if _is_enabled(rule)]
    aborts = any(rule.find("{*}AbortIncompleteMultipartUpload") is not None for rule in rules)
    return Lifecycle(
        uploads=UploadRule.SET if aborts else UploadRule.MISSING,
        expires=any(map(_deletes_by_age, rules)),
    )


def _is_enabled(rule: ET.Element) -> bool:
    return rule.findtext("{*}Status") == "Enabled"


def _deletes_by_age(rule: ET.Element) -> bool:
    limits = (rule.find(f"{{*}}Expiration/{{*}}{limit}") for limit in ("Days", "Date"))
    return any(limit is not None for limit in limits)
