"""Builds an archive that no region has, from the cheapest input, and stores it in every region."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

from archiver.building.pipeline import Output, Pipeline, first_packable
from archiver.building.streams import Progress
from archiver.errors import (
    ArchiverError,
    BadArchive,
    BytesChanged,
    IncompleteArchive,
    NotConvertible,
    StorageUnavailable,
)
from archiver.model import Archive, Copies, Manifest
from archiver.ports.formats import Converter, VerifierFactory
from archiver.ports.index import Index
from archiver.ports.queue import Attempt
from archiver.ports.source import Source
from archiver.ports.storage import Commit, Storage, StoredState
from archiver.tasks import Phase
from archiver.telemetry import METRICS, log
from archiver.telemetry.tracing import Kind, SpanName, measured, span, stage


async def replicate(storage: Storage, archive: Archive, copies: Copies, attempt: Attempt) -> Copies:
    """Return the copies after an attempt to add the missing ones. Failures are logged."""
    regions = set(copies.regions)
    for region in storage.regions:
        if region in regions:
            continue
        attempt.report(Phase.COPYING)
        try:
            with span(SpanName.COPY, region=region, size_bytes=copies.manifest.size_bytes):
                await storage.copy(archive, copies, region)
        except ArchiverError as exc:
            METRICS.repairs.labels(region=region, outcome="failed").inc()
            log.warning("copy.failed", region=region, key=archive.key, **exc.log_fields)
        else:
            METRICS.repairs.labels(region=region, outcome="succeeded").inc()
            log.info("copy.succeeded", region=region, key=archive.key)
            regions.add(region)
    return Copies(
        manifest=copies.manifest,
        regions=tuple(region for region in storage.regions if region in regions),
    )


CHEAPEST_FIRST = ("tar.zst", "tar", "tar.gz", "zip", "tar.xz", "tar.bz2")
"""Formats by the cost of reading them."""


class Builder:
    """Chooses the input: an archive of the same tree in a region, or else the host."""

    def __init__(
        self, *, storage: Storage, index: Index, verify: VerifierFactory, converter: Converter
    ) -> None:
        self._storage = storage
        self._index = index
        self._pipeline = Pipeline(verify=verify, converter=converter)

    async def find_relatives(
        self, source: Source, archive: Archive
    ) -> list[tuple[Archive, Copies]]:
        """Return the stored archives that *archive* can be made from, the cheapest first."""
        if source.served.wants_verbatim(archive):
            return []
        subdirs = (archive.subdir, "") if source.served.parts_of_whole else (archive.subdir,)
        candidates = [
            replace(archive, subdir=subdir, suffix=suffix)
            for subdir in dict.fromkeys(subdirs)
            for suffix in CHEAPEST_FIRST
        ]
        candidates.remove(archive)
        found = await asyncio.gather(*map(self._known_copies, candidates))
        return [(given, copies) for given, copies in zip(candidates, found, strict=True) if copies]

    async def _known_copies(self, archive: Archive) -> Copies | None:
        """Return the copies of *archive*; None if unknown, since another input will do."""
        try:
            return await self._index.copies(archive)
        except StorageUnavailable as exc:
            log.warning("input.failed", key=archive.key, **exc.log_fields)
            return None

    async def build(
        self, source: Source, archive: Archive, attempt: Attempt, found: StoredState
    ) -> Copies:
        """Store *archive*, which was not *found*, and return its copies.

        The host is the last choice, because stored inputs cost it nothing.

        Raises:
            StorageUnavailable: No region takes writes, or a region that does not respond is known
                to have the archive.
            ArchiverError: No input could be turned into the archive.
        """
        await self._require_lost(archive, found)
        found = await self._without_read_only(found)
        for relative, copies in await self.find_relatives(source, archive):
            if built := await self._convert(source, archive, relative, copies, attempt, found):
                return built
        convert = bool(found.dangling_manifest and found.dangling_manifest.conversion)

        async def fetch(candidate: Archive) -> Copies:
            progress = Progress(attempt.report)
            async with self._pipeline.fetch(
                source, candidate, archive, progress, convert=convert
            ) as output:
                return await self._store(archive, output, attempt, progress, found)

        return await first_packable(source.served.candidates(archive), fetch)

    async def _require_lost(self, archive: Archive, found: StoredState) -> None:
        """Raise if an unreachable region has it: a second fetch would make a second manifest."""
        if not found.unreachable:
            return
        known = await self._index.copies(archive)
        if known and set(known.regions).intersection(found.unreachable):
            raise StorageUnavailable("the regions that have the archive do not respond")

    async def _without_read_only(self, found: StoredState) -> StoredState:
        """Return *found* with the regions that refuse writes among the unreachable ones.

        Checked before the host is asked, so that an outage of ours costs it no fetch.
        """
        answers = await self._storage.check_writable()
        refusing = {region: failure for region, failure in answers.items() if failure}
        if len(refusing) == len(answers):
            raise StorageUnavailable("no region takes writes") from next(iter(refusing.values()))
        return replace(found, unreachable=tuple({**dict.fromkeys(found.unreachable), **refusing}))

    async def _convert(
        self,
        source: Source,
        archive: Archive,
        relative: Archive,
        copies: Copies,
        attempt: Attempt,
        found: StoredState,
    ) -> Copies | None:
        """Convert *relative* to *archive*; return None if that is not possible.

        If one region does not deliver the input, the next is tried. Unreachable regions come last,
        because a download from one takes minutes to fail.
        """
        copies = await self._with_commit(relative, copies)
        for region in sorted(copies.regions, key=found.unreachable.__contains__):
            progress = Progress(attempt.report)
            if _may_hide_parts(copies.manifest):
                progress.hide()
            read = stage(SpanName.READ, kind=Kind.CLIENT, region=region, suffix=relative.suffix)
            chunks = measured(self._storage.read_copy(copies, region), read)
            try:
                async with self._pipeline.convert_copy(
                    source, relative, archive, copies.manifest, chunks, progress
                ) as output:
                    return await self._store(archive, output, attempt, progress, found)
            except ArchiverError as exc:
                if not (progress.broken or isinstance(exc, BadArchive)):
                    raise
                log.warning("input.failed", region=region, key=relative.key, **exc.log_fields)
                if isinstance(exc, (NotConvertible, BytesChanged, IncompleteArchive)):
                    break
        return None

    async def _with_commit(self, archive: Archive, copies: Copies) -> Copies:
        """Return *copies* with the manifest of the buckets if the index left out the commit."""
        proof = copies.manifest.proof
        if proof is None or proof.commit:
            return copies
        return (await self._storage.find(archive)).copies or copies

    async def _store(
        self,
        archive: Archive,
        output: Output,
        attempt: Attempt,
        progress: Progress,
        found: StoredState,
    ) -> Copies:
        async with aclosing(output.stream.chunks()) as chunks:
            upload = await self._storage.upload(
                archive,
                chunks,
                attempt=attempt.id,
                avoid=found.unreachable,
                restore=found.dangling_manifest,
            )
        for region, exc in upload.failures.items():
            log.warning("upload.failed", region=region, key=archive.key, **exc.log_fields)
        verified = output.stream.verified
        progress.report(Phase.COMMITTING, verified.size_bytes)
        return await self._storage.commit(
            Commit(
                archive=archive,
                upload=upload,
                verified=verified,
                source_url=output.source_url,
                completeness=output.completeness,
                conversion=output.conversion,
                proof=output.proof,
            ),
            prove_lease=attempt.prove_lease,
        )


def _may_hide_parts(manifest: Manifest) -> bool:
    """Return whether some clients may not know of all files: see ``Stream.shows_progress``."""
    return bool(manifest.proof and manifest.proof.parts)
