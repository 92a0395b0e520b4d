"""Compares the manifests and objects of one archive in all regions."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from archiver.errors import PurgeUnfinished, StorageUnavailable, UnreadableManifest
from archiver.model import Copies, Manifest, Region
from archiver.ports.bucket_contents import BucketContents
from archiver.ports.storage import Storage, StoredState
from archiver.upkeep.defect import Defect, DefectKind
from archiver.upkeep.inventory import Listed

SETTLING = timedelta(seconds=10)
"""How long a commit may take to reach all regions and the index."""

Answer: TypeAlias = Manifest | StorageUnavailable | None

NO_MANIFEST = (PurgeUnfinished, UnreadableManifest)
"""Errors about an object in a manifest's place, from a region that answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The result of a check.

    ``copies`` is None if no region has the archive, or if that is uncertain. ``named`` are the keys
    of the objects that manifests name, or None if not all manifests could be read. ``answered`` is
    false if some region did not answer for this archive.
    """

    named: frozenset[str] | None
    copies: Copies | None = None
    defects: Sequence[Defect] = ()
    answered: bool = True


class ArchiveCheck:
    """Reads every manifest. The listings may be minutes old, so a new look confirms each defect."""

    def __init__(
        self, *, storage: Storage, contents: BucketContents, settling: timedelta = SETTLING
    ) -> None:
        self._storage = storage
        self._contents = contents
        self._settling = settling

    async def check(self, listed: Listed) -> Checked:
        """Return the defects of manifests and of the objects that they name."""
        answers = await self._read_manifests(listed)
        manifests = [each for each in answers.values() if isinstance(each, Manifest)]
        complete = len(manifests) == len(answers)
        named = frozenset(each.object_key for each in manifests) if complete else None
        if not answers:
            return Checked(named=named)
        if self._agree(listed, answers):
            copies = Copies(manifest=manifests[0], regions=self._storage.regions)
            return Checked(named=named, copies=copies)
        for manifest in manifests:
            await self.settle(manifest)
        return await self._confirm(listed, answers, named)

    async def settle(self, manifest: Manifest) -> None:
        """Wait until the commit of *manifest* has certainly ended."""
        age = datetime.now(UTC) - manifest.created_at
        left = self._settling - max(timedelta(0), age)  # a manifest may be of any year
        await asyncio.sleep(max(timedelta(0), left).total_seconds())

    async def _read_manifests(self, listed: Listed) -> dict[Region, Answer]:
        async def read(region: Region) -> Answer:
            try:
                return await self._contents.read_manifest(region, listed.archive)
            except StorageUnavailable as exc:
                return exc

        regions = [region for region in self._storage.regions if region in listed.manifests]
        return dict(zip(regions, await asyncio.gather(*map(read, regions)), strict=True))

    def _agree(self, listed: Listed, answers: Mapping[Region, Answer]) -> bool:
        """Return whether all regions have the same manifest, and its object with its size."""
        first = answers.get(self._storage.regions[0])
        return isinstance(first, Manifest) and all(
            answers.get(region) == first and _size(listed, region, first) == first.size_bytes
            for region in self._storage.regions
        )

    async def _confirm(
        self, listed: Listed, answers: Mapping[Region, Answer], named: frozenset[str] | None
    ) -> Checked:
        unreadable = [r for r, each in answers.items() if isinstance(each, NO_MANIFEST)]
        defects = [_unreadable(listed, region, answers[region]) for region in unreadable]
        try:
            found = await self._storage.find(listed.archive)
        except StorageUnavailable as exc:
            return Checked(named=named, defects=defects, answered=isinstance(exc, NO_MANIFEST))
        silent = set(found.unreachable).difference(unreadable)
        return Checked(
            named=named,
            copies=None if silent or unreadable else found.copies,
            defects=[*defects, *self._differences(listed, answers, found)],
            answered=not silent,
        )

    def _differences(
        self, listed: Listed, answers: Mapping[Region, Answer], found: StoredState
    ) -> Iterator[Defect]:
        """Yield the defects of regions that have no copy, according to *found*."""
        reference = found.copies.manifest if found.copies else found.dangling_manifest
        complete = found.copies.regions if found.copies else ()
        for region in self._storage.regions:
            manifest = answers.get(region)
            settled = region in complete or region in found.unreachable
            if reference is None or settled or isinstance(manifest, StorageUnavailable):
                continue
            if manifest is None:
                if found.copies:
                    yield _defect(DefectKind.UNCOPIED, listed, region, reference)
            elif manifest != reference:
                yield _defect(DefectKind.DIFFERING, listed, region, manifest)
            else:
                size_bytes = _size(listed, region, manifest)
                intact = size_bytes in {None, manifest.size_bytes}
                kind = DefectKind.MISSING if intact else DefectKind.DAMAGED
                yield _defect(kind, listed, region, manifest)


def _size(listed: Listed, region: Region, manifest: Manifest) -> int | None:
    """Return the size of the object that *manifest* names, or None if it is not listed."""
    objects = listed.objects.get(region, ())
    sizes = (each.size_bytes for each in objects if each.object_key == manifest.object_key)
    return next(sizes, None)


def _unreadable(listed: Listed, region: Region, answer: Answer) -> Defect:
    stored = listed.manifests[region]
    is_mark = isinstance(answer, PurgeUnfinished)
    return Defect(
        kind=DefectKind.PURGING if is_mark else DefectKind.UNREADABLE,
        key=stored.object_key,
        region=region,
        size_bytes=stored.size_bytes,
        archive=listed.archive,
    )


def _defect(kind: DefectKind, listed: Listed, region: Region, manifest: Manifest) -> Defect:
    return Defect(
        kind=kind,
        key=manifest.object_key,
        region=region,
        size_bytes=manifest.size_bytes,
        archive=listed.archive,
    )
