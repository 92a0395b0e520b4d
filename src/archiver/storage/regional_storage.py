"""All regions' buckets as one storage: the first region with a manifest is authoritative."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import timedelta
from itertools import count

from archiver.errors import (
    ArchiverError,
    BytesChanged,
    CorruptArchive,
    PurgeUnfinished,
    StorageUnavailable,
)
from archiver.manifest_check import object_prefix
from archiver.model import Archive, Copies, Manifest, Node, PresignedUrl, Region
from archiver.ports.storage import Upload
from archiver.storage.bucket import Bucket
from archiver.storage.commit import Committer
from archiver.storage.contents import RegionalContents
from archiver.storage.fan_out import MAX_LAG, FanOutUpload, confirm_upload
from archiver.storage.pins import BucketPins
from archiver.storage.purge import BucketPurger
from archiver.storage.region_buckets import RegionBuckets
from archiver.storage.tombstones import BucketTombstones
from archiver.storage.upload_cleanup import GRACE, UploadCleanup
from archiver.telemetry import log

OBSTORE_EXIT_S = 0.05
"""obstore's threads call into the event loop for a moment after their work is done. If the loop is
closed by then, they abort the process: in 3 to 9 of 25 runs without this pause, in none with it."""


@asynccontextmanager
async def open_storage(buckets: Sequence[Bucket]) -> AsyncIterator["RegionalStorage"]:
    """Yield the storage. Keeps the event loop running until obstore's threads are idle."""
    storage = RegionalStorage(buckets=buckets)
    try:
        yield storage
    finally:
        await storage.close()
        await asyncio.sleep(OBSTORE_EXIT_S)


