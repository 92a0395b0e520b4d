"""One region's bucket, accessed through obstore."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

import msgspec
import obstore

from archiver.errors import PurgeUnfinished, StorageUnavailable, UnreadableManifest
from archiver.manifest_check import find_invalid_field
from archiver.model import AFTER_MARKS, Archive, Manifest, Node, PresignedUrl, Region
from archiver.record_versions import is_newer
from archiver.storage.listings import Listings
from archiver.storage.multipart import MultipartUploads
from archiver.storage.object_keys import (
    EMPTY_PREFIX,
    bucket_id,
    manifest_key,
    manifest_prefix,
    nodes_prefix,
    object_attributes,
    parse_manifest_key,
    random_probe_key,
)
from archiver.storage.object_lists import ObjectLists
from archiver.storage.s3_errors import ObjectExists, ObjectMissing, translate_errors
from archiver.storage.s3_stores import (
    CONTROL_TIMEOUT,
    S3Settings,
    bulk_store,
    control_store,
    read_at_most,
)
from archiver.storage.write_probe import WriteProbe
from archiver.telemetry import METRICS, log
from archiver.telemetry.tracing import Kind, SpanName, stage

PART_BYTES = 5 << 20
"""The smallest part that S3 accepts: the last part is sent when everything else is done, so it
should be small. S3 allows 10,000 parts, so archives may have up to 48 GiB. An archive smaller than
one part is sent in a single request."""

CONCURRENT_PARTS = 4
"""Per upload. With the part that is being filled, this takes 25 MiB of memory per region."""

READ_BYTES = 1 << 20

MANIFEST_MAX_BYTES = 4 << 20
"""A manifest has about 1 kB; with 500 submodules and 1,000 LFS files, it has less than 2 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DanglingManifest:
    """A manifest whose object was deleted or replaced.

    If *uncertain*, the region returned the manifest, but the request for the object failed.
    """

    manifest: Manifest
    uncertain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestWrite:
    """The manifest that a region has after a request to create one.

    If *unconfirmed*, the write failed without a response. It may still arrive and replace the
    manifest, since not every server knows ``If-None-Match``.
    """

    manifest: Manifest
    unconfirmed: bool = False


class PurgeMark(msgspec.Struct, frozen=True, kw_only=True):
    """In the place of a manifest while *purge* is under way. It is no valid manifest."""

    purge: str


