"""Starts the background work of a process: the one place that does."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from archiver.ports.bucket_contents import BucketContents
from archiver.ports.index_entries import IndexEntries
from archiver.ports.last_uses import LastUses
from archiver.ports.queue import RepairList, TaskEvents, TaskQueue
from archiver.ports.schedule import Schedule
from archiver.ports.stock import StockBook
from archiver.ports.storage import Storage
from archiver.prewarm.rules import PrewarmRule
from archiver.runtime.notifications import Subscribers
from archiver.runtime.tasks import in_background
from archiver.upkeep.collector import Collector
from archiver.upkeep.expiry import Expirer
from archiver.upkeep.gc import Gc
from archiver.upkeep.poll import Poller, Prewarm
from archiver.upkeep.recheck import Rechecker
from archiver.upkeep.repair import Repairer
from archiver.upkeep.restore import Restorer
from archiver.upkeep.sweep import Sweeper
from archiver.upkeep.use_recorder import UseRecorder


@asynccontextmanager
async def recheck_and_restore(
    *,
    entries: IndexEntries,
    storage: Storage,
    repairs: RepairList,
    queue: TaskQueue,
    events: TaskEvents,
    lease: timedelta,
) -> AsyncIterator[None]:
    """Recheck indexed copies and restore lost tasks while the block runs, in every process."""
    rechecker = Rechecker(entries=entries, storage=storage, repairs=repairs)
    restorer = Restorer(queue=queue, events=events, lease=lease)
    async with in_background(rechecker.recheck_scheduled(), restorer.restore_after_outages()):
        yield


@asynccontextmanager
async def repair_copies(
    *, repairs: RepairList, queue: TaskQueue, storage: Storage, interval: timedelta
) -> AsyncIterator[None]:
    """Create the tasks for missing copies while the block runs, in every worker."""
    repairer = Repairer(repairs=repairs, queue=queue, storage=storage, interval=interval)
    async with in_background(repairer.keep_sweeping()):
        yield


@asynccontextmanager
async def record_uses(hits: Subscribers[[str]], uses: LastUses) -> AsyncIterator[None]:
    """Record which archives clients are sent to while the block runs, in every web process."""
    recorder = UseRecorder(uses=uses)
    hits.add(recorder.note)
    async with in_background(recorder.record_regularly()):
        yield


@asynccontextmanager
async def sweep_buckets(
    *,
    storage: Storage,
    contents: BucketContents,
    schedule: Schedule,
    stock_book: StockBook,
    expirer: Expirer,
    interval: timedelta,
    min_age: timedelta,
) -> AsyncIterator[None]:
    """Sweep the buckets while the block runs, in every worker; not at all with *interval* 0."""
    sweeper = Sweeper(
        storage=storage,
        contents=contents,
        schedule=schedule,
        stock_book=stock_book,
        expirer=expirer,
        interval=interval,
        min_age=min_age,
    )
    async with in_background(*([sweeper.keep_sweeping()] if interval else [])):
        yield


@asynccontextmanager
async def poll_branches(
    *, rules: Sequence[PrewarmRule], prewarm: Prewarm, schedule: Schedule
) -> AsyncIterator[None]:
    """Poll the branches of *rules* that say so while the block runs, in every worker."""
    pollers = [Poller(rule=rule, prewarm=prewarm, schedule=schedule) for rule in rules if rule.poll]
    async with in_background(*(poller.keep_polling() for poller in pollers)):
        yield


@asynccontextmanager
async def expire_archives(
    *, new_gc: Callable[[], Gc], schedule: Schedule, interval: timedelta
) -> AsyncIterator[None]:
    """Run gc while the block runs, in every worker; not at all with *interval* 0."""
    collector = Collector(new_gc=new_gc, schedule=schedule, interval=interval)
    async with in_background(*([collector.keep_collecting()] if interval else [])):
        yield
