"""Compares stored archives with the bytes that their hosts send today. Read-only."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from random import Random

from archiver.building.pipeline import Pipeline, first_packable
from archiver.building.streams import Progress, Report
from archiver.drift import Content, compare
from archiver.errors import (
    ArchiverError,
    BadArchive,
    CorruptArchive,
    NotPackable,
    StorageUnavailable,
    UnknownSource,
)
from archiver.model import Archive, Copies, Manifest, Region
from archiver.ports.formats import ArchiveInventory, Converter, InventoryFactory, VerifierFactory
from archiver.ports.source import Source
from archiver.ports.storage import Storage, StoredState
from archiver.tasks import Phase
from archiver.telemetry import log
from archiver.upkeep.finding import CorruptCopy, Fetched, Finding, Outcome, with_failure


class Auditor:
    """Fetches archives again, one at a time, and compares them with the stored ones."""

    def __init__(
        self,
        *,
        sources: Mapping[str, Source],
        storage: Storage,
        verify: VerifierFactory,
        converter: Converter,
        keep: InventoryFactory,
    ) -> None:
        self._sources = sources
        self._storage = storage
        self._pipeline = Pipeline(verify=verify, converter=converter)
        self._keep = keep

    def archives(self, source: str | None = None) -> AsyncGenerator[Archive, None]:
        """Yield all stored archives, or those of *source*. Raises StorageUnavailable."""
        return self._storage.iter_archives(source)

    async def sample(self, size: int, *, source: str | None, random: Random) -> list[Archive]:
        """Return a uniform random sample of *size* of these archives.

        https://en.wikipedia.org/wiki/Reservoir_sampling, Algorithm R.
        """
        sample: list[Archive] = []
        seen = 0
        async with aclosing(self.archives(source)) as archives:
            async for archive in archives:
                seen += 1
                if len(sample) < size:
                    sample.append(archive)
                elif (index := random.randrange(seen)) < size:
                    sample[index] = archive
        return sample

    async def audit(self, archive: Archive, report: Report) -> Finding:
        """Return the finding for *archive*. *report* is called with the progress."""
        finding = Finding(archive=archive)
        try:
            found, manifest = await self._find(archive)
        except StorageUnavailable as exc:
            return with_failure(finding, exc)
        outcome = Outcome.LOST if _is_lost(found) else Outcome.UNCHECKED
        finding = replace(finding, manifest=manifest, outcome=outcome)
        source = self._sources.get(archive.source)
        if source is None:
            return with_failure(finding, UnknownSource(f"unknown source {archive.source!r}"))
        try:
            return await self._compare(finding, source, manifest, found.copies, report)
        except (BadArchive, NotPackable) as exc:
            failed = with_failure(finding, exc)
            if found.copies is None:
                return failed
            return await self._check_copy_alone(failed, source, found.copies, report)
        except ArchiverError as exc:
            return with_failure(finding, exc)

    async def _compare(
        self,
        finding: Finding,
        source: Source,
        manifest: Manifest,
        copies: Copies | None,
        report: Report,
    ) -> Finding:
        """Return *finding* with the comparison. Raises ArchiverError if the fetch failed."""
        archive = finding.archive
        async with self._fetch(source, manifest, archive, report) as (fetched, kept):
            finding = replace(finding, fetched=fetched)
            if finding.outcome is Outcome.LOST:
                return finding
            try:
                if copies is None:
                    raise StorageUnavailable("no region returned the archive")
                if fetched.sha256 == manifest.sha256:
                    return replace(finding, outcome=Outcome.SAME)
                async with self._open_copy(archive, copies, report) as stored:
                    ours = _Members(stored, manifest)
                    drift = await compare(ours.listed(), kept.iter_members())
                if await _ends_early(source, archive, ours):
                    return replace(finding, outcome=Outcome.INCOMPLETE, drift=drift)
            except ArchiverError as exc:
                return with_failure(finding, exc)
        outcome = Outcome.DIFFERS if drift else Outcome.REPACKED
        return replace(finding, outcome=outcome, drift=drift)

    async def _find(self, archive: Archive) -> tuple[StoredState, Manifest]:
        found = await self._storage.find(archive)
        manifest = found.copies.manifest if found.copies else found.dangling_manifest
        if manifest is None:
            raise StorageUnavailable("no region returned the manifest")
        return found, manifest

    async def _check_copy_alone(
        self, finding: Finding, source: Source, copies: Copies, report: Report
    ) -> Finding:
        """Return *finding* after a check of the copy alone: the host sent nothing to compare."""
        archive = finding.archive
        try:
            async with self._open_copy(archive, copies, report) as stored:
                ours = _Members(stored, copies.manifest)
                async for _ in ours.listed():
                    pass
            if await _ends_early(source, archive, ours):
                return replace(finding, outcome=Outcome.INCOMPLETE)
        except CorruptCopy as exc:
            return with_failure(finding, exc)
        except ArchiverError:
            return finding
        return finding

    @asynccontextmanager
    async def _fetch(
        self, source: Source, manifest: Manifest, archive: Archive, report: Report
    ) -> AsyncIterator[tuple[Fetched, ArchiveInventory]]:
        """Yield *archive* as the host sends it today, converted if the stored one was."""
        convert = manifest.conversion is not None
        with ExitStack() as stack:

            async def fetch(candidate: Archive) -> tuple[Fetched, ArchiveInventory]:
                stack.close()
                kept = stack.enter_context(self._keep(archive, size_bytes=manifest.size_bytes))
                async with self._pipeline.fetch(
                    source, candidate, archive, Progress(report), convert=convert
                ) as output:
                    async with aclosing(output.stream.chunks()) as chunks:
                        async for chunk in chunks:
                            await kept.write(chunk)
                    verified = output.stream.verified
                    fetched = Fetched(
                        sha256=verified.sha256,
                        size_bytes=verified.size_bytes,
                        source_url=output.source_url,
                        conversion=output.conversion,
                    )
                return fetched, kept

            yield await first_packable(source.served.candidates(archive), fetch)

    @asynccontextmanager
    async def _open_copy(
        self, archive: Archive, copies: Copies, report: Report
    ) -> AsyncIterator[ArchiveInventory]:
        """Yield the first copy that can be read to its end. Raises CorruptCopy at a damaged one."""
        failure = StorageUnavailable("no region returned the archive")
        for region in copies.regions:
            with self._keep(archive, size_bytes=copies.manifest.size_bytes) as stored:
                try:
                    await self._download(copies, region, stored, report)
                except CorruptArchive as exc:
                    log.error("copy.corrupt", region=region, key=archive.key)
                    raise CorruptCopy(region) from exc
                except StorageUnavailable as exc:
                    failure = exc
                    continue
                yield stored
                return
        raise failure

    async def _download(
        self,
        copies: Copies,
        region: Region,
        stored: ArchiveInventory,
        report: Report,
    ) -> None:
        size_bytes = 0
        async with aclosing(self._storage.read_copy(copies, region)) as chunks:
            async for chunk in chunks:
                await stored.write(chunk)
                size_bytes += len(chunk)
                report(Phase.COPYING, size_bytes)


class _Members:
    """The members of a copy. ``last_file`` is known once they were listed."""

    def __init__(self, kept: ArchiveInventory, manifest: Manifest) -> None:
        self._kept = kept
        self._below = f"{manifest.root}/".encode()
        self.last_file = b""

    async def listed(self) -> AsyncGenerator[Sequence[Content], None]:
        async with aclosing(self._kept.iter_members()) as listing:
            async for contents in listing:
                for content in contents:
                    if content.kind != "folder":
                        self.last_file = content.name.removeprefix(self._below)
                yield contents


async def _ends_early(source: Source, archive: Archive, members: _Members) -> bool:
    """Return whether the tree has files after the last of *members*; see ``Source.last_file``."""
    expected = await source.last_file(archive)
    return expected is not None and expected != members.last_file


def _is_lost(found: StoredState) -> bool:
    """Return whether it is certain that no region has the bytes of the manifest."""
    return found.copies is None and found.dangling_manifest is not None and not found.unreachable