class RegionalStorage:
    """One bucket per region, in the configured order. Implements ``ports.Storage``.

    Each upload has an object key of its own, so that no upload overwrites or deletes committed
    bytes. A manifest names that key, and is never overwritten either.
    """

    def __init__(
        self,
        *,
        buckets: Sequence[Bucket],
        max_lag: timedelta = MAX_LAG,
        grace: timedelta = GRACE,
    ) -> None:
        self._buckets = RegionBuckets(buckets=buckets)
        tombstones = BucketTombstones(buckets=self._buckets)
        self.put_tombstone = tombstones.put_tombstone
        self.read_tombstone = tombstones.read_tombstone
        self.remove_tombstone = tombstones.remove_tombstone
        self.withdraw, self.reinstate = tombstones.withdraw, tombstones.reinstate
        self._committer = Committer(buckets=self._buckets, tombstones=tombstones)
        self._max_lag = max_lag
        self._cleanup = UploadCleanup(grace=grace)
        self._upload_numbers = count(1)
        self.find = self._buckets.find
        self.answers = self._buckets.answers
        self.check_writable = self._buckets.check_writable
        self.commit = self._committer.commit
        self.discard = self._committer.discard
        pins = BucketPins(buckets=self._buckets)
        self.put_pin, self.remove_pin = pins.put_pin, pins.remove_pin
        self.list_pinned, self.read_pin = pins.list_pinned, pins.read_pin
        self.spread_pins = pins.spread_pins
        purger = BucketPurger(buckets=self._buckets, pins=pins, tombstones=tombstones)
        self.traces, self.list_of = purger.traces, purger.list_of
        self.begin_purge, self.end_purge = purger.begin_purge, purger.end_purge
        self.regions = self._buckets.regions
        self.contents = RegionalContents(buckets=self._buckets)
        self.bucket_ids: Mapping[Region, str] = {
            bucket.region: bucket.bucket_id for bucket in buckets
        }

    async def iter_archives(
        self, source: str | None = None, *, region: Region | None = None
    ) -> AsyncGenerator[Archive, None]:
        failure = StorageUnavailable("no region is configured")
        for bucket in map(self._buckets.bucket, [region] if region else self.regions):
            answered = False
            try:
                async with aclosing(bucket.iter_archives(source)) as archives:
                    async for archive in archives:
                        answered = True
                        yield archive
            except StorageUnavailable as exc:
                failure = exc
            else:
                return
            if answered:
                break
        raise failure

    async def find_nodes(
        self, source: str, repo: str, digits: str, *, at_most: int
    ) -> frozenset[Node]:
        failure = StorageUnavailable("no region is configured")
        for bucket in map(self._buckets.bucket, self.regions):
            nodes: set[Node] = set()
            try:
                async with aclosing(bucket.find_nodes(source, repo, digits)) as found:
                    async for node in found:
                        nodes.add(node)
                        if len(nodes) == at_most:
                            break
            except StorageUnavailable as exc:
                failure = exc
            else:
                return frozenset(nodes)
        raise failure

    async def upload(
        self,
        archive: Archive,
        chunks: AsyncGenerator[bytes, None],
        *,
        attempt: str,
        avoid: Collection[Region] = (),
        restore: Manifest | None = None,
    ) -> Upload:
        regions = [region for region in self.regions if region not in avoid] or self.regions
        if restore:
            return await self._restore(restore, chunks, regions)
        number = next(self._upload_numbers)
        object_key = f"{object_prefix(archive)}{attempt}-{number}/{archive.file_name}"
        fan_out = self._fan_out(regions, object_key)
        await fan_out.upload(chunks)
        sent = Upload(object_key=object_key, regions=(*fan_out.stored, *fan_out.uncertain))
        async with self._committer.discard_on_failure(sent):  # before a manifest may name it
            await self._buckets.delete_object(object_key, fan_out.uncertain)
        return Upload(object_key=object_key, regions=fan_out.stored, failures=fan_out.failures)

    async def _restore(
        self, manifest: Manifest, chunks: AsyncGenerator[bytes, None], regions: Iterable[Region]
    ) -> Upload:
        """Store the bytes of *manifest* under its object key, where nothing is ever deleted."""
        fan_out = self._fan_out(regions, manifest.object_key, shared=True)
        changed = BytesChanged(
            f"the archive's copies were lost, and its bytes differ today from sha256 "
            f"{manifest.sha256}: delete its manifests first to have it built with other bytes"
        )
        await fan_out.upload(_require_sha256(chunks, manifest, changed))
        return Upload(
            object_key=manifest.object_key,
            regions=fan_out.stored,
            failures=fan_out.failures,
            restored=True,
        )

    async def copy(self, archive: Archive, copies: Copies, region: Region) -> None:
        target, manifest = self._buckets.bucket(region), copies.manifest
        _require_same(manifest, await target.read_manifest(archive) or manifest, region)
        failure: ArchiverError = StorageUnavailable("no other region has the archive")
        for source in copies.regions:
            try:
                await self._transfer(copies, source, target)
            except CorruptArchive as exc:
                log.error("copy.corrupt", region=source, key=archive.key)
                failure = exc
            except StorageUnavailable as exc:
                failure = failure if isinstance(failure, CorruptArchive) else exc
            else:
                body = await self._require_kept(archive, manifest, source, target)
                write = await target.create_manifest(archive, manifest, body=body)
                _require_same(manifest, write.manifest, region)
                return
        raise failure

    async def _require_kept(
        self, archive: Archive, manifest: Manifest, source: Region, target: Bucket
    ) -> bytes | None:
        """Return the manifest's body, with what a later release may have added.

        Raises if the archive was purged or expired during its transfer of perhaps minutes.

        The bytes of an expired archive stay, because links may lead there.
        """
        bucket, body, kept = self._buckets.bucket(source), None, None
        with suppress(PurgeUnfinished):
            body = await bucket.read_manifest_body(archive)
            kept = bucket.parse_manifest(archive, body) if body else None
        if kept != manifest:
            tombstone = await self.read_tombstone(archive)
            if tombstone is None or tombstone.object_key != manifest.object_key:
                await target.delete_object(manifest.object_key)
            raise StorageUnavailable(f"{source} lost the archive while it was copied")
        return body

    async def _transfer(self, copies: Copies, region: Region, target: Bucket) -> None:
        manifest = copies.manifest
        async with aclosing(self.read_copy(copies, region)) as chunks:
            await self._fan_out([target.region], manifest.object_key, shared=True).upload(chunks)
        await confirm_upload(target, manifest.object_key, manifest.size_bytes)

    def read_copy(self, copies: Copies, region: Region) -> AsyncGenerator[bytes, None]:
        manifest = copies.manifest
        corrupt = CorruptArchive("the bytes of a region's copy do not match its manifest")
        chunks = self._buckets.bucket(region).read_object(manifest.object_key)
        return _require_sha256(chunks, manifest, corrupt)

    def presign(self, copies: Copies, region: Region, *, method: str) -> PresignedUrl:
        return self._buckets.bucket(region).presign(
            copies.manifest.object_key, "HEAD" if method == "HEAD" else "GET"
        )

    async def check_access(self) -> Mapping[Region, ArchiverError | None]:
        return await self._buckets.query_all(self.regions, lambda bucket: bucket.check_access())

    async def close(self) -> None:
        """Wait a moment for running cleanups of abandoned uploads, then cancel them."""
        await self._cleanup.close()

    def _fan_out(
        self, regions: Iterable[Region], object_key: str, *, shared: bool = False
    ) -> FanOutUpload:
        return FanOutUpload(
            buckets=[self._buckets.bucket(region) for region in regions],
            object_key=object_key,
            cleanup=self._cleanup,
            shared=shared,
            max_lag=self._max_lag,
        )


def _require_same(manifest: Manifest, existing: Manifest, region: Region) -> None:
    if existing != manifest:
        raise StorageUnavailable(f"{region} has another manifest under the same key")


async def _require_sha256(
    chunks: AsyncGenerator[bytes, None], manifest: Manifest, mismatch: ArchiverError
) -> AsyncGenerator[bytes, None]:
    """Yield *chunks*, then raise *mismatch* unless they had the sha256 of *manifest*."""
    sha256 = hashlib.sha256()
    async with aclosing(chunks):
        async for chunk in chunks:
            sha256.update(chunk)
            yield chunk
    if sha256.hexdigest() != manifest.sha256:
        raise mismatch
