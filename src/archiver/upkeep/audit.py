"""Holds what the regions have against what the hosts would send now. Changes nothing."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

from archiver.building.builder import Progress, Report, Workshop, first_packable
from archiver.drift import Content, Drift, compare
from archiver.errors import (
    ArchiverError,
    BadArchive,
    CorruptArchive,
    NotFound,
    NotPackable,
    StorageUnavailable,
    UnknownSource,
)
from archiver.model import Archive, Conversion, Copies, Manifest, Region
from archiver.ports.formats import ArchiveInventory, Converter, InventoryFactory, VerifierFactory
from archiver.ports.source import Source
from archiver.ports.storage import Storage, StoredState
from archiver.tasks import Failure, Phase
from archiver.telemetry import log


class Outcome(StrEnum):
    """What an audit of one archive came to."""

    SAME = "same"
    """The very bytes that the manifest names came again."""

    REPACKED = "repacked"
    """Other bytes came, with the same members in them: another compressor, or another header."""

    DIFFERS = "differs"
    """Other members came, or some that are not the same."""

    INCOMPLETE = "incomplete"
    """What is stored is sound, and ends before the tree does: the host had broken it off."""

    GONE = "gone"
    """The host says that it has no such thing any more."""

    CORRUPT = "corrupt"
    """A region has other bytes than its manifest says."""

    LOST = "lost"
    """There is a manifest, and no region has its bytes any more; whatever the host would send."""

    UNCHECKED = "unchecked"
    """Someone did not do what was asked of him, so that nothing can be said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What came of the host, or was made of it by a converter of today."""

    sha256: str
    size_bytes: int
    source_url: str
    conversion: Conversion | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is known of an archive after its audit.

    ``fetched`` is there whenever the host sent all of it; ``drift`` if it was compared, member by
    member. ``region`` has the corrupt copy, and ``failure`` says what kept the audit from its end.
    """

    archive: Archive
    outcome: Outcome = Outcome.UNCHECKED
    manifest: Manifest | None = None
    fetched: Fetched | None = None
    drift: Drift | None = None
    region: Region | None = None
    failure: Failure | None = None


class _CorruptCopy(CorruptArchive):
    def __init__(self, region: Region) -> None:
        super().__init__(f"the copy in {region} is not what its manifest says")
        self.region = region


