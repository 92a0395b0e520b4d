"""All regions as one storage: what the first of them that has a manifest says, goes."""

import asyncio
import hashlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from archiver.errors import (
    ArchiverError,
    BytesChanged,
    CorruptArchive,
    StorageUnavailable,
)
from archiver.model import (
    Archive,
    Conversion,
    Copies,
    Manifest,
    PresignedUrl,
    Region,
    Verified,
)
from archiver.ports import Found, Hold, Upload
from archiver.storage.bucket import Bare, Bucket
from archiver.storage.tee import GRACE, PATIENCE, Tee, confirm
from archiver.telemetry import log

T = TypeVar("T")

Answers = dict[Region, T | ArchiverError]

LAST_WORDS_S = 0.05
"""obstore's threads call into the loop for a moment longer than they work. When it is gone, they
abort the process: 3 to 9 of 25 did, and none after this pause."""


@asynccontextmanager
async def open_regions(buckets: Sequence[Bucket]) -> AsyncIterator["Regions"]:
    """Yield the regions, and see to it that the loop does not end before obstore does."""
    try:
        yield Regions(buckets=buckets)
    finally:
        await asyncio.sleep(LAST_WORDS_S)


class Regions:
    """One bucket per region, in the configured order. Implements ``ports.Storage``.

    The bytes lie under a key of their attempt's own, so that nobody writes over what somebody else
    committed; a manifest names that key, and is never written over either.
    """

    def __init__(
        self,
        *,
        buckets: Sequence[Bucket],
        patience: timedelta = PATIENCE,
        grace: timedelta = GRACE,
    ) -> None:
        self._buckets = {bucket.region: bucket for bucket in buckets}
        self._patience = patience
        self._grace = grace
        self.regions = tuple(self._buckets)

    async def find(self, archive: Archive) -> Found:
        answers = await self._each(self.regions, lambda bucket: bucket.copy(archive))
        copies = _copies(archive, answers)
        return Found(
            copies=copies,
            unreachable=tuple(region for region, told in answers.items() if _is_open(told)),
            promised=None if copies else next(_manifests(answers), None),
        )

    async def archives(
        self, source: str | None = None, *, region: Region | None = None
    ) -> AsyncGenerator[Archive, None]:
        failure = StorageUnavailable("there is no region")
        for bucket in [self._bucket(region)] if region else self._buckets.values():
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
        object_key = f"archives/{archive.key}/{attempt}/{archive.file_name}"
        tee = self._tee(regions, object_key)
        try:
            await tee.run(chunks)
        except BaseException:
            await self._delete(object_key, tee.reached)
            raise
        await self._delete(object_key, set(tee.reached).difference(tee.stored))
        return Upload(object_key=object_key, regions=tee.stored, failures=tee.failures)

    async def _put_back(
        self, manifest: Manifest, chunks: AsyncGenerator[bytes, None], regions: Iterable[Region]
    ) -> Upload:
        """Store the bytes that *manifest* names, where it says. Nothing is ever deleted there."""
        tee = self._tee(regions, manifest.object_key)
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
    ) -> Copies:
        async with self._or_discarded(upload):
            found, confirmed = await self._weigh(archive, upload, verified, hold)
        standing = found.copies.manifest if found.copies else found.promised
        if upload.promised and standing and standing.object_key == upload.object_key:
            return await self._restore(archive, standing, found.copies, confirmed)
        if earlier := found.copies:
            await self._forget(upload, earlier)
            return earlier
        async with self._or_discarded(upload):
            if found.promised or upload.promised:
                raise StorageUnavailable(
                    "the bytes that were promised are to come back, and are not"
                )
            if not confirmed:
                raise StorageUnavailable("no region has the whole archive")
            await self._delete(upload.object_key, set(upload.regions).difference(confirmed))
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
        )

        async def commit(bucket: Bucket) -> Manifest:
            known_absent = bucket.region not in found.unreachable
            return await bucket.commit(archive, manifest, known_absent=known_absent)

        decided = await self._decide(archive, upload.regions, commit)
        copies = _copies(archive, decided)
        if copies is None:
            raise StorageUnavailable("no region took the manifest")
        if copies.manifest != manifest:
            certain = replace(upload, regions=_certain(upload.regions, decided))
            await self._forget(certain, copies)
        else:
            rest = [region for region in upload.regions if region not in decided]
            told = await self._each(rest, commit)
            _log_failures("commit.failed", archive, told)
            copies = _copies(archive, decided | told) or copies
        return await self._settled(archive, copies)

    async def _weigh(
        self, archive: Archive, upload: Upload, verified: Verified, hold: Hold
    ) -> tuple[Found, tuple[Region, ...]]:
        """Return all that decides what *upload* comes to. Writes nothing. Raises as does *hold*."""
        async with asyncio.TaskGroup() as group:
            finding = group.create_task(self.find(archive))
            confirming = group.create_task(self._confirmed(archive, upload, verified))
            refused = group.create_task(_refused(hold))
        if failure := refused.result():
            raise failure
        return finding.result(), confirming.result()

    async def _confirmed(
        self, archive: Archive, upload: Upload, verified: Verified
    ) -> tuple[Region, ...]:
        """Return the regions that have all bytes of *upload*, as they themselves see it."""
        answers = await self._each(
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
        told = await self._each(
            (region for region in confirmed if region not in whole),
            lambda bucket: bucket.commit(archive, manifest),
        )
        _log_failures("commit.failed", archive, told)
        whole.update(region for region, answer in told.items() if answer == manifest)
        if not whole:
            raise StorageUnavailable("no region has taken back the archive that was lost")
        regions = tuple(region for region in self.regions if region in whole)
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
            answers |= await self._each([region], commit)
            if isinstance(answers[region], Manifest):
                break
        _log_failures("commit.failed", archive, answers)
        return answers

    async def _settled(self, archive: Archive, copies: Copies) -> Copies:
        """Return *copies*, but for a decision without the primary region look whether it holds.

        While the primary was out, two attempts may each have found a region to say yes.
        """
        if self.regions[0] in copies.regions:
            return copies
        return (await self.find(archive)).copies or copies

    @asynccontextmanager
    async def _or_discarded(self, upload: Upload) -> AsyncGenerator[None, None]:
        """Discard *upload* if the block ends in any other way than at its end."""
        try:
            yield
        except BaseException:
            await self.discard(upload)
            raise

    async def discard(self, upload: Upload) -> None:
        if not upload.promised:
            await self._delete(upload.object_key, upload.regions)

    async def _forget(self, upload: Upload, copies: Copies) -> None:
        """Discard *upload*, unless it is what was committed: by this attempt, a moment ago."""
        if upload.object_key != copies.manifest.object_key:
            await self.discard(upload)

    async def copy(self, archive: Archive, copies: Copies, region: Region) -> None:
        target, manifest = self._bucket(region), copies.manifest
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
                _require_same(manifest, await target.commit(archive, manifest), region)
                return
        raise failure

    async def _transfer(self, copies: Copies, region: Region, target: Bucket) -> None:
        manifest = copies.manifest
        async with aclosing(self.read(copies, region)) as chunks:
            await self._tee([target.region], manifest.object_key).run(chunks)
        await confirm(target, manifest.object_key, manifest.size_bytes)

    def read(self, copies: Copies, region: Region) -> AsyncGenerator[bytes, None]:
        manifest = copies.manifest
        corrupt = CorruptArchive("a region's copy is not what its manifest says")
        return _proven(self._bucket(region).get(manifest.object_key), manifest, corrupt)

    def presign(self, copies: Copies, region: Region, *, method: str) -> PresignedUrl:
        return self._bucket(region).presign(
            copies.manifest.object_key, "HEAD" if method == "HEAD" else "GET"
        )

    async def check(self) -> Mapping[Region, ArchiverError | None]:
        return await self._each(self.regions, lambda bucket: bucket.check())

    async def _each(
        self, regions: Iterable[Region], ask: Callable[[Bucket], Coroutine[Any, Any, T]]
    ) -> Answers[T]:
        """Ask all *regions* at once; return what each answered, or why it did not."""

        async def answer(region: Region) -> T | ArchiverError:
            try:
                return await ask(self._buckets[region])
            except ArchiverError as exc:
                return exc

        regions = tuple(regions)
        answers = await asyncio.gather(*map(answer, regions))
        return dict(zip(regions, answers, strict=True))

    async def _delete(self, object_key: str, regions: Iterable[Region]) -> None:
        """Delete what no manifest names. What a region keeps all the same costs but its space."""
        await self._each(regions, lambda bucket: bucket.delete(object_key))

    def _tee(self, regions: Iterable[Region], object_key: str) -> Tee:
        buckets = [self._buckets[region] for region in regions]
        return Tee(
            buckets=buckets, object_key=object_key, patience=self._patience, grace=self._grace
        )

    def _bucket(self, region: Region) -> Bucket:
        try:
            return self._buckets[region]
        except KeyError:
            raise StorageUnavailable(f"there is no region {region} here") from None


async def _refused(hold: Hold) -> ArchiverError | None:
    try:
        await hold()
    except ArchiverError as exc:
        return exc
    return None


def _copies(
    archive: Archive, answers: Mapping[Region, Manifest | Bare | ArchiverError | None]
) -> Copies | None:
    """Return the first manifest and all regions that hold the very same one and its bytes."""
    first = next(_manifests(answers), None)
    if first is None:
        return None
    for region, manifest in answers.items():
        if isinstance(manifest, Manifest) and manifest != first:
            log.warning(
                "copy.differs",
                region=region,
                key=archive.key,
                sha256=manifest.sha256,
                expected_sha256=first.sha256,
            )
    regions = tuple(region for region, answer in answers.items() if answer == first)
    return Copies(manifest=first, regions=regions) if regions else None


def _is_open(told: Manifest | Bare | ArchiverError | None) -> bool:
    """Tell whether a region left open if it has a copy."""
    return isinstance(told, ArchiverError) or (isinstance(told, Bare) and told.unsure)


def _manifests(
    answers: Mapping[Region, Manifest | Bare | ArchiverError | None],
) -> Iterator[Manifest]:
    """Yield all manifests, be they bare or not: each of them is a promise."""
    for answer in answers.values():
        match answer:
            case Manifest():
                yield answer
            case Bare(manifest=manifest):
                yield manifest
            case _:
                pass


def _certain(regions: Sequence[Region], answers: Answers[Manifest]) -> tuple[Region, ...]:
    """Return the *regions* that cannot have written a manifest after all, unheard."""
    return tuple(r for r in regions if not isinstance(answers.get(r), ArchiverError))


def _require_same(manifest: Manifest, standing: Manifest, region: Region) -> None:
    if standing != manifest:
        raise StorageUnavailable(f"{region} holds another archive under the same key")


def _log_failures(event: str, archive: Archive, answers: Answers[T]) -> None:
    for region, answer in answers.items():
        if isinstance(answer, ArchiverError):
            log.warning(event, region=region, key=archive.key, code=answer.code)


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
