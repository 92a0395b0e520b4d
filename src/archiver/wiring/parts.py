"""The parts that web processes and workers share."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from archiver import __version__
from archiver.jetstream.connection import Connection, connect
from archiver.jetstream.feed import relay
from archiver.jetstream.fleet import JetStreamFleet
from archiver.jetstream.index import JetStreamIndex
from archiver.jetstream.repair_list import JetStreamRepairList
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.jetstream.worker_reports import Reporter
from archiver.runtime.notifications import Notifications
from archiver.runtime.tasks import in_background
from archiver.service import Archiver
from archiver.settings import (
    Settings,
    nearest_regions,
    require_outside_world,
)
from archiver.storage.regional_storage import RegionalStorage, open_storage
from archiver.telemetry import METRICS
from archiver.upkeep.recheck import Rechecker
from archiver.upkeep.restore import Restorer
from archiver.wiring.adapters import (
    NAMESPACE,
    configure_buckets,
    create_converter,
    create_workspace,
    engine_servers,
    open_sources,
    open_verifier,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The connected parts of one process."""

    archiver: Archiver
    connection: Connection
    queue: JetStreamTaskQueue
    repairs: JetStreamRepairList
    storage: RegionalStorage


@asynccontextmanager
async def open_parts(settings: Settings, *, process: str) -> AsyncIterator[Parts]:
    """Yield the parts. Servers that do not respond yet are connected later.

    Raises:
        SettingsError: No engine or no region is configured.
    """
    require_outside_world(settings)
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(open_storage(configure_buckets(settings)))
        connecting = connect(
            engine_servers(settings.engine),
            namespace=NAMESPACE,
            name=f"archiver-{process}",
            report=Reporter(storage=storage).answer if process == "worker" else None,
        )
        connection = await stack.enter_async_context(connecting)
        sources = await open_sources(settings, stack)
        queue = JetStreamTaskQueue(connection=connection)
        repairs = JetStreamRepairList(connection=connection)
        index = JetStreamIndex(
            connection=connection,
            storage=storage,
            recheck_after=timedelta(seconds=settings.server.recheck_s),
        )
        rechecker = Rechecker(entries=index, storage=storage, repairs=repairs)
        restorer = Restorer(queue=queue, events=queue, lease=settings.engine.lease)
        await stack.enter_async_context(in_background(rechecker.run(), restorer.run()))
        notifications = Notifications()
        relay(connection.feed, notifications)
        archiver = Archiver(
            sources=sources,
            storage=storage,
            index=index,
            queue=queue,
            repairs=repairs,
            fleet=JetStreamFleet(connection=connection),
            verify=open_verifier(settings, stack),
            converter=create_converter(settings, create_workspace(settings)),
            notifications=notifications,
            nearest=nearest_regions(settings),
        )
        METRICS.build_info.labels(version=__version__).set(1)
        yield Parts(
            archiver=archiver,
            connection=connection,
            queue=queue,
            repairs=repairs,
            storage=storage,
        )