class Auditor:
    """Fetches archives anew, one at a time, and compares."""

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
        self._workshop = Workshop(verify=verify, converter=converter)
        self._keep = keep

    def archives(self, source: str | None = None) -> AsyncGenerator[Archive, None]:
        """Yield all that could be audited. Raises StorageUnavailable."""
        return self._storage.iter_archives(source)

    async def sample(self, size: int, *, source: str | None, random: Random) -> list[Archive]:
        """Return *size* of all archives, or of those of *source*; each is as likely as any other.

        https://en.wikipedia.org/wiki/Reservoir_sampling, Algorithm R.

        Raises:
            StorageUnavailable: They cannot be listed.
        """
        sample: list[Archive] = []
        seen = 0
        async with aclosing(self.archives(source)) as archives:
            async for archive in archives:
                seen += 1
                if len(sample) < size:
                    sample.append(archive)
                elif (place := random.randrange(seen)) < size:
                    sample[place] = archive
        return sample

    async def audit(self, archive: Archive, report: Report) -> Finding:
        """Return what is to be said of *archive*; tell *report* how far it is."""
        finding = Finding(archive=archive)
        try:
            found, manifest = await self._find(archive)
        except StorageUnavailable as exc:
            return _failed(finding, exc)
        outcome = Outcome.LOST if _is_lost(found) else Outcome.UNCHECKED
        finding = replace(finding, manifest=manifest, outcome=outcome)
        source = self._sources.get(archive.source)
        if source is None:
            return _failed(finding, UnknownSource(f"there is no source {archive.source!r} here"))
        try:
            return await self._compared(finding, source, manifest, found.copies, report)
        except (BadArchive, NotPackable) as exc:
            failed = _failed(finding, exc)
            if found.copies is None:
                return failed
            return await self._despite(failed, source, found.copies, report)
        except ArchiverError as exc:
            return _failed(finding, exc)

    async def _compared(
        self,
        finding: Finding,
        source: Source,
        manifest: Manifest,
        copies: Copies | None,
        report: Report,
    ) -> Finding:
        """Return *finding* with what comes of a comparison with what the host sends.

        Raises:
            ArchiverError: It does not come to that.
        """
        archive = finding.archive
        async with self._fetched(source, manifest, archive, report) as (fetched, kept):
            finding = replace(finding, fetched=fetched)
            if finding.outcome is Outcome.LOST:
                return finding
            try:
                if copies is None:
                    raise StorageUnavailable("no region gives the archive")
                if fetched.sha256 == manifest.sha256:
                    return replace(finding, outcome=Outcome.SAME)
                async with self._copy(archive, copies, report) as stored:
                    ours = _Members(stored, manifest)
                    drift = await compare(ours.listed(), kept.iter_members())
                if await _ends_early(source, archive, ours):
                    return replace(finding, outcome=Outcome.INCOMPLETE, drift=drift)
            except ArchiverError as exc:
                return _failed(finding, exc)
        outcome = Outcome.DIFFERS if drift else Outcome.REPACKED
        return replace(finding, outcome=outcome, drift=drift)

    async def _find(self, archive: Archive) -> tuple[StoredState, Manifest]:
        found = await self._storage.find(archive)
        manifest = found.copies.manifest if found.copies else found.dangling_manifest
        if manifest is None:
            raise StorageUnavailable("no region gives its manifest")
        return found, manifest

    async def _despite(
        self, finding: Finding, source: Source, copies: Copies, report: Report
    ) -> Finding:
        """Return what is to be said of a copy when the host sends nothing to compare it with."""
        archive = finding.archive
        try:
            async with self._copy(archive, copies, report) as stored:
                ours = _Members(stored, copies.manifest)
                async for _ in ours.listed():
                    pass
            if await _ends_early(source, archive, ours):
                return replace(finding, outcome=Outcome.INCOMPLETE)
        except _CorruptCopy as exc:
            return _failed(finding, exc)
        except ArchiverError:
            return finding
        return finding

    @asynccontextmanager
    async def _fetched(
        self, source: Source, manifest: Manifest, archive: Archive, report: Report
    ) -> AsyncIterator[tuple[Fetched, ArchiveInventory]]:
        """Yield what the host makes of *archive* today; what was converted is so again."""
        convert = manifest.conversion is not None
        with ExitStack() as stack:

            async def fetch(candidate: Archive) -> tuple[Fetched, ArchiveInventory]:
                stack.close()
                kept = stack.enter_context(self._keep(archive, size_bytes=manifest.size_bytes))
                async with self._workshop.fetch(
                    source, candidate, archive, Progress(report), convert=convert
                ) as made:
                    async with aclosing(made.checked.chunks()) as chunks:
                        async for chunk in chunks:
                            await kept.write(chunk)
                    verified = made.checked.verified
                    fetched = Fetched(
                        sha256=verified.sha256,
                        size_bytes=verified.size_bytes,
                        source_url=made.source_url,
                        conversion=made.conversion,
                    )
                return fetched, kept

            yield await first_packable(source.candidates(archive), fetch)

    @asynccontextmanager
    async def _copy(
        self, archive: Archive, copies: Copies, report: Report
    ) -> AsyncIterator[ArchiveInventory]:
        """Yield the first copy that can be read whole.

        Raises:
            _CorruptCopy: One that was read before is damaged.
            StorageUnavailable: There is none.
        """
        failure = StorageUnavailable("no region gives the archive")
        for region in copies.regions:
            with self._keep(archive, size_bytes=copies.manifest.size_bytes) as stored:
                try:
                    await self._read(copies, region, stored, report)
                except CorruptArchive as exc:
                    log.error("copy.corrupt", region=region, key=archive.key)
                    raise _CorruptCopy(region) from exc
                except StorageUnavailable as exc:
                    failure = exc
                    continue
                yield stored
                return
        raise failure

    async def _read(
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
    """The members of a copy and, once they were listed, the last file of them."""

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
    """Tell whether the tree goes on after the last of *members*. Raises as ``Source.last_file``."""
    expected = await source.last_file(archive)
    return expected is not None and expected != members.last_file


def _is_lost(found: StoredState) -> bool:
    """Tell whether it is certain that no region has the bytes which are promised."""
    return found.copies is None and found.dangling_manifest is not None and not found.unreachable


def _failed(finding: Finding, exc: ArchiverError) -> Finding:
    """Return the *finding* that *exc* put an end to.

    What is lost is so whatever else fails. If other bytes came, and trying again will never tell
    how they differ, they differ.
    """
    finding = replace(finding, failure=Failure(code=exc.code, message=exc.message))
    match exc:
        case _ if finding.outcome is Outcome.LOST:
            return finding
        case _CorruptCopy():
            return replace(finding, outcome=Outcome.CORRUPT, region=exc.region)
        case NotFound() if not isinstance(exc, UnknownSource):
            return replace(finding, outcome=Outcome.GONE)
        case _ if finding.fetched and not exc.retryable:
            return replace(finding, outcome=Outcome.DIFFERS)
        case _:
            return finding
