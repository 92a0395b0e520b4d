"""All regions as one storage: what the first of them that has a manifest says, goes."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from itertools import count

from archiver.binding import object_prefix
from archiver.errors import ArchiverError, BytesChanged, CorruptArchive, StorageUnavailable
from archiver.model import (
    Archive,
    Completeness,
    Conversion,
    Copies,
    Manifest,
    PresignedUrl,
    Region,
    Verified,
)
from archiver.ports.storage import Found, Hold, Upload
from archiver.storage.bucket import Bucket
from archiver.storage.buckets import Buckets
from archiver.storage.commit import Committing
from archiver.storage.fan_out import PATIENCE, Tee, confirm
from archiver.storage.upload_cleanup import GRACE, Leftovers
from archiver.telemetry import log

OLD_UPLOAD = timedelta(days=1)
"""No upload that is alive is as old: downloads and copies end after six hours."""

CLEAR_EVERY = timedelta(hours=6)

LAST_WORDS_S = 0.05
"""obstore's threads call into the loop for a moment longer than they work. When it is gone, they
abort the process: 3 to 9 of 25 did, and none after this pause."""


@asynccontextmanager
async def open_regions(buckets: Sequence[Bucket]) -> AsyncIterator["Regions"]:
    """Yield the regions, and see to it that the loop does not end before obstore does."""
    regions = Regions(buckets=buckets)
    try:
        yield regions
    finally:
        await regions.close()
        await asyncio.sleep(LAST_WORDS_S)


class Regions:
    """One bucket per region, in the configured order. Implements ``ports.Storage``.

    The bytes lie under a key of their upload's own, so that no other upload writes over what was
    committed, or deletes it; a manifest names that key, and is never written over either.
    """

    def __init__(
        self,
        *,
        buckets: Sequence[Bucket],
        patience: timedelta = PATIENCE,
        grace: timedelta = GRACE,
    ) -> None:
        self._buckets = Buckets(buckets=buckets)
        self._committing = Committing(buckets=self._buckets)
        self._patience = patience
        self._leftovers = Leftovers(grace=grace)
        self._uploads = count(1)
        self.regions = self._buckets.regions
        self.places: Mapping[Region, str] = {bucket.region: bucket.place for bucket in buckets}

    async def find(self, archive: Archive) -> Found:
        return await self._buckets.find(archive)

    async def writable(self) -> Mapping[Region, StorageUnavailable | None]:
        return await self._buckets.writable()

    async def archives(
        self, source: str | None = None, *, region: Region | None = None
    ) -> AsyncGenerator[Archive, None]:
        failure = StorageUnavailable("there is no region")
        for bucket in map(self._buckets.bucket, [region] if region else self.regions):
            answered = False
            try:
                async with aclosing(bucket.archives(source)) as archives:
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

    async def upload(
        self,
        archive: Archive,
        chunks: AsyncGenerator[bytes, None],
        *,
        attempt: str,
        avoid: Collection[Region] = (),
        promised: Manifest | None = None,
    ) -> Upload:
        regions = [region for region in self.regions if region not in avoid] or self.regions
        if promised:
            return await self._put_back(promised, chunks, regions)
        object_key = f"{object_prefix(archive)}{attempt}-{next(self._uploads)}/{archive.file_name}"
        tee = self._tee(regions, object_key)
        await tee.run(chunks)
        sent = Upload(object_key=object_key, regions=(*tee.stored, *tee.uncertain))
        async with self._committing.or_discarded(sent):
            await self._buckets.delete(object_key, tee.uncertain)  # before a manifest may name it
        return Upload(object_key=object_key, regions=tee.stored, failures=tee.failures)

    async def _put_back(
        self, manifest: Manifest, chunks: AsyncGenerator[bytes, None], regions: Iterable[Region]
    ) -> Upload:
        """Store the bytes that *manifest* names, where it says. Nothing is ever deleted there."""
        tee = self._tee(regions, manifest.object_key, shared=True)
        changed = BytesChanged(
            f"the archive was lost, and what it is made of now has other bytes than those with the "
            f"sha256 {manifest.sha256} that were promised; its manifests have to be deleted first"
        )
        await tee.run(_proven(chunks, manifest, changed))
        return Upload(
            object_key=manifest.object_key,
            regions=tee.stored,
            failures=tee.failures,
            promised=True,
        )

    async def commit(
        self,
        archive: Archive,
        upload: Upload,
        verified: Verified,
        *,
        hold: Hold,
        source_url: str,
        conversion: Conversion | None = None,
        completeness: Completeness | None = None,
    ) -> Copies:
        return await self._committing.commit(
            archive,
            upload,
            verified,
            hold=hold,
            source_url=source_url,
            completeness=completeness,
            conversion=conversion,
        )

    async def discard(self, upload: Upload) -> None:
        await self._committing.discard(upload)

    async def copy(self, archive: Archive, copies: Copies, region: Region) -> None:
        target, manifest = self._buckets.bucket(region), copies.manifest
        _require_same(manifest, await target.manifest(archive) or manifest, region)
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
                stands = await target.commit(archive, manifest)
                _require_same(manifest, stands.manifest, region)
                return
        raise failure

    async def _transfer(self, copies: Copies, region: Region, target: Bucket) -> None:
        manifest = copies.manifest
        async with aclosing(self.read(copies, region)) as chunks:
            await self._tee([target.region], manifest.object_key, shared=True).run(chunks)
        await confirm(target, manifest.object_key, manifest.size_bytes)

    def read(self, copies: Copies, region: Region) -> AsyncGenerator[bytes, None]:
        manifest = copies.manifest
        corrupt = CorruptArchive("a region's copy is not what its manifest says")
        return _proven(self._buckets.bucket(region).get(manifest.object_key), manifest, corrupt)

    def presign(self, copies: Copies, region: Region, *, method: str) -> PresignedUrl:
        return self._buckets.bucket(region).presign(
            copies.manifest.object_key, "HEAD" if method == "HEAD" else "GET"
        )

    async def check(self) -> Mapping[Region, ArchiverError | None]:
        return await self._buckets.each(self.regions, lambda bucket: bucket.check())

    async def close(self) -> None:
        """Clear away what is left of uploads, as far as a moment allows."""
        await self._leftovers.close()

    async def clear_old_uploads(self) -> None:
        """Abort uploads that processes left which were killed, now and then, until cancelled.

        Those of a frozen region are among them, if its worker ended before it answered.
        """
        while True:
            answers = await self._buckets.each(
                self.regions, lambda bucket: bucket.abort_old_uploads(OLD_UPLOAD)
            )
            for region, answer in answers.items():
                if isinstance(answer, ArchiverError):
                    log.warning("uploads.not_cleared", region=region, **answer.log_fields)
                elif answer:
                    log.info("uploads.cleared", region=region, uploads=answer)
            await asyncio.sleep(CLEAR_EVERY.total_seconds())

    def _tee(self, regions: Iterable[Region], object_key: str, *, shared: bool = False) -> Tee:
        return Tee(
            buckets=[self._buckets.bucket(region) for region in regions],
            object_key=object_key,
            leftovers=self._leftovers,
            shared=shared,
            patience=self._patience,
        )


def _require_same(manifest: Manifest, standing: Manifest, region: Region) -> None:
    if standing != manifest:
        raise StorageUnavailable(f"{region} holds another archive under the same key")


async def _proven(
    chunks: AsyncGenerator[bytes, None], manifest: Manifest, otherwise: ArchiverError
) -> AsyncGenerator[bytes, None]:
    """Yield *chunks*; end only if they are what *manifest* promises. Raises *otherwise*."""
    sha256 = hashlib.sha256()
    async with aclosing(chunks):
        async for chunk in chunks:
            sha256.update(chunk)
            yield chunk
    if sha256.hexdigest() != manifest.sha256:
        raise otherwise
