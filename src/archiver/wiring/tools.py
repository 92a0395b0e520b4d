"""Puts together what the commands for operators need."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from archiver.formats.inventory import open_inventory
from archiver.jetstream.connection import connect
from archiver.jetstream.index_store import JetStreamIndexStore
from archiver.jetstream.replication import Replication
from archiver.settings import (
    Settings,
    require_engine,
    require_outside_world,
    require_regions,
)
from archiver.storage.regional_storage import open_storage
from archiver.upkeep.audit import Auditor
from archiver.upkeep.rebuild import OnProgress, Rebuilder
from archiver.wiring.adapters import (
    NAMESPACE,
    configure_buckets,
    create_converter,
    create_workspace,
    engine_servers,
    open_sources,
    open_verifier,
)


@asynccontextmanager
async def open_auditor(settings: Settings) -> AsyncIterator[Auditor]:
    """Yield an auditor, which needs the regions and the sources, but no engine.

    Raises:
        SettingsError: No region is configured.
    """
    require_regions(settings)
    workspace = create_workspace(settings)
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(open_storage(configure_buckets(settings)))
        yield Auditor(
            sources=await open_sources(settings, stack),
            storage=storage,
            verify=open_verifier(settings, stack),
            converter=create_converter(settings, workspace),
            keep=partial(open_inventory, workspace=workspace),
        )


@asynccontextmanager
async def open_rebuilder(
    settings: Settings, *, on_progress: OnProgress
) -> AsyncIterator[Rebuilder]:
    """Yield a rebuilder of the index, which needs the engine and the regions, but no source.

    Raises:
        SettingsError: No engine or no region is configured.
    """
    require_outside_world(settings)
    async with (
        open_storage(configure_buckets(settings)) as storage,
        connect(
            engine_servers(settings.engine), namespace=NAMESPACE, name="archiver-index"
        ) as connection,
    ):
        store = JetStreamIndexStore(connection=connection, storage=storage)
        yield Rebuilder(store=store, storage=storage, on_progress=on_progress)


@asynccontextmanager
async def open_replication(settings: Settings) -> AsyncIterator[Replication]:
    """Yield the streams of the fleet, which need only the engine.

    Raises:
        SettingsError: No engine is configured.
    """
    require_engine(settings)
    connecting = connect(
        engine_servers(settings.engine), namespace=NAMESPACE, name="archiver-engine", prepares=False
    )
    async with connecting as connection:
        yield Replication(connection=connection, wanted=settings.engine.replicas)
