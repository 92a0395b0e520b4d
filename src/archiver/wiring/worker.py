"""Puts a worker together, and runs it."""

import asyncio
import os
import signal
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta

from archiver import __version__
from archiver.embedded.program import SUPERVISED
from archiver.errors import NoRoom
from archiver.health import Health, Heartbeat
from archiver.jetstream.fullness import Fullness
from archiver.jetstream.schedule import JetStreamSchedule
from archiver.jetstream.work_queue import open_work_queue
from archiver.model import SUFFIXES
from archiver.runtime.file_limit import raise_file_limit
from archiver.runtime.tasks import in_background
from archiver.service import Archiver
from archiver.settings import Settings
from archiver.sources.git.lfs.cache import LfsCache
from archiver.sources.git.mirrors import Mirrors
from archiver.telemetry import begin_worker_at_zero, log, set_up_logging
from archiver.telemetry.tracing_setup import sending_traces
from archiver.upkeep.background import (
    expire_archives,
    poll_branches,
    repair_copies,
    sweep_buckets,
)
from archiver.upkeep.expiry import Expirer
from archiver.wiring import adapters
from archiver.wiring.housekeeping import create_expirer, create_gc
from archiver.wiring.parts import Parts, open_parts
from archiver.wiring.prewarm import prewarm_rules
from archiver.worker.activity import Activity
from archiver.worker.worker import Policy, Worker
from archiver.worker_listener import listening

METRICS_PORTS = range(8011, 8031)
"""For the workers of one machine that have no address of their own in the settings."""


async def run_worker(settings: Settings) -> bool:
    """Run a worker until SIGTERM or SIGINT. Then finish running builds, or hand them back.

    After SIGUSR1 or an order to drain, it finishes them all. Returns whether it drained.

    Raises SettingsError, or CannotListen if `worker.metrics_listen` cannot be bound.
    """
    set_up_logging(settings.log.format, level=settings.log.level, process="worker")
    raise_file_limit()  # a build holds some files for each submodule
    activity = Activity()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, activity.stop)
    loop.add_signal_handler(signal.SIGUSR1, activity.drain)
    _warn_if_no_room(settings)
    async with (
        sending_traces(process="worker", version=__version__),
        open_parts(settings, process="worker", activity=activity) as parts,
        _listen(settings, parts.archiver, activity) as metrics,
    ):
        begin_worker_at_zero(settings.served_sources, SUFFIXES)
        log.info("worker.started", sources=sorted(settings.served_sources), metrics=metrics)
        if parts.mirrors:
            await _clean_up(parts.mirrors)
        if parts.lfs_cache:
            await _clean_up(parts.lfs_cache)
        await _work(settings, parts, activity)
    log.info("worker.stopped")
    return not activity.stopping.is_set()


def _warn_if_no_room(settings: Settings) -> None:
    workspace = adapters.create_workspace(settings)
    try:
        workspace.require_room()
    except NoRoom as exc:
        log.warning("work_dir.unusable", work_dir=str(workspace.folder), reason=exc.message)


async def _clean_up(folder: Mirrors | LfsCache) -> None:
    """Remove what killed workers left. Without the folder, builds wait until it is usable."""
    try:
        await folder.clean_up()
    except NoRoom as exc:
        log.warning("mirror_dir.unusable", reason=exc.message)


def _listen(
    settings: Settings, archiver: Archiver, activity: Activity
) -> AbstractAsyncContextManager[str]:
    """Serve the worker's metrics; with `archiver serve`, only at an address of the settings."""
    chosen = settings.worker.metrics_listen
    if chosen == "off" or (chosen is None and SUPERVISED in os.environ):
        return nullcontext("")

    async def check() -> Health:
        return await archiver.check_worker_health(draining=activity.draining.is_set())

    heartbeat = Heartbeat(check=check, breakers=archiver.breaker_health)
    return listening(
        [chosen] if chosen else [f"127.0.0.1:{port}" for port in METRICS_PORTS],
        heartbeat=heartbeat,
        version=settings.server.version(__version__),
        required=chosen is not None,
    )


async def _work(settings: Settings, parts: Parts, activity: Activity) -> None:
    worker = settings.worker
    policy = Policy(
        concurrency=worker.concurrency,
        grace=timedelta(seconds=worker.grace_s),
        max_failures=worker.max_failures,
        retry_base=timedelta(seconds=worker.retry_base_s),
    )
    expirer = create_expirer(
        settings,
        storage=parts.storage,
        index=parts.index,
        queue=parts.queue,
        repairs=parts.repairs,
    )
    async with (
        in_background(_keep_up(settings, parts, expirer, activity)),
        open_work_queue(
            connection=parts.connection,
            caps={name: each.concurrency for name, each in settings.served_sources.items()},
            lease=settings.engine.lease,
            state_of=parts.guard.source_state,
        ) as queue,
    ):
        builder = Worker(
            build=parts.archiver.build,
            queue=queue,
            policy=policy,
            activity=activity,
            is_paused=parts.guard.is_paused,
        )
        await builder.work()


async def _keep_up(settings: Settings, parts: Parts, expirer: Expirer, activity: Activity) -> None:
    """Do the periodic work of the fleet until the worker drains, which leaves it to others."""
    repairing = repair_copies(
        repairs=parts.repairs,
        queue=parts.queue,
        storage=parts.storage,
        interval=timedelta(seconds=settings.worker.repair_interval_s),
    )
    schedule = JetStreamSchedule(connection=parts.connection)
    sweeping = sweep_buckets(
        storage=parts.storage,
        contents=parts.storage.contents,
        schedule=schedule,
        stock_book=parts.stock_book,
        expirer=expirer,
        interval=settings.housekeeping.sweep_interval,
        min_age=settings.leftover_age,
    )
    expiring = expire_archives(
        new_gc=lambda: create_gc(settings, storage=parts.storage, uses=parts.uses, expirer=expirer),
        schedule=schedule,
        interval=settings.retention.gc_interval,
    )
    polling = poll_branches(
        rules=[rule for rule in prewarm_rules(settings) if rule.source in settings.served_sources],
        prewarm=parts.archiver.prewarm,
        schedule=schedule,
    )
    measuring = in_background(Fullness(connection=parts.connection).keep_measuring())
    async with repairing, polling, sweeping, expiring, measuring:
        await activity.draining.wait()
