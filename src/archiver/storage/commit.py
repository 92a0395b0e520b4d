"""What an upload comes to: the first manifest of an archive wins, and is never written over."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from archiver.errors import ArchiverError, StorageUnavailable
from archiver.model import Archive, Completeness, Conversion, Copies, Manifest, Region, Verified
from archiver.ports.storage import Found, Hold, Upload
from archiver.storage.bucket import Bucket, Stands
from archiver.storage.buckets import Buckets, copies_of
from archiver.storage.fan_out import confirm
from archiver.storage.questions import Answers, outcome
from archiver.telemetry import log

T = TypeVar("T")


class Committing:
    """Makes an upload an archive, unless there is one; see ``ports.Storage.commit``."""

    def __init__(self, *, buckets: Buckets) -> None:
        self._buckets = buckets

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
        async with self.or_discarded(upload):
            found, confirmed = await self._weigh(archive, upload, verified, hold)
        standing = found.copies.manifest if found.copies else found.promised
        if upload.promised and standing and standing.object_key == upload.object_key:
            return await self._restore(archive, standing, found.copies, confirmed)
        if earlier := found.copies:
            await self._forget(upload, earlier)
            return earlier
        async with self.or_discarded(upload):
            if found.promised or upload.promised:
                raise StorageUnavailable(
                    "the bytes that were promised are to come back, and are not"
                )
            if not confirmed:
                raise StorageUnavailable("no region has the whole archive")
            await self._buckets.delete(upload.object_key, set(upload.regions).difference(confirmed))
        upload = replace(upload, regions=confirmed)
        manifest = Manifest(
            key=archive.key,
            node=archive.node,
            sha256=verified.sha256,
            size_bytes=verified.size_bytes,
            object_key=upload.object_key,
            root=verified.root,
            source_url=source_url,
            created_at=datetime.now(UTC),
            conversion=conversion,
            completeness=completeness,
            links_outside=verified.links_outside,
        )

        unheard: set[Region] = set()

        async def commit(bucket: Bucket) -> Manifest:
            known_absent = bucket.region not in found.unreachable
            stands = await bucket.commit(archive, manifest, known_absent=known_absent)
            if stands.unheard:
                unheard.add(bucket.region)
            return stands.manifest

        decided = await self._decide(archive, upload.regions, commit)
        copies = copies_of(archive, decided)
        if copies is None:  # the manifest may yet arrive anywhere
            _log_kept(archive, upload, upload.regions)
            raise StorageUnavailable("no region took the manifest")
        if copies.manifest != manifest:
            unheard.update(r for r in decided if isinstance(decided[r], ArchiverError))
            await self._withdraw(archive, upload, copies, unheard)
        else:
            rest = [region for region in upload.regions if region not in decided]
            told = await self._buckets.each(rest, commit)
            _log_failures("commit.failed", archive, told)
            copies = copies_of(archive, decided | told) or copies
        return await self._settled(archive, copies)

    async def _weigh(
        self, archive: Archive, upload: Upload, verified: Verified, hold: Hold
    ) -> tuple[Found, tuple[Region, ...]]:
        """Return all that decides what *upload* comes to. Writes nothing. Raises as does *hold*."""
        async with asyncio.TaskGroup() as group:
            finding = group.create_task(outcome(self._buckets.find(archive)))
            confirming = group.create_task(self._confirmed(archive, upload, verified))
            holding = group.create_task(outcome(hold()))
        if failure := holding.result():
            raise failure
        if isinstance(found := finding.result(), ArchiverError):
            raise found
        return found, confirming.result()

    async def _confirmed(
        self, archive: Archive, upload: Upload, verified: Verified
    ) -> tuple[Region, ...]:
        """Return the regions that have all bytes of *upload*, as they themselves see it."""
        answers = await self._buckets.each(
            upload.regions,
            lambda bucket: confirm(bucket, upload.object_key, verified.size_bytes),
        )
        _log_failures("upload.failed", archive, answers)
        return tuple(region for region, answer in answers.items() if answer is None)

    async def _restore(
        self,
        archive: Archive,
        manifest: Manifest,
        copies: Copies | None,
        confirmed: Iterable[Region],
    ) -> Copies:
        """Have whoever took back the bytes of *manifest* promise them, too; return all copies."""
        whole = set(copies.regions) if copies else set()
        told = await self._buckets.each(
            (region for region in confirmed if region not in whole),
            lambda bucket: bucket.commit(archive, manifest),
        )
        _log_failures("commit.failed", archive, told)
        taken = Stands(manifest=manifest)
        whole.update(region for region, answer in told.items() if answer == taken)
        if not whole:
            raise StorageUnavailable("no region has taken back the archive that was lost")
        regions = tuple(region for region in self._buckets.regions if region in whole)
        return await self._settled(archive, Copies(manifest=manifest, regions=regions))

    async def _decide(
        self,
        archive: Archive,
        regions: Sequence[Region],
        commit: Callable[[Bucket], Coroutine[Any, Any, Manifest]],
    ) -> Answers[Manifest]:
        """Have one region after the other say which manifest it is, until one does."""
        answers: Answers[Manifest] = {}
        for region in regions:
            answers |= await self._buckets.each([region], commit)
            if isinstance(answers[region], Manifest):
                break
        _log_failures("commit.failed", archive, answers)
        return answers

    async def _settled(self, archive: Archive, copies: Copies) -> Copies:
        """Return *copies*, but for a decision without the primary region look whether it holds.

        While the primary was out, two attempts may each have found a region to say yes.
        """
        if self._buckets.regions[0] in copies.regions:
            return copies
        with suppress(StorageUnavailable):
            return (await self._buckets.find(archive)).copies or copies
        return copies

    @asynccontextmanager
    async def or_discarded(self, upload: Upload) -> AsyncGenerator[None, None]:
        """Discard *upload* if the block ends in any other way than at its end."""
        try:
            yield
        except BaseException:
            await self.discard(upload)
            raise

    async def discard(self, upload: Upload) -> None:
        if not upload.promised:
            await self._buckets.delete(upload.object_key, upload.regions)

    async def _forget(self, upload: Upload, copies: Copies) -> None:
        """Discard *upload*, unless it is what was committed: by this attempt, a moment ago."""
        if upload.object_key != copies.manifest.object_key:
            async with self.or_discarded(upload):  # again, if this is cancelled before it ends
                await self.discard(upload)

    async def _withdraw(
        self, archive: Archive, upload: Upload, copies: Copies, unheard: Collection[Region]
    ) -> None:
        """Forget *upload*, but not in *unheard*, where its manifest may yet arrive and name it."""
        _log_kept(archive, upload, unheard)
        regions = tuple(region for region in upload.regions if region not in unheard)
        await self._forget(replace(upload, regions=regions), copies)


def _log_kept(archive: Archive, upload: Upload, regions: Iterable[Region]) -> None:
    for region in regions:
        log.warning("upload.kept", region=region, key=archive.key, object_key=upload.object_key)


def _log_failures(event: str, archive: Archive, answers: Answers[T]) -> None:
    for region, answer in answers.items():
        if isinstance(answer, ArchiverError):
            log.warning(event, region=region, key=archive.key, **answer.log_fields)
