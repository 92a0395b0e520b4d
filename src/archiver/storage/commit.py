"""Turns an upload into a committed archive: the first manifest wins and is never overwritten."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from archiver.errors import ArchiverError, InternalError, PurgeUnfinished, StorageUnavailable
from archiver.manifest_check import find_invalid_field
from archiver.model import Archive, Copies, Manifest, Region, Tombstone
from archiver.ports.storage import Commit, ProveLease, StoredState, Upload
from archiver.storage.bucket import Bucket, ManifestWrite
from archiver.storage.fan_out import confirm_upload
from archiver.storage.region_buckets import PerRegion, RegionBuckets, outcome
from archiver.storage.stored_state import copies_of
from archiver.storage.tombstones import BucketTombstones
from archiver.telemetry import METRICS, log

T = TypeVar("T")


class Committer:
    """Implements ``ports.Storage.commit``."""

    def __init__(self, *, buckets: RegionBuckets, tombstones: BucketTombstones) -> None:
        self._buckets = buckets
        self._tombstones = tombstones

    async def commit(self, commit: Commit, prove_lease: ProveLease) -> Copies:
        upload = commit.upload
        async with self.discard_on_failure(upload):
            state, confirmed, tombstone = await self._examine(commit, prove_lease)
        existing = state.copies.manifest if state.copies else state.dangling_manifest
        if upload.restored and existing and existing.object_key == upload.object_key:
            return await self._restore(commit.archive, existing, state.copies, confirmed)
        if earlier := state.copies:
            await self._discard_unless_committed(upload, earlier)
            return earlier
        async with self.discard_on_failure(upload):
            if state.dangling_manifest or upload.restored:
                raise StorageUnavailable("the archive's manifest changed during the upload")
            if not confirmed:
                raise StorageUnavailable("no region has the whole archive")
            incomplete = set(upload.regions).difference(confirmed)
            await self._buckets.delete_object(upload.object_key, incomplete)
            manifest = _new_manifest(commit, tombstone)
        commit = replace(commit, upload=replace(upload, regions=confirmed))
        return await self._write_manifest(commit, manifest, state.unreachable)

    async def _examine(
        self, commit: Commit, prove_lease: ProveLease
    ) -> tuple[StoredState, tuple[Region, ...], Tombstone | None]:
        """Return the stored state, the regions that confirm the upload, and the tombstone.

        Writes nothing. The proof may wait for the engine for seconds, in which the archive can be
        purged, so an answer that is older than the proof does not count.

        Raises what *prove_lease* raises.
        """
        async with asyncio.TaskGroup() as group:
            finding = group.create_task(outcome(self._buckets.find(commit.archive)))
            confirming = group.create_task(self._confirmed_regions(commit))
            recalling = group.create_task(outcome(self._tombstones.read_tombstone(commit.archive)))
            failure = await outcome(prove_lease())
            is_old = finding.done() or confirming.done()
        if failure:
            raise failure
        if is_old:
            return await self._examine(commit, _proven)
        if isinstance(state := finding.result(), ArchiverError):
            raise state
        if isinstance(tombstone := recalling.result(), ArchiverError):
            raise tombstone
        return state, confirming.result(), tombstone

    async def _confirmed_regions(self, commit: Commit) -> tuple[Region, ...]:
        object_key, size_bytes = commit.upload.object_key, commit.verified.size_bytes
        answers = await self._buckets.query_all(
            commit.upload.regions, lambda bucket: confirm_upload(bucket, object_key, size_bytes)
        )
        _log_failures("upload.failed", commit.archive, answers)
        return tuple(region for region, answer in answers.items() if answer is None)

    async def _restore(
        self,
        archive: Archive,
        manifest: Manifest,
        copies: Copies | None,
        confirmed: Iterable[Region],
    ) -> Copies:
        """Write *manifest* to regions that restored its object; return all copies."""
        complete = set(copies.regions) if copies else set()
        answers = await self._buckets.query_all(
            (region for region in confirmed if region not in complete),
            lambda bucket: bucket.create_manifest(archive, manifest),
        )
        _log_failures("commit.failed", archive, answers)
        written = ManifestWrite(manifest=manifest)
        complete.update(region for region, answer in answers.items() if answer == written)
        if not complete:
            raise StorageUnavailable("no region took the manifest of the restored archive")
        regions = tuple(region for region in self._buckets.regions if region in complete)
        return await self._recheck(archive, Copies(manifest=manifest, regions=regions))

    async def _write_manifest(
        self, commit: Commit, manifest: Manifest, unreachable: Collection[Region]
    ) -> Copies:
        """Write a new manifest to a first region, which decides, and then to all others."""
        archive, upload = commit.archive, commit.upload
        unconfirmed: set[Region] = set()

        async def create(bucket: Bucket) -> Manifest:
            known_absent = bucket.region not in unreachable
            write = await bucket.create_manifest(archive, manifest, known_absent=known_absent)
            if write.unconfirmed:
                unconfirmed.add(bucket.region)
            return write.manifest

        decided = await self._decide(archive, upload.regions, create)
        copies = copies_of(archive, decided)
        purging = [each for each in decided.values() if isinstance(each, PurgeUnfinished)]
        if len(purging) == len(decided):  # a purge began after the lookup
            await self.discard(upload)
            raise purging[0]
        if copies is None:  # the manifest may still arrive in any region
            _log_kept(archive, upload, upload.regions)
            raise StorageUnavailable("no region took the manifest")
        if copies.manifest != manifest:
            unconfirmed.update(r for r in decided if isinstance(decided[r], ArchiverError))
            await self._withdraw(archive, upload, copies, unconfirmed)
        else:
            rest = [region for region in upload.regions if region not in decided]
            answers = await self._buckets.query_all(rest, create)
            _log_failures("commit.failed", archive, answers)
            copies = copies_of(archive, decided | answers) or copies
            _report_superseded(archive, manifest)
        return await self._recheck(archive, copies)

    async def _decide(
        self,
        archive: Archive,
        regions: Iterable[Region],
        create: Callable[[Bucket], Coroutine[Any, Any, Manifest]],
    ) -> PerRegion[Manifest]:
        """Create the manifest in one region after another, until one has a manifest."""
        decided: PerRegion[Manifest] = {}
        for region in regions:
            decided |= await self._buckets.query_all([region], create)
            if isinstance(decided[region], Manifest):
                break
        _log_failures("commit.failed", archive, decided)
        return decided

    async def _recheck(self, archive: Archive, copies: Copies) -> Copies:
        """Return *copies*, or what the regions hold by now if the primary has no copy.

        While the primary is unreachable, two attempts can each find a region that accepts their
        manifest.
        """
        if self._buckets.regions[0] in copies.regions:
            return copies
        with suppress(StorageUnavailable):
            return (await self._buckets.find(archive)).copies or copies
        return copies

    @asynccontextmanager
    async def discard_on_failure(self, upload: Upload) -> AsyncGenerator[None, None]:
        """Discard *upload* if the block raises or is cancelled."""
        try:
            yield
        except BaseException:
            await self.discard(upload)
            raise

    async def discard(self, upload: Upload) -> None:
        if not upload.restored:
            await self._buckets.delete_object(upload.object_key, upload.regions)

    async def _discard_unless_committed(self, upload: Upload, copies: Copies) -> None:
        """Discard *upload*, unless it is what was committed: by an earlier call of this attempt."""
        if upload.object_key != copies.manifest.object_key:
            async with self.discard_on_failure(upload):  # again, if cancelled before the end
                await self.discard(upload)

    async def _withdraw(
        self, archive: Archive, upload: Upload, copies: Copies, unconfirmed: Collection[Region]
    ) -> None:
        """Discard *upload*, except where its manifest is *unconfirmed* and may still arrive."""
        _log_kept(archive, upload, unconfirmed)
        regions = tuple(region for region in upload.regions if region not in unconfirmed)
        await self._discard_unless_committed(replace(upload, regions=regions), copies)


async def _proven() -> None:
    """Return at once: the lease was proven before."""


def _new_manifest(commit: Commit, tombstone: Tombstone | None) -> Manifest:
    """Return a manifest that its readers will accept. It can never be replaced."""
    manifest = commit.new_manifest(tombstone)
    if invalid := find_invalid_field(manifest, commit.archive):
        raise InternalError(f"no reader would accept a manifest with this {invalid}")
    return manifest


def _report_superseded(archive: Archive, manifest: Manifest) -> None:
    if manifest.supersedes:
        METRICS.superseded.labels(source=archive.source).inc()
        log.warning(
            "archive.superseded",
            key=archive.key,
            sha256=manifest.sha256,
            expected_sha256=manifest.supersedes,
        )


def _log_kept(archive: Archive, upload: Upload, regions: Iterable[Region]) -> None:
    for region in regions:
        log.warning("upload.kept", region=region, key=archive.key, object_key=upload.object_key)


def _log_failures(event: str, archive: Archive, answers: PerRegion[T]) -> None:
    for region, answer in answers.items():
        if isinstance(answer, ArchiverError):
            log.warning(event, region=region, key=archive.key, **answer.log_fields)
