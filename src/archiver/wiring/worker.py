"""Puts a worker together, and runs it."""

import asyncio
import signal
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta

from archiver import __version__
from archiver.errors import NoRoom
from archiver.health import Heartbeat
from archiver.jetstream.fullness import Fullness
from archiver.jetstream.schedule import JetStreamSchedule
from archiver.jetstream.work_queue import open_work_queue
from archiver.runtime.file_limit import raise_file_limit
from archiver.runtime.tasks import in_background
from archiver.service import Archiver
from archiver.settings import Settings
from archiver.sources.git.lfs.cache import LfsCache
from archiver.sources.git.mirrors import Mirrors
from archiver.telemetry import log, set_up_logging
from archiver.upkeep.background import (
    expire_archives,
    poll_branches,
    repair_copies,
    sweep_buckets,
)
from archiver.wiring import adapters
from archiver.wiring.housekeeping import create_expirer, create_gc
from archiver.wiring.parts import Parts, open_parts
from archiver.wiring.prewarm import prewarm_rules
from archiver.worker.worker import Policy, Worker
from archiver.worker_listener import listening


async def run_worker(settings: Settings) -> None:
    """Run a worker until SIGTERM or SIGINT. Then finish running builds, or hand them back.

    Raises SettingsError, or CannotListen if `worker.metrics_listen` cannot be bound.
    """
    set_up_logging(settings.log.format, level=settings.log.level, process="worker")
    raise_file_limit()  # a build holds some files for each submodule
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    _warn_if_no_room(settings)
    async with open_parts(settings, process="worker") as parts, _listen(settings, parts.archiver):
        log.info("worker.started", sources=sorted(settings.served_sources))
        if parts.mirrors:
            await _clean_up(parts.mirrors)
        if parts.lfs_cache:
            await _clean_up(parts.lfs_cache)
        await _work(settings, parts, stopping)
    log.info("worker.stopped")


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


def _listen(settings: Settings, archiver: Archiver) -> AbstractAsyncContextManager[None]:
    address = settings.worker.metrics_listen
    if not address:
        return nullcontext()
    heartbeat = Heartbeat(check=archiver.check_worker_health, breakers=archiver.breaker_health)
    return listening(address, heartbeat=heartbeat, version=settings.server.version(__version__))


async def _work(settings: Settings, parts: Parts, stopping: asyncio.Event) -> None:
    worker = settings.worker
    policy = Policy(
        concurrency=worker.concurrency,
        grace=timedelta(seconds=worker.grace_s),
        max_failures=worker.max_failures,
        retry_base=timedelta(seconds=worker.retry_base_s),
    )
    repairing = repair_copies(
        repairs=parts.repairs,
        queue=parts.queue,
        storage=parts.storage,
        interval=timedelta(seconds=worker.repair_interval_s),
    )
    schedule = JetStreamSchedule(connection=parts.connection)
    expirer = create_expirer(
        settings,
        storage=parts.storage,
        index=parts.index,
        queue=parts.queue,
        repairs=parts.repairs,
    )
    sweeping = sweep_buckets(
        storage=parts.storage,
        contents=parts.storage.contents,
        schedule=schedule,
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
    async with (
        repairing,
        polling,
        sweeping,
        expiring,
        in_background(Fullness(connection=parts.connection).keep_measuring()),
        open_work_queue(
            connection=parts.connection,
            caps={name: each.concurrency for name, each in settings.served_sources.items()},
            lease=settings.engine.lease,
            state_of=parts.guard.source_state,
        ) as queue,
    ):
        worker_ = Worker(
            build=parts.archiver.build,
            queue=queue,
            policy=policy,
            is_paused=parts.guard.is_paused,
        )
        await worker_.work_until(stopping)
