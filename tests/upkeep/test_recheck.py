"""Entries of the index whose copies were removed, on a real server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from archiver.jetstream.connection import Connection
from archiver.jetstream.index import JetStreamIndex
from archiver.jetstream.link import Servers
from archiver.jetstream.records import decode_copies
from archiver.jetstream.repair_list import JetStreamRepairList
from archiver.jetstream.streams import INDEX, REPAIRS
from archiver.model import Archive, Copies, Region
from archiver.ports.index_entries import IndexEntry
from archiver.ports.storage import StoredState
from archiver.runtime.tasks import in_background
from archiver.testing import MemoryStorage
from archiver.upkeep.recheck import CONCURRENCY, WAITING_MAX, Rechecker
from tests.jetstream.indexes import committed, write_unpublished
from tests.parts.fleet import HUNG_AFTER_S, PATIENT, Fleet, a_proven_archive, an_archive
from tests.parts.process import free_port

EAST, WEST = Region("east"), Region("west")
AT_ONCE = timedelta(0)
NEVER = timedelta(days=1)


class CountingStorage(MemoryStorage):
    """``lookups`` counts calls of ``find``, which never return while ``stuck``."""

    def __init__(self) -> None:
        super().__init__(regions=(EAST, WEST))
        self.lookups = 0
        self.stuck = False

    async def find(self, archive: Archive) -> StoredState:
        self.lookups += 1
        if self.stuck:
            await asyncio.Event().wait()
        return await super().find(archive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    connection: Connection
    index: JetStreamIndex
    rechecker: Rechecker


@asynccontextmanager
async def a_process(
    fleet: Fleet, storage: MemoryStorage, recheck_after: timedelta = AT_ONCE
) -> AsyncIterator[Process]:
    async with fleet.connection() as connection:
        index = JetStreamIndex(
            connection=connection, storage=storage, recheck_after=recheck_after, hedge_after=PATIENT
        )
        repairs = JetStreamRepairList(connection=connection)
        rechecker = Rechecker(entries=index, storage=storage, repairs=repairs)
        yield Process(connection=connection, index=index, rechecker=rechecker)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(HUNG_AFTER_S):
        while not await true():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("lost", ("objects", "manifests"))
def test_a_missing_copy_is_removed_everywhere_and_listed_for_repair(
    fleet: Fleet, lost: str
) -> None:
    async def play() -> None:
        storage, archive = CountingStorage(), an_archive()
        async with a_process(fleet, storage) as one, a_process(fleet, storage, NEVER) as two:
            both = await committed(storage, archive)
            await one.index.record(archive, both)
            assert await two.index.copies(archive) == both
            getattr(storage, lost)[WEST].clear()
            left = Copies(manifest=both.manifest, regions=(EAST,))

            async def known_and_noted() -> bool:
                if not await one.index.copies(archive) == await two.index.copies(archive) == left:
                    return False
                return await one.connection.kv.get(REPAIRS, archive.key_hash) is not None

            with capture_logs() as logs:
                async with in_background(one.rechecker.recheck_scheduled()):
                    assert await one.index.copies(archive) == both
                    await until(known_and_noted)
            assert [line["region"] for line in logs if line["event"] == "copy.gone"] == [WEST]

    asyncio.run(play())


def test_an_archive_that_every_region_lost_is_absent(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = CountingStorage(), an_archive()
        async with a_process(fleet, storage) as one, a_process(fleet, storage, NEVER) as two:
            await one.index.record(archive, await committed(storage, archive))
            assert await two.index.copies(archive)
            for region in storage.regions:
                storage.objects[region].clear()
            await one.rechecker.recheck(archive)

            async def both_know() -> bool:
                return await one.index.copies(archive) is await two.index.copies(archive) is None

            await until(both_know)

    asyncio.run(play())


def test_a_sound_entry_is_rechecked_once_in_the_fleet(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = CountingStorage(), an_archive()
        copies = await committed(storage, archive)
        async with (
            a_process(fleet, storage, timedelta(hours=1)) as one,
            a_process(fleet, storage, timedelta(hours=1)) as two,
        ):
            await write_unpublished(one.connection, archive, copies, age=timedelta(hours=2))
            assert await one.index.copies(archive) == await two.index.copies(archive) == copies
            await one.rechecker.recheck(archive)
            await two.rechecker.recheck(archive)
            assert await one.index.copies(archive) == await two.index.copies(archive) == copies
        assert storage.lookups == 1

    asyncio.run(play())


def test_an_entry_without_the_commit_of_a_proof_is_sound(fleet: Fleet) -> None:
    async def play() -> None:
        storage = CountingStorage()
        archive, proof = a_proven_archive()
        async with a_process(fleet, storage) as process:
            copies = await committed(storage, archive, proof)
            await process.index.record(archive, copies)
            found = await process.index.copies(archive)
            assert found == copies
            assert found.manifest.proof
            assert not found.manifest.proof.commit
            with capture_logs() as logs:
                await process.rechecker.recheck(archive)
            assert storage.lookups == 1
            assert not [line for line in logs if line["event"] == "copy.gone"]
            assert await process.index.copies(archive) == copies
            stored = [manifests[archive.key].proof for manifests in storage.manifests.values()]
            assert [each and each.commit for each in stored] == [proof.commit] * 2

    asyncio.run(play())


def test_a_region_that_does_not_answer_keeps_its_copy(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = CountingStorage(), an_archive()
        async with a_process(fleet, storage) as process:
            both = await committed(storage, archive)
            await process.index.record(archive, both)
            storage.objects[WEST].clear()
            storage.down.add(WEST)
            await process.rechecker.recheck(archive)
            assert await process.index.copies(archive) == both
            storage.objects[EAST].clear()
            await process.rechecker.recheck(archive)
            western = Copies(manifest=both.manifest, regions=(WEST,))
            assert await process.index.copies(archive) == western

    asyncio.run(play())


def test_a_replaced_manifest_replaces_the_entry(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = CountingStorage(), an_archive()
        async with a_process(fleet, storage) as process:
            await process.index.record(archive, await committed(storage, archive))
            for region in storage.regions:
                storage.manifests[region].clear()
            again = await committed(storage, archive)
            await process.rechecker.recheck(archive)
            assert await process.index.copies(archive) == again

    asyncio.run(play())


@dataclass(frozen=True, slots=True, kw_only=True)
class Overtaken:
    """A process that has seen an entry of *archive*, and another one has written it since."""

    process: Process
    archive: Archive
    both: Copies
    seen: IndexEntry


@asynccontextmanager
async def overtaken(fleet: Fleet) -> AsyncIterator[Overtaken]:
    storage, archive = CountingStorage(), an_archive()
    async with a_process(fleet, storage) as process, a_process(fleet, storage) as other:
        both = await committed(storage, archive)
        await process.index.record(archive, both)
        seen = await process.index.latest(archive)
        assert seen
        await other.index.record(archive, both)
        yield Overtaken(process=process, archive=archive, both=both, seen=seen)


def test_a_newer_entry_is_not_overwritten(fleet: Fleet) -> None:
    async def play() -> None:
        async with overtaken(fleet) as it:
            one, archive, both = it.process, it.archive, it.both
            western = Copies(manifest=both.manifest, regions=(WEST,))
            await one.index.replace(archive, it.seen, western)
            entry = await one.connection.kv.get(INDEX, archive.key_hash)
            assert entry
            record = decode_copies(entry.value)
            assert record
            assert record.regions == both.regions
            assert await one.index.copies(archive) == both

    asyncio.run(play())


def test_a_newer_entry_is_not_removed(fleet: Fleet) -> None:
    async def play() -> None:
        async with overtaken(fleet) as it:
            one, archive = it.process, it.archive
            await one.index.replace(archive, it.seen, None)
            assert await one.connection.kv.get(INDEX, archive.key_hash)
            seen = await one.index.latest(archive)
            assert seen
            await one.index.replace(archive, seen, None)
            assert await one.connection.kv.get(INDEX, archive.key_hash) is None

    asyncio.run(play())


def test_no_request_waits_for_a_check_and_few_run_at_a_time(fleet: Fleet) -> None:
    async def play() -> None:
        storage = CountingStorage()
        archives = [an_archive() for _ in range(30)]
        async with a_process(fleet, storage) as process:
            for archive in archives:
                await process.index.record(archive, await committed(storage, archive))
            storage.stuck = True
            async with (
                in_background(process.rechecker.recheck_scheduled()),
                asyncio.timeout(HUNG_AFTER_S),
            ):
                for _ in range(3):
                    for archive in archives:
                        assert await process.index.copies(archive)
                    await asyncio.sleep(0.05)
                while storage.lookups < CONCURRENCY:
                    await asyncio.sleep(0.005)
            assert storage.lookups == CONCURRENCY

    asyncio.run(play())


def test_an_archive_that_finds_no_room_is_checked_later(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = CountingStorage(), an_archive()
        async with a_process(fleet, storage) as process:
            await process.index.record(archive, await committed(storage, archive))
            for _ in range(WAITING_MAX):
                process.rechecker.schedule(an_archive())
            assert await process.index.copies(archive)
            async with in_background(process.rechecker.recheck_scheduled()):
                await asyncio.sleep(0.2)
                assert storage.lookups == 0
                assert await process.index.copies(archive)

                async def checked() -> bool:
                    return storage.lookups > 0

                await until(checked)

    asyncio.run(play())


def test_without_an_engine_a_process_corrects_its_own_memory(namespace: str) -> None:
    fleet = Fleet(servers=Servers(urls=[f"nats://127.0.0.1:{free_port()}"]), namespace=namespace)

    async def play() -> None:
        storage, archive = CountingStorage(), an_archive()
        both = await committed(storage, archive)
        async with a_process(fleet, storage) as process:
            assert await process.index.copies(archive) == both
            storage.objects[EAST].clear()
            await process.rechecker.recheck(archive)
            western = Copies(manifest=both.manifest, regions=(WEST,))
            assert await process.index.copies(archive) == western
            storage.objects[WEST].clear()
            await process.rechecker.recheck(archive)
            assert await process.index.copies(archive) is None

    asyncio.run(play())
