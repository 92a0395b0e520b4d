"""The index is rebuilt from the manifests, beside a working fleet."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from archiver.errors import EngineUnavailable, StorageUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.index import JetStreamIndex
from archiver.jetstream.index_store import JetStreamIndexStore
from archiver.jetstream.link import Servers
from archiver.jetstream.streams import DIGESTS, INDEX
from archiver.model import Archive, Copies, Region
from archiver.ports.storage import StoredState
from archiver.testing import MemoryStorage
from archiver.upkeep.rebuild import Rebuilder, Tally
from tests.parts.fleet import (
    HUNG_AFTER_S,
    PATIENT,
    Fleet,
    a_proven_archive,
    an_archive,
    copies_of,
    delete,
    proven_copies,
)
from tests.parts.process import free_port

ONE, TWO = Region("one"), Region("two")


class _Storage(MemoryStorage):
    """``after_find`` runs between the answer and its use."""

    def __init__(self) -> None:
        super().__init__(regions=(ONE, TWO))
        self.after_find: Callable[[Archive], Awaitable[None]] | None = None

    def commit_to(self, *regions: Region, source: str = "hgmo") -> tuple[Archive, Copies]:
        archive = an_archive(source)
        copies = copies_of(archive, *regions, sha256=secrets.token_hex(32))
        self.add(archive, copies)
        return archive, copies

    def add(self, archive: Archive, copies: Copies) -> None:
        for region in copies.regions:
            self.manifests[region][archive.key] = copies.manifest
            self.objects[region][copies.manifest.object_key] = bytes(copies.manifest.size_bytes)

    def take_away(self, archive: Archive) -> None:
        for manifests in self.manifests.values():
            manifests.pop(archive.key, None)

    async def find(self, archive: Archive) -> StoredState:
        found = await super().find(archive)
        if self.after_find:
            await self.after_find(archive)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The ``index`` of a web process, which another process rebuilds."""

    fleet: Fleet
    storage: _Storage
    connection: Connection
    index: JetStreamIndex

    async def rebuild(self, source: str | None = None) -> Tally:
        async with self.fleet.connection() as connection:
            store = JetStreamIndexStore(connection=connection, storage=self.storage)
            rebuilder = Rebuilder(
                store=store, storage=self.storage, on_progress=lambda _tally: None
            )
            return await rebuilder.rebuild(source)

    async def stored(self, archive: Archive) -> Copies | None:
        """Return the copies that the index has, without the buckets."""
        index = JetStreamIndex(
            connection=self.connection,
            storage=MemoryStorage(regions=(ONE, TWO)),
            hedge_after=PATIENT,
        )
        return await index.copies(archive)


@asynccontextmanager
async def bench_of(fleet: Fleet) -> AsyncIterator[Bench]:
    storage = _Storage()
    async with fleet.connection() as connection:
        index = JetStreamIndex(connection=connection, storage=storage, hedge_after=PATIENT)
        yield Bench(fleet=fleet, storage=storage, connection=connection, index=index)


Play = Callable[[Bench], Awaitable[None]]


def play(fleet: Fleet, scenario: Play) -> None:
    async def run() -> None:
        async with bench_of(fleet) as bench:
            await scenario(bench)

    asyncio.run(run())


def counts(tally: Tally) -> tuple[int, int, int, int]:
    return tally.listed, tally.written, tally.kept, tally.dropped


def test_after_a_wipe_every_archive_is_indexed_and_found_by_its_sha256(
    fleet: Fleet,
) -> None:
    async def scenario(bench: Bench) -> None:
        held = [(ONE, TWO)] * 200 + [(ONE,), (TWO,)]
        archives = dict(bench.storage.commit_to(*regions) for regions in held)
        tally = await bench.rebuild()
        assert counts(tally) == (202, 202, 0, 0)
        assert tally.complete
        for archive, copies in archives.items():
            assert await bench.stored(archive) == copies
            assert await bench.index.by_sha256(copies.manifest.sha256) == (archive,)

    play(fleet, scenario)


