"""The parts that web processes and workers share."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from archiver import __version__
from archiver.breaker import BreakerName
from archiver.formats.convert import ProcessConverter
from archiver.guard import Guard
from archiver.guarded_source import GuardedSeats, GuardedSource
from archiver.health import health_of_breakers
from archiver.jetstream.connection import Connection
from archiver.jetstream.counters import JetStreamCounters
from archiver.jetstream.feed import relay
from archiver.jetstream.fleet import JetStreamFleet
from archiver.jetstream.index import JetStreamIndex
from archiver.jetstream.last_uses import JetStreamLastUses
from archiver.jetstream.queue_gauges import QueueGauges
from archiver.jetstream.repair_list import JetStreamRepairList
from archiver.jetstream.schedule import JetStreamSchedule
from archiver.jetstream.stock_book import JetStreamStockBook
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.jetstream.worker_reports import Reporter
from archiver.limiter import Limiter
from archiver.region_answers import RegionAnswers
from archiver.runtime.notifications import Notifications
from archiver.runtime.tasks import in_background
from archiver.service import Archiver
from archiver.settings import Settings, nearest_regions
from archiver.sources.git.lfs.cache import LfsCache
from archiver.sources.git.mirrors import Mirrors
from archiver.storage.regional_storage import RegionalStorage
from archiver.telemetry import METRICS
from archiver.upkeep.background import recheck_and_restore
from archiver.upkeep.region_probe import probe_regions
from archiver.upkeep.vital_signs import VitalSigns
from archiver.wiring import adapters
from archiver.wiring.breakers import create_guard
from archiver.worker.activity import Activity


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    archiver: Archiver
    connection: Connection
    queue: JetStreamTaskQueue
    index: JetStreamIndex
    repairs: JetStreamRepairList
    storage: RegionalStorage
    mirrors: Mirrors | None
    lfs_cache: LfsCache | None
    uses: JetStreamLastUses
    guard: Guard
    stock_book: JetStreamStockBook


@asynccontextmanager
async def open_parts(
    settings: Settings, *, process: str, activity: Activity | None = None
) -> AsyncIterator[Parts]:
    """Yield the connected parts, those of a worker with its *activity*.

    Servers that do not respond yet are connected later.
    """
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(adapters.open_regions(settings))
        is_worker = activity is not None
        reporter = Reporter(storage=storage, activity=activity)
        connection = await stack.enter_async_context(
            adapters.connect_engine(
                settings,
                process=process,
                report=reporter.answer if is_worker else None,
                drains=(reporter.name, reporter.obey) if is_worker else None,
            )
        )
        mirrors = adapters.create_mirrors(settings) if is_worker else None
        lfs_cache = adapters.create_lfs_cache(settings) if is_worker else None
        if mirrors and lfs_cache:
            mirrors.free_elsewhere, lfs_cache.free_elsewhere = lfs_cache.free, mirrors.free
        breakers, guard = create_guard(settings, connection)
        answers = RegionAnswers(guard)
        storage.answers.add(answers.note)
        seats = GuardedSeats(adapters.create_seats(settings, connection), guard)
        sources = await stack.enter_async_context(
            adapters.open_sources(
                settings, mirrors=mirrors, lfs_cache=lfs_cache, take_seat=seats.take
            )
        )
        queue = JetStreamTaskQueue(connection=connection)
        repairs = JetStreamRepairList(connection=connection)
        index = JetStreamIndex(
            connection=connection,
            storage=storage,
            recheck_after=timedelta(seconds=settings.server.recheck_s),
        )
        upkeep = recheck_and_restore(
            entries=index,
            storage=storage,
            repairs=repairs,
            queue=queue,
            events=queue,
            lease=settings.engine.lease,
        )
        await stack.enter_async_context(upkeep)
        fleet = JetStreamFleet(connection=connection)
        stock_book = JetStreamStockBook(connection=connection)
        vital_signs = VitalSigns(
            fleet=fleet, storage=storage, stock_book=stock_book, process=process
        )
        await stack.enter_async_context(
            in_background(
                breakers.keep_current(),
                guard.keep_measuring(),
                answers.keep_counting(),
                vital_signs.keep_measuring(),
                QueueGauges(connection=connection, sources=settings.sources).keep_measuring(),
                probe_regions(
                    storage=storage,
                    answers=answers,
                    schedule=JetStreamSchedule(connection=connection),
                ),
            )
        )
        notifications = Notifications()
        guard.changes.add(partial(_forget_redirects, notifications))
        relay(connection.feed, notifications)
        archiver = Archiver(
            sources={name: GuardedSource(each, guard) for name, each in sources.items()},
            storage=storage,
            index=index,
            queue=queue,
            repairs=repairs,
            fleet=fleet,
            verify=stack.enter_context(adapters.open_verifier(settings)),
            converter=ProcessConverter(
                workspace=adapters.create_workspace(settings),
                threads=settings.worker.compression_threads,
            ),
            notifications=notifications,
            nearest=nearest_regions(settings),
            limiter=Limiter(
                limits=adapters.client_limits(settings),
                counters=JetStreamCounters(connection=connection),
            ),
            avoids=guard.avoids if settings.server.avoid_failing_regions else lambda _: False,
            breaker_health=lambda: health_of_breakers(guard.not_closed()),
        )
        METRICS.build_info.labels(version=__version__).set(1)
        yield Parts(
            archiver=archiver,
            connection=connection,
            queue=queue,
            index=index,
            repairs=repairs,
            storage=storage,
            mirrors=mirrors,
            lfs_cache=lfs_cache,
            uses=JetStreamLastUses(connection=connection),
            guard=guard,
            stock_book=stock_book,
        )


def _forget_redirects(notifications: Notifications, changed: BreakerName) -> None:
    """Forget remembered responses: they lead to regions that were chosen before."""
    if changed.kind == "region":
        notifications.changes.notify(None)
