"""Reads the bytes of copies, and compares them with their manifest."""

from collections.abc import Collection, Sequence
from contextlib import aclosing

from archiver.errors import ArchiverError, CorruptArchive, StorageUnavailable
from archiver.model import Archive, Copies, Region
from archiver.ports.storage import Storage
from archiver.telemetry import log
from archiver.upkeep.defect import Defect, DefectKind


class ByteCheck:
    """Finds copies with wrong bytes, and replaces them from a region whose bytes are right."""

    def __init__(self, *, storage: Storage) -> None:
        self._storage = storage

    async def check(
        self, archive: Archive, copies: Copies, regions: Collection[Region], *, repair: bool
    ) -> tuple[Sequence[Defect], bool]:
        """Return the defects of the copies in *regions*, and whether all of them were read."""
        damaged, answered = [], True
        for region in regions:
            try:
                await self._read(copies, region)
            except CorruptArchive:
                damaged.append(region)
            except StorageUnavailable:
                answered = False
        sound = tuple(region for region in copies.regions if region not in damaged)
        defects = [
            Defect(
                kind=DefectKind.DAMAGED,
                key=copies.manifest.object_key,
                region=region,
                size_bytes=copies.manifest.size_bytes,
                archive=archive,
                repaired=repair and await self._replace(archive, copies, sound, region),
            )
            for region in damaged
        ]
        return defects, answered

    async def _read(self, copies: Copies, region: Region) -> None:
        async with aclosing(self._storage.read_copy(copies, region)) as chunks:
            async for _ in chunks:
                pass

    async def _replace(
        self, archive: Archive, copies: Copies, sound: tuple[Region, ...], region: Region
    ) -> bool:
        """Copy the archive over the damaged copy in *region*. Without sound bytes, it stays."""
        if not sound:
            return False
        source = Copies(manifest=copies.manifest, regions=sound)
        try:
            await self._storage.copy(archive, source, region)
        except ArchiverError as exc:
            log.warning("copy.failed", region=region, key=archive.key, **exc.log_fields)
            return False
        return True
