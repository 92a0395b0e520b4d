"""Puts together what the commands for operators need."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from archiver.formats.convert import ProcessConverter
from archiver.formats.inventory import open_inventory
from archiver.jetstream.feed import relay
from archiver.jetstream.fleet import JetStreamFleet
from archiver.jetstream.index import JetStreamIndex
from archiver.jetstream.index_store import JetStreamIndexStore
from archiver.jetstream.last_uses import JetStreamLastUses
from archiver.jetstream.repair_list import JetStreamRepairList
from archiver.jetstream.replication import Replication
from archiver.jetstream.schedule import JetStreamSchedule
from archiver.jetstream.task_list import JetStreamTaskList
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.pins import Pins
from archiver.purge import Purger
from archiver.runtime.notifications import Notifications
from archiver.settings import Settings
from archiver.upkeep.audit import Auditor
from archiver.upkeep.catalogue import Catalogue
from archiver.upkeep.census import Census
from archiver.upkeep.collector import exclusive
from archiver.upkeep.copying import Copying
from archiver.upkeep.drain import Drainer, OnChange
from archiver.upkeep.fill import Filler
from archiver.upkeep.filled import Filled
from archiver.upkeep.filled import Tally as FillTally
from archiver.upkeep.fsck import Fsck, Tally
from archiver.upkeep.gc import Gc, GcTally
from archiver.upkeep.known_uses import KnownUses, read_uses
from archiver.upkeep.periodic import Periodic
from archiver.upkeep.rebuild import OnProgress, Rebuilder
from archiver.wiring import adapters
from archiver.wiring.housekeeping import create_expirer, create_gc


@asynccontextmanager
async def open_auditor(settings: Settings) -> AsyncIterator[Auditor]:
    """Yield an auditor, which needs the regions and the sources, but no engine."""
    workspace = adapters.create_workspace(settings)
    async with (
        adapters.open_regions(settings) as storage,
        adapters.open_sources(
            settings,
            mirrors=adapters.create_mirrors(settings),
            lfs_cache=adapters.create_lfs_cache(settings),
        ) as sources,
    ):
        with adapters.open_verifier(settings) as verify:
            yield Auditor(
                sources=sources,
                storage=storage,
                verify=verify,
                converter=ProcessConverter(
                    workspace=workspace, threads=settings.worker.compression_threads
                ),
                keep=partial(open_inventory, workspace=workspace),
            )


@asynccontextmanager
async def open_rebuilder(
    settings: Settings, *, on_progress: OnProgress
) -> AsyncIterator[Rebuilder]:
    """Yield a rebuilder of the index, which needs the engine and the regions, but no source."""
    async with (
        adapters.open_regions(settings) as storage,
        adapters.connect_engine(settings, process="index") as connection,
    ):
        store = JetStreamIndexStore(connection=connection, storage=storage)
        yield Rebuilder(store=store, storage=storage, on_progress=on_progress)


@asynccontextmanager
async def open_pins(settings: Settings) -> AsyncIterator[Pins]:
    """Yield the pins, which need the regions, but neither engine nor source."""
    async with adapters.open_regions(settings) as storage:
        yield Pins(storage=storage)


@asynccontextmanager
async def open_purger(settings: Settings) -> AsyncIterator[Purger]:
    """Yield a purger, which needs the engine and the regions, but no source."""
    async with (
        adapters.open_regions(settings) as storage,
        adapters.connect_engine(settings, process="purge") as connection,
    ):
        yield Purger(
            storage=storage,
            index=JetStreamIndex(connection=connection, storage=storage),
            queue=JetStreamTaskQueue(connection=connection),
            repairs=JetStreamRepairList(connection=connection),
        )


@asynccontextmanager
async def open_fsck(
    settings: Settings, *, on_progress: Callable[[Tally], None]
) -> AsyncIterator[Fsck]:
    """Yield a check of the buckets, which needs the engine and the regions, but no source."""
    async with (
        adapters.open_regions(settings) as storage,
        adapters.connect_engine(settings, process="fsck") as connection,
    ):
        yield Fsck(
            storage=storage,
            contents=storage.contents,
            store=JetStreamIndexStore(connection=connection, storage=storage),
            repairs=JetStreamRepairList(connection=connection),
            min_age=settings.leftover_age,
            on_progress=on_progress,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GcTools:
    """A run of gc, and what lets only one run go on at a time."""

    gc: Gc
    exclusive: Periodic


@asynccontextmanager
async def open_gc(
    settings: Settings, *, on_progress: Callable[[GcTally], None]
) -> AsyncIterator[GcTools]:
    """Yield a run of gc, which needs the engine and the regions, but no source."""
    async with (
        adapters.open_regions(settings) as storage,
        adapters.connect_engine(settings, process="gc") as connection,
    ):
        expirer = create_expirer(
            settings,
            storage=storage,
            index=JetStreamIndex(connection=connection, storage=storage),
            queue=JetStreamTaskQueue(connection=connection),
            repairs=JetStreamRepairList(connection=connection),
        )
        await connection.streams.ensure()
        uses = JetStreamLastUses(connection=connection)
        yield GcTools(
            gc=create_gc(
                settings, storage=storage, uses=uses, expirer=expirer, on_progress=on_progress
            ),
            exclusive=exclusive(JetStreamSchedule(connection=connection)),
        )


@asynccontextmanager
async def open_filler(
    settings: Settings,
    *,
    on_filled: Callable[[Filled], None],
    on_progress: Callable[[FillTally], None],
) -> AsyncIterator[Filler]:
    """Yield what fills a region. It needs the engine and the regions, and the names of sources."""
    async with (
        adapters.open_regions(settings) as storage,
        adapters.connect_engine(settings, process="fill") as connection,
    ):
        index = JetStreamIndex(connection=connection, storage=storage)
        queue = JetStreamTaskQueue(connection=connection)
        notifications = Notifications()
        relay(connection.feed, notifications)
        copying = Copying(storage=storage, index=index, queue=queue, notifications=notifications)
        yield Filler(
            contents=storage.contents,
            copying=copying,
            sources=settings.sources,
            on_filled=on_filled,
            on_progress=on_progress,
        )


@asynccontextmanager
async def open_catalogue(
    settings: Settings, *, with_uses: bool, on_progress: Callable[[int], None]
) -> AsyncIterator[Catalogue]:
    """Yield a catalogue of the stored archives.

    It needs only the regions, unless the last uses are asked for, which the engine knows.
    """
    uses = await _read_uses(settings) if with_uses else None
    async with adapters.open_regions(settings) as storage:
        yield Catalogue(
            storage=storage, contents=storage.contents, uses=uses, on_progress=on_progress
        )


async def _read_uses(settings: Settings) -> KnownUses:
    async with adapters.connect_engine(settings, process="list") as connection:
        await connection.streams.ensure()
        uses = JetStreamLastUses(connection=connection)
        return await read_uses(uses, today=datetime.now(UTC).date())


@asynccontextmanager
async def open_census(
    settings: Settings, *, on_progress: Callable[[int], None]
) -> AsyncIterator[Census]:
    """Yield a census of the tasks, which needs only the engine."""
    async with adapters.connect_engine(settings, process="tasks") as connection:
        await connection.streams.ensure()
        yield Census(tasks=JetStreamTaskList(connection=connection), on_progress=on_progress)


@asynccontextmanager
async def open_drainer(settings: Settings, *, on_change: OnChange) -> AsyncIterator[Drainer]:
    """Yield what drains workers, which needs only the engine."""
    async with adapters.connect_engine(settings, process="drain", prepares=False) as connection:
        yield Drainer(fleet=JetStreamFleet(connection=connection), on_change=on_change)


@asynccontextmanager
async def open_replication(settings: Settings) -> AsyncIterator[Replication]:
    """Yield the streams of the fleet, which need only the engine."""
    async with adapters.connect_engine(settings, process="engine", prepares=False) as connection:
        yield Replication(connection=connection, configured_replicas=settings.engine.replicas)
