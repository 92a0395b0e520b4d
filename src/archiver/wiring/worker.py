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
from archiver.jetstream.repairs import Repairs
from archiver.jetstream.worker import Policy, Worker
from archiver.runtime.tasks import in_background
from archiver.settings import (
    Settings,
    SettingsError,
)
from archiver.telemetry import log, set_up_logging
from archiver.wiring.adapters import create_workspace
from archiver.wiring.parts import Parts, open_parts
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
            await _worker(settings, parts).run(stopping)
    log.info("worker.stopped")


def _warn_if_unusable(workspace: Workspace) -> None:
    try:
        workspace.try_out()
    except NoRoom as exc:
        log.warning("work_dir.unusable", work_dir=str(workspace.folder), reason=exc.message)


@asynccontextmanager
async def _listening(settings: Settings, parts: Parts) -> AsyncIterator[None]:
    address = settings.worker.metrics_listen
    if address is None:
        yield
        return
    heartbeat = Heartbeat(check=parts.archiver.check_worker)
    version = settings.server.version(__version__)
    try:
        async with listening(address, heartbeat=heartbeat, version=version):
            yield
    except CannotListen as exc:
        raise SettingsError(f"worker.metrics_listen: cannot listen on {address}: {exc}") from exc


def _worker(settings: Settings, parts: Parts) -> Worker:
    repairs = Repairs(
        connection=parts.connection,
        engine=parts.engine,
        storage=parts.storage,
        interval=timedelta(seconds=settings.worker.repair_interval_s),
    )
    policy = Policy(
        caps={name: source.concurrency for name, source in settings.sources.items()},
        concurrency=settings.worker.concurrency,
        lease=settings.engine.lease,
        grace=timedelta(seconds=settings.worker.grace_s),
        max_failures=settings.worker.max_failures,
        retry_base=timedelta(seconds=settings.worker.retry_base_s),
    )
    return Worker(
        build=parts.archiver.build, connection=parts.connection, repairs=repairs, policy=policy
    )
