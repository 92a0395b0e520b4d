"""The parts that web processes and workers share."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from archiver import __version__
from archiver.jetstream.accepted import Accepted
from archiver.jetstream.checks import Checks
from archiver.jetstream.connection import Connection, connect
from archiver.jetstream.feed import relay
from archiver.jetstream.index import JetStreamIndex
from archiver.jetstream.jetstream import JetStream
from archiver.jetstream.presence import WORKERS, Reporter
from archiver.runtime.notifications import Notifications
from archiver.runtime.tasks import in_background
from archiver.service import Archiver
from archiver.settings import (
    Settings,
    nearest_regions,
    require_outside_world,
)
from archiver.storage.regions import Regions, open_regions
from archiver.telemetry import METRICS
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
    engine: JetStream
    storage: Regions


@asynccontextmanager
async def open_parts(settings: Settings, *, process: str) -> AsyncIterator[Parts]:
    """Yield the parts. Servers that do not respond yet are connected later.

    Raises:
        SettingsError: No engine or no region is configured.
    """
    require_outside_world(settings)
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(open_regions(configure_buckets(settings)))
        answers = {WORKERS: Reporter(storage=storage).say} if process == "worker" else {}
        connecting = connect(
            engine_servers(settings.engine),
            namespace=NAMESPACE,
            name=f"archiver-{process}",
            answers=answers,
        )
        connection = await stack.enter_async_context(connecting)
        sources = await open_sources(settings, stack)
        engine = JetStream(connection=connection)
        index = JetStreamIndex(
            connection=connection,
            storage=storage,
            recheck_after=timedelta(seconds=settings.server.recheck_s),
        )
        checks = Checks(index=index, storage=storage, engine=engine)
        accepted = Accepted(connection=connection, engine=engine, lease=settings.engine.lease)
        news = Notifications()
        relay(connection, news)
        archiver = Archiver(
            sources=sources,
            storage=storage,
            index=index,
            engine=engine,
            verify=open_verifier(settings, stack),
            converter=create_converter(settings, create_workspace(settings)),
            news=news,
            nearest=nearest_regions(settings),
        )
        METRICS.build_info.labels(version=__version__).set(1)
        await stack.enter_async_context(in_background(checks.run(), accepted.keep()))
        yield Parts(archiver=archiver, connection=connection, engine=engine, storage=storage)
