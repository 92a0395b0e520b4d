"""Compares the entries of an archive in the index with its copies."""

from archiver.model import Archive, Copies
from archiver.ports.index_entries import IndexStore
from archiver.upkeep.defect import DefectKind


class IndexCheck:
    """Finds wrong entries, and writes them as a rebuild does. Raises EngineUnavailable."""

    def __init__(self, *, store: IndexStore) -> None:
        self._store = store

    async def check(self, archive: Archive, copies: Copies) -> DefectKind | None:
        """Return the defect of the entries of *archive*, whose *copies* the regions showed."""
        entry = await self._store.read(archive.key_hash)
        by_sha256 = await self._store.read(self._sha256_key(archive, copies))
        if entry is None or by_sha256 is None:
            return DefectKind.UNINDEXED
        right = entry.fingerprint == self._store.fingerprint(copies)
        return None if right else DefectKind.MISINDEXED

    async def repair(self, archive: Archive, copies: Copies) -> bool:
        """Write the entries. Return False if another process wrote one in the meantime."""
        entry = await self._store.read(archive.key_hash)
        revision = entry.revision if entry else 0
        written = await self._store.write(archive, copies, revision=revision)
        if await self._store.read(self._sha256_key(archive, copies)) is None:
            await self._store.write_sha256(copies.manifest.sha256, archive)
        await self._store.publish_change(archive.key_hash, copies.manifest.sha256)
        return written

    def _sha256_key(self, archive: Archive, copies: Copies) -> str:
        return self._store.sha256_key(copies.manifest.sha256, archive)
