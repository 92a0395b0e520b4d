"""Puts a worker together, and runs it."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from archiver import __version__
from archiver.errors import NoRoom
from archiver.formats.workspace import Workspace
from archiver.health import Heartbeat
from archiver.jetstream.work_queue import open_work_queue
from archiver.runtime.tasks import in_background
from archiver.settings import (
    Settings,
    SettingsError,
)
from archiver.telemetry import log, set_up_logging
from archiver.upkeep.repair import Repairer
from archiver.wiring.adapters import create_workspace
from archiver.wiring.parts import Parts, open_parts
from archiver.worker.worker import Policy, Worker
from archiver.worker_listener import CannotListen, listening


async def run_worker(settings: Settings) -> None:
    """Run a worker until SIGTERM or SIGINT. Then finish running builds, or hand them back.

    Raises:
        SettingsError: No engine or no region is configured, or nothing can listen on
            `worker.metrics_listen`.
    """
    set_up_logging(settings.log.format, level=settings.log.level, process="worker")
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    _warn_if_unusable(create_workspace(settings))
    async with open_parts(settings, process="worker") as parts, _listening(settings, parts):
        log.info("worker.started", sources=sorted(settings.sources))
        async with in_background(parts.storage.clear_old_uploads()):
            await _work(settings, parts, stopping)
    log.info("worker.stopped")


def _warn_if_unusable(workspace: Workspace) -> None:
    try:
        workspace.require_room()
    except NoRoom as exc:
        log.warning("work_dir.unusable", work_dir=str(workspace.folder), reason=exc.message)


@asynccontextmanager
async def _listening(settings: Settings, parts: Parts) -> AsyncIterator[None]:
    address = settings.worker.metrics_listen
    if address is None:
        yield
        return
    heartbeat = Heartbeat(check=parts.archiver.check_worker_health)
    version = settings.server.version(__version__)
    try:
        async with listening(address, heartbeat=heartbeat, version=version):
            yield
    except CannotListen as exc:
        raise SettingsError(f"worker.metrics_listen: cannot listen on {address}: {exc}") from exc


async def _work(settings: Settings, parts: Parts, stopping: asyncio.Event) -> None:
    worker = settings.worker
    policy = Policy(
        concurrency=worker.concurrency,
        grace=timedelta(seconds=worker.grace_s),
        max_failures=worker.max_failures,
        retry_base=timedelta(seconds=worker.retry_base_s),
    )
    repairer = Repairer(
        repairs=parts.repairs,
        queue=parts.queue,
        storage=parts.storage,
        interval=timedelta(seconds=worker.repair_interval_s),
    )
    async with (
        in_background(repairer.run()),
        open_work_queue(
            connection=parts.connection,
            caps={name: source.concurrency for name, source in settings.sources.items()},
            lease=settings.engine.lease,
        ) as queue,
    ):
        await Worker(build=parts.archiver.build, queue=queue, policy=policy).run(stopping)