def test_a_second_rebuild_changes_nothing(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        recorded, copies = bench.storage.commit_to(ONE, TWO)
        bench.storage.commit_to(ONE)
        await bench.index.record(recorded, copies)
        assert counts(await bench.rebuild()) == (2, 1, 1, 0)
        assert counts(await bench.rebuild()) == (2, 0, 2, 0)

    play(fleet, scenario)


def test_an_entry_without_the_commit_of_a_proof_is_right(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        archive, proof = a_proven_archive()
        copies = proven_copies(archive, proof, ONE, TWO)
        bench.storage.add(archive, copies)
        assert counts(await bench.rebuild()) == (1, 1, 0, 0)
        assert counts(await bench.rebuild()) == (1, 0, 1, 0)
        assert await bench.stored(archive) == copies

    play(fleet, scenario)


def test_wrong_entries_are_replaced_and_every_process_is_notified(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        archive, both = bench.storage.commit_to(ONE, TWO)
        await bench.index.record(archive, replace(both, regions=(TWO,)))
        assert await bench.index.copies(archive) != both
        assert counts(await bench.rebuild()) == (1, 1, 0, 0)
        async with asyncio.timeout(HUNG_AFTER_S):
            while await bench.index.copies(archive) != both:
                await asyncio.sleep(0.005)

    play(fleet, scenario)


def test_a_deleted_entry_is_written_again(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        archive, copies = bench.storage.commit_to(ONE, TWO)
        await bench.index.record(archive, copies)
        await delete(bench.connection, INDEX, archive.key_hash)
        assert counts(await bench.rebuild("hgmo")) == (1, 1, 0, 0)
        assert await bench.stored(archive) == copies

    play(fleet, scenario)


def test_a_missing_sha256_is_added_to_a_correct_index(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        archive, copies = bench.storage.commit_to(ONE, TWO)
        await bench.index.record(archive, copies)
        await bench.connection.link.js.delete_stream(f"KV_{fleet.namespace}_{DIGESTS}")
        assert counts(await bench.rebuild()) == (1, 1, 0, 0)
        assert await bench.index.by_sha256(copies.manifest.sha256) == (archive,)

    play(fleet, scenario)


def test_archives_that_no_region_has_are_dropped(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        gone, was = bench.storage.commit_to(ONE, TWO)
        twin, _ = bench.storage.commit_to(ONE, TWO)
        same = copies_of(twin, ONE, TWO, sha256=was.manifest.sha256)
        for region in (ONE, TWO):
            bench.storage.manifests[region][twin.key] = same.manifest
        await bench.index.record(twin, same)
        await bench.index.record(gone, was)
        bench.storage.take_away(gone)
        assert counts(await bench.rebuild()) == (1, 0, 1, 1)
        assert await bench.connection.kv.get(INDEX, gone.key_hash) is None
        async with asyncio.timeout(HUNG_AFTER_S):
            while await bench.index.copies(gone):
                await asyncio.sleep(0.005)
        assert await bench.index.by_sha256(was.manifest.sha256) == (twin,)

    play(fleet, scenario)


def test_the_former_sha256_of_a_rebuilt_archive_is_dropped(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        archive, anew = bench.storage.commit_to(ONE, TWO)
        await bench.index.record(archive, copies_of(archive, ONE, TWO, sha256="d" * 64))
        assert counts(await bench.rebuild()) == (1, 1, 0, 1)
        assert await bench.connection.kv.keys(DIGESTS, f"{'d' * 64}.*") == []
        assert await bench.index.by_sha256(anew.manifest.sha256) == (archive,)

    play(fleet, scenario)


def test_a_silent_region_removes_no_entry(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        archive, copies = bench.storage.commit_to(ONE, TWO)
        fresh, _ = bench.storage.commit_to(ONE, TWO)
        far, only = bench.storage.commit_to(TWO)
        await bench.index.record(archive, copies)
        await bench.index.record(far, only)
        bench.storage.down.add(TWO)
        tally = await bench.rebuild()
        assert counts(tally) == (2, 1, 1, 0)
        assert (tally.complete, tally.silent, tally.unread) == (False, [TWO], 2)
        assert await bench.stored(archive) == copies
        assert await bench.stored(far) == only
        known = await bench.stored(fresh)
        assert known
        assert known.regions == (ONE,)

    play(fleet, scenario)


def test_a_commit_during_the_rebuild_is_not_overwritten(
    fleet: Fleet,
) -> None:
    async def scenario(bench: Bench) -> None:
        archive, one = bench.storage.commit_to(ONE)
        both = replace(one, regions=(ONE, TWO))

        async def repair(_archive: Archive) -> None:
            bench.storage.after_find = None
            await bench.index.record(archive, both)

        bench.storage.after_find = repair
        assert counts(await bench.rebuild()) == (1, 0, 1, 0)
        assert await bench.stored(archive) == both

    play(fleet, scenario)


def test_an_archive_committed_again_during_the_rebuild_is_not_dropped(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        archive, copies = bench.storage.commit_to(ONE, TWO)
        await bench.index.record(archive, copies)
        bench.storage.take_away(archive)

        async def build_again(_archive: Archive) -> None:
            await bench.index.record(archive, copies)

        bench.storage.after_find = build_again
        await bench.rebuild()
        assert await bench.stored(archive) == copies
        assert await bench.index.by_sha256(copies.manifest.sha256) == (archive,)

    play(fleet, scenario)


def test_a_rebuild_of_one_source_leaves_the_others_alone(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        theirs, _ = bench.storage.commit_to(ONE, TWO, source="other")
        gone, was = bench.storage.commit_to(ONE, TWO, source="other")
        await bench.index.record(gone, was)
        bench.storage.take_away(gone)
        ours, copies = bench.storage.commit_to(ONE, TWO)
        assert counts(await bench.rebuild("hgmo")) == (1, 1, 0, 0)
        assert await bench.stored(ours) == copies
        assert await bench.stored(theirs) is None
        assert await bench.stored(gone) == was
        assert await bench.connection.kv.keys(DIGESTS, f"{was.manifest.sha256}.*")

    play(fleet, scenario)


def test_unreadable_entries_do_no_harm(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        archive, copies = bench.storage.commit_to(ONE, TWO)
        await bench.connection.kv.put(INDEX, archive.key_hash, b"?")
        await bench.connection.kv.put(INDEX, "0" * 64, b"?")
        await bench.connection.kv.put(DIGESTS, f"{'0' * 64}.{'0' * 64}", b"\xff")
        assert counts(await bench.rebuild()) == (1, 1, 0, 1)
        assert await bench.stored(archive) == copies

    play(fleet, scenario)


def test_without_any_region_nothing_is_rebuilt(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        bench.storage.down.update((ONE, TWO))
        with pytest.raises(StorageUnavailable):
            await bench.rebuild()

    play(fleet, scenario)


@pytest.mark.thorough
def test_without_an_engine_nothing_is_rebuilt(namespace: str) -> None:
    fleet = Fleet(servers=Servers(urls=[f"nats://127.0.0.1:{free_port()}"]), namespace=namespace)

    async def scenario(bench: Bench) -> None:
        with pytest.raises(EngineUnavailable):
            await bench.rebuild()

    play(fleet, scenario)


def test_a_bucket_of_any_size_is_read_completely(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        connection = bench.connection
        await connection.streams.ensure()
        assert [key async for key, _ in connection.kv.entries(INDEX)] == []
        for number in range(1203):
            await connection.kv.put(INDEX, str(number), b"x")
        await delete(connection, INDEX, "7")
        found = {key: entry.value async for key, entry in connection.kv.entries(INDEX)}
        assert found.keys() == {str(number) for number in range(1203)}
        assert [key for key, value in found.items() if not value] == ["7"]

    play(fleet, scenario)


def test_a_purge_spares_newer_entries(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        connection = bench.connection
        await connection.kv.put(INDEX, "k", b"old")
        old = await connection.kv.get(INDEX, "k")
        assert old
        await connection.kv.put(INDEX, "k", b"new")
        await connection.kv.purge(INDEX, "k", revision=old.revision)
        new = await connection.kv.get(INDEX, "k")
        assert new
        assert new.value == b"new"
        await connection.kv.purge(INDEX, "k", revision=new.revision)
        assert await connection.kv.get(INDEX, "k") is None

    play(fleet, scenario)