class Bucket:
    """One region's archives and manifests.

    Every failed request raises StorageUnavailable. Presigned URLs use *public_endpoint*, if there
    is one. The bucket itself sends nothing there.
    """

    def __init__(
        self,
        settings: S3Settings,
        *,
        region: Region,
        presigned_ttl: timedelta,
        public_endpoint: str | None = None,
    ) -> None:
        self.region = region
        self.bucket_id = bucket_id(settings.endpoint or settings.region, settings.bucket)
        self._presigned_ttl = presigned_ttl
        self._probe_key = random_probe_key()
        self._write_probe = WriteProbe(probe=self._put_probe)
        self.require_writable = self._write_probe.require_writable
        self._multipart_uploads = MultipartUploads(settings)
        self.abort_uploads = self._multipart_uploads.abort
        self.abort_upload = self._multipart_uploads.abort_upload
        self._bulk = bulk_store(settings)
        self._lists = ObjectLists(settings, region=region)
        self.listings = Listings(lists=self._lists, uploads=self._multipart_uploads)
        self._control = control_store(settings)
        self._public = (
            control_store(replace(settings, endpoint=public_endpoint))
            if public_endpoint
            else self._control
        )

    async def read_manifest(self, archive: Archive) -> Manifest | None:
        """Return the manifest of *archive*, or None if it does not exist."""
        body = await self.read_manifest_body(archive)
        return None if body is None else self.parse_manifest(archive, body)

    async def read_manifest_body(self, archive: Archive) -> bytes | None:
        return await self.read_small(manifest_key(archive), "a manifest")

    async def find_copy(self, archive: Archive) -> Manifest | DanglingManifest | None:
        """Return the manifest of *archive*, dangling unless its object exists with its size.

        The object is not read: that would take as long as a download.
        """
        manifest = await self.read_manifest(archive)
        if manifest is None:
            return None
        try:
            complete = await self._has_object(manifest)
        except StorageUnavailable:  # the manifest is a promise in any case
            return DanglingManifest(manifest=manifest, uncertain=True)
        return manifest if complete else DanglingManifest(manifest=manifest)

    async def _has_object(self, manifest: Manifest) -> bool:
        try:
            async with self._control_request("show an archive"):
                meta = await obstore.head_async(self._control, manifest.object_key)
        except ObjectMissing:
            return False
        return meta["size"] == manifest.size_bytes

    async def iter_archives(self, source: str | None) -> AsyncGenerator[Archive, None]:
        """Yield the archives that have a manifest here: all, or those of *source*."""
        async with aclosing(self._lists.iter_pages(manifest_prefix(source))) as pages:
            async for page in pages:
                for listed in page.objects:
                    if archive := parse_manifest_key(listed.object_key):
                        yield archive

    async def find_nodes(self, source: str, repo: str, digits: str) -> AsyncGenerator[Node, None]:
        """Yield the nodes of *repo* that begin with *digits* and have a manifest, in their order.

        Those of archives with submodules do not count, because some clients may not know of them.
        Lists one page of keys for each node, from *digits* on and then from the node on.
        """
        prefix = nodes_prefix(source, repo)
        start = digits
        while node := await self._first_node(prefix, start):
            if not node.startswith(digits):
                return
            yield node
            start = f"{node}{AFTER_MARKS}"

    async def _first_node(self, prefix: str, start: str) -> Node | None:
        """Return the first node whose keys sort after *prefix* and *start*."""
        after = f"{prefix}{start}"
        async with aclosing(self._lists.iter_pages(prefix, after=after)) as pages:
            async for page in pages:
                for listed in page.objects:
                    archive = parse_manifest_key(listed.object_key)
                    if archive is None or archive.submodules:
                        continue
                    if listed.object_key > after:
                        return archive.node
        return None

    async def create_manifest(
        self,
        archive: Archive,
        manifest: Manifest,
        *,
        body: bytes | None = None,
        known_absent: bool = False,
    ) -> ManifestWrite:
        """Write *manifest* unless one exists; return the one that the region then has.

        *body* is that of another region. It may have fields of a later release.

        If the response is lost, the manifest that can be read afterwards counts. Some servers
        ignore ``If-None-Match``, so the manifest is also read before, unless it is *known_absent*.
        """
        if not known_absent and (existing := await self.read_manifest(archive)):
            return ManifestWrite(manifest=existing)
        try:
            with stage(SpanName.COMMIT, kind=Kind.CLIENT, region=self.region):
                await self._put_manifest(archive, body or encode_manifest(manifest))
        except StorageUnavailable as exc:
            if existing := await self.read_manifest(archive):
                rejected = isinstance(exc, ObjectExists)
                return ManifestWrite(
                    manifest=existing, unconfirmed=existing != manifest and not rejected
                )
            raise
        return ManifestWrite(manifest=manifest)

    async def _put_manifest(self, archive: Archive, body: bytes) -> None:
        with self._write_probe.record_write():
            async with self._control_request("store a manifest"):
                await obstore.put_async(
                    self._control,
                    manifest_key(archive),
                    body,
                    mode="create",
                    attributes={"Content-Type": "application/json"},
                )

    async def _put_probe(self) -> None:
        with self._write_probe.record_write():
            async with self._control_request("store a probe"):
                await obstore.put_async(self._control, self._probe_key, b"archiver\n")

    async def put_object(self, object_key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store all *chunks*, or nothing.

        To end this early, let *chunks* raise: if the task is cancelled instead, the parts that were
        sent stay behind. *chunks* must not need closing, since obstore would not close it.
        """
        with self._write_probe.record_write(), self._request("store an archive"):
            await obstore.put_async(
                self._bulk,
                object_key,
                await _joined_if_small(chunks),
                chunk_size=PART_BYTES,
                max_concurrency=CONCURRENT_PARTS,
                attributes=object_attributes(object_key),
            )

    async def require_object(self, object_key: str, size_bytes: int) -> None:
        """Return if the object exists with this size, whatever the response to its upload was.

        Reuses the upload's connections, which are open.
        """
        async with self._control_request("show an archive"):
            meta = await obstore.head_async(self._bulk, object_key)
        if (stored := meta["size"]) != size_bytes:
            raise StorageUnavailable(
                f"{self.region} has {stored} bytes of an archive of {size_bytes}"
            )

    async def read_object(self, object_key: str) -> AsyncGenerator[bytes, None]:
        """Yield the object's bytes. Raises StorageUnavailable if it ends early."""
        with self._request("return an archive"):
            response = await obstore.get_async(self._bulk, object_key)
            async for chunk in response.stream(min_chunk_size=READ_BYTES):
                yield bytes(chunk)

    async def delete_object(self, object_key: str) -> None:
        async with self._control_request("delete an object"):
            await obstore.delete_async(self._control, object_key)

    async def put_purge_mark(self, archive: Archive, purge: str) -> None:
        """Replace the manifest, if there is one, so that ``read_manifest`` raises."""
        body = msgspec.json.encode(PurgeMark(purge=purge))
        await self.put_small(manifest_key(archive), body, "the mark of a purge")

    async def delete_manifest(self, archive: Archive) -> None:
        await self.delete_object(manifest_key(archive))

    async def read_small(self, object_key: str, kind: str) -> bytes | None:
        """Return a small object of a *kind*, or None if it does not exist. A large one is empty."""
        try:
            async with self._control_request(f"return {kind}"):
                response = await obstore.get_async(self._control, object_key)
                return await read_at_most(response, MANIFEST_MAX_BYTES) or b""
        except ObjectMissing:
            return None

    async def put_small(self, object_key: str, body: bytes, kind: str) -> None:
        """Write a small object of a *kind*, or replace it."""
        async with self._control_request(f"store {kind}"):
            await obstore.put_async(self._control, object_key, body)

    async def create_small(self, object_key: str, body: bytes, kind: str) -> None:
        """Write a small object of a *kind*, unless one exists."""
        if await self.read_small(object_key, kind) is not None:  # If-None-Match may be ignored
            return
        with suppress(ObjectExists):
            async with self._control_request(f"store {kind}"):
                await obstore.put_async(self._control, object_key, body, mode="create")

    async def iter_objects(self, prefix: str) -> AsyncGenerator[tuple[str, int], None]:
        """Yield the key and the size of each object below *prefix*."""
        async with aclosing(self._lists.iter_pages(prefix)) as pages:
            async for page in pages:
                for listed in page.objects:
                    yield listed.object_key, listed.size_bytes

    def presign(self, object_key: str, method: Literal["GET", "HEAD"]) -> PresignedUrl:
        """Return a link to the object. Sends no request, unless credentials have expired."""
        with self._request("sign a link"):
            url = obstore.sign(self._public, method, object_key, self._presigned_ttl)
        return PresignedUrl(url)

    async def check_access(self) -> None:
        """Return if the bucket exists and can be listed."""
        await self._lists.check(EMPTY_PREFIX)

    def parse_manifest(self, archive: Archive, body: bytes) -> Manifest:
        """Return *body* as the manifest of *archive*.

        Raises PurgeUnfinished if it is the mark of a purge, and UnreadableManifest otherwise.

        On file systems that ignore letter case, two keys may lead to one object. And a manifest
        that others wrote into the bucket may name any object.
        """
        manifest = foreign = None
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            manifest = msgspec.json.decode(body, type=Manifest)
        if is_newer("manifest", body):
            METRICS.unreadable.labels(place="manifests").inc()
            log.warning("manifest.newer", region=self.region, key=archive.key)
            raise UnreadableManifest(f"a later release has written the manifest in {self.region}")
        if manifest is None and (purge := _parse_purge_mark(body)):
            raise PurgeUnfinished("a purge of the archive has begun and has not ended", purge=purge)
        if manifest is None or (foreign := find_invalid_field(manifest, archive)):
            METRICS.unreadable.labels(place="manifests").inc()
            log.error("manifest.unreadable", region=self.region, key=archive.key, field=foreign)
            raise UnreadableManifest(f"the manifest in {self.region} is damaged or of another key")
        return manifest

    @asynccontextmanager
    async def _control_request(self, action: str) -> AsyncGenerator[None, None]:
        with self._request(action):
            async with asyncio.timeout(CONTROL_TIMEOUT.total_seconds()):
                yield

    def _request(self, action: str) -> AbstractContextManager[None]:
        return translate_errors(self.region, action)


def encode_manifest(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2)


def _parse_purge_mark(body: bytes) -> str | None:
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(body, type=PurgeMark).purge
    return None


class _Resumed:
    """Chunks that were read already, followed by the rest.

    Not a generator: obstore never closes an iterator that it abandons.
    """

    def __init__(self, chunks: list[bytes], rest: AsyncIterator[bytes]) -> None:
        self._chunks = chunks[::-1]
        self._rest = rest

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return self._chunks.pop() if self._chunks else await anext(self._rest)


async def _joined_if_small(chunks: AsyncIterator[bytes]) -> bytes | AsyncIterator[bytes]:
    """Return all bytes if they are less than one part. This takes one request instead of three."""
    head: list[bytes] = []
    size_bytes = 0
    async for chunk in chunks:
        head.append(chunk)
        size_bytes += len(chunk)
        if size_bytes >= PART_BYTES:
            return _Resumed(head, chunks)
    return b"".join(head)
