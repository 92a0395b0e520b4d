"""The composition root: the only module that knows every concrete class."""

import asyncio
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from archiver import __version__
from archiver.errors import NoRoom
from archiver.formats.convert import Converter
from archiver.formats.inventory import Inventory
from archiver.formats.verify import verify
from archiver.formats.workspace import Workspace
from archiver.health import Heartbeat
from archiver.jetstream.accepted import Accepted
from archiver.jetstream.checks import Checks
from archiver.jetstream.connection import Connection, connect
from archiver.jetstream.feed import relay
from archiver.jetstream.index import JetStreamIndex
from archiver.jetstream.jetstream import JetStream
from archiver.jetstream.link import Servers
from archiver.jetstream.presence import WORKERS, Reporter
from archiver.jetstream.rebuilding import Rebuilder, Told
from archiver.jetstream.repairs import Repairs
from archiver.jetstream.streams import Streams
from archiver.jetstream.worker import Policy, Worker
from archiver.model import Region
from archiver.ports.formats import Verify
from archiver.ports.source import Source
from archiver.runtime.notifications import Notifications
from archiver.runtime.tasks import in_background
from archiver.service import Archiver
from archiver.settings import (
    EngineSettings,
    RegionSettings,
    Settings,
    SettingsError,
    SourceSettings,
    load,
    nearest,
    networks,
    ranges_files,
    require_engine,
    require_outside_world,
    require_regions,
)
from archiver.sources.hgweb import open_hgweb
from archiver.storage.bucket import Bucket
from archiver.storage.regions import Regions, open_regions
from archiver.telemetry import METRICS, log, set_up_logging
from archiver.upkeep.audit import Auditor
from archiver.web.app import Site, create_app
from archiver.web.clients import Clients
from archiver.web.ranges import Ranges
from archiver.web.seats import Holding
from archiver.web.server import on_stop
from archiver.worker_listener import CannotListen, listening

NAMESPACE = "archiver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that runs in one process, put together."""

    archiver: Archiver
    connection: Connection
    engine: JetStream
    storage: Regions


@asynccontextmanager
async def open_parts(settings: Settings, *, process: str) -> AsyncIterator[Parts]:
    """Yield the parts, connected as far as the outside world lets them.

    Raises:
        SettingsError: No engine or no region is configured.
    """
    require_outside_world(settings)
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(open_regions(_buckets(settings)))
        answers = {WORKERS: Reporter(storage=storage).say} if process == "worker" else {}
        connecting = connect(
            engine_servers(settings.engine),
            namespace=NAMESPACE,
            name=f"archiver-{process}",
            answers=answers,
        )
        connection = await stack.enter_async_context(connecting)
        sources = await _open_sources(settings, stack)
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
            verify=_verify(settings, stack),
            converter=_converter(settings, _workspace(settings)),
            news=news,
            nearest=nearest(settings),
        )
        METRICS.build_info.labels(version=__version__).set(1)
        await stack.enter_async_context(in_background(checks.run(), accepted.keep()))
        yield Parts(archiver=archiver, connection=connection, engine=engine, storage=storage)


@asynccontextmanager
async def open_auditor(settings: Settings) -> AsyncIterator[Auditor]:
    """Yield what an audit needs: the regions and the sources, and nobody else.

    Raises:
        SettingsError: No region is configured.
    """
    require_regions(settings)
    workspace = _workspace(settings)
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(open_regions(_buckets(settings)))
        yield Auditor(
            sources=await _open_sources(settings, stack),
            storage=storage,
            verify=_verify(settings, stack),
            converter=_converter(settings, workspace),
            keep=Inventory(workspace=workspace),
        )


@asynccontextmanager
async def open_rebuilder(settings: Settings, *, told: Told) -> AsyncIterator[Rebuilder]:
    """Yield what makes the index anew: it needs the engine and the regions, and no source.

    Raises:
        SettingsError: No engine or no region is configured.
    """
    require_outside_world(settings)
    async with (
        open_regions(_buckets(settings)) as storage,
        connect(
            engine_servers(settings.engine), namespace=NAMESPACE, name="archiver-index"
        ) as connection,
    ):
        yield Rebuilder(connection=connection, storage=storage, told=told)


@asynccontextmanager
async def open_streams(settings: Settings) -> AsyncIterator[Streams]:
    """Yield the fleet's streams, to look at or to change: this needs nothing but the engine.

    Raises:
        SettingsError: No engine is configured.
    """
    require_engine(settings)
    connecting = connect(
        engine_servers(settings.engine), namespace=NAMESPACE, name="archiver-engine", prepares=False
    )
    async with connecting as connection:
        yield Streams(connection=connection, wanted=settings.engine.replicas)


def _verify(settings: Settings, stack: AsyncExitStack) -> Verify:
    """Return ``verify``, with the limits of each archive's source, and a thread beside its own."""
    pool = stack.enter_context(ThreadPoolExecutor(1, "verify"))
    verifies = {
        name: partial(
            verify,
            limits=source.limits,
            refuse_links_outside=source.links == "refuse",
            pool=pool,
        )
        for name, source in settings.sources.items()
    }
    return lambda archive, *, root: verifies[archive.source](archive, root=root)


def _workspace(settings: Settings) -> Workspace:
    worker = settings.worker
    return Workspace(
        folder=worker.work_dir or settings.data_dir / "work", most_bytes=worker.work_max_bytes
    )


def _converter(settings: Settings, workspace: Workspace) -> Converter:
    return Converter(workspace=workspace, threads=settings.worker.compression_threads)


def _buckets(settings: Settings) -> list[Bucket]:
    return [_bucket(name, region, settings) for name, region in settings.regions.items()]


def _bucket(name: str, region: RegionSettings, settings: Settings) -> Bucket:
    secret = region.secret_access_key
    return Bucket(
        region=Region(name),
        bucket=region.bucket,
        endpoint=region.endpoint,
        aws_region=region.aws_region,
        access_key_id=region.access_key_id,
        secret_access_key=secret.get_secret_value() if secret else None,
        virtual_hosted=region.virtual_hosted,
        presigned_ttl=settings.server.presigned_ttl,
        public_endpoint=region.public_endpoint,
        ca_file=region.ca_file,
    )


def engine_servers(engine: EngineSettings) -> Servers:
    """Return where the engine is, and how to log in."""
    login = engine.login
    return Servers(
        urls=engine.servers,
        user=login.user,
        password=login.password,
        token=login.token,
        credentials_file=engine.credentials_file,
        ca_file=engine.ca_file,
        tls_cert=engine.tls_cert,
        tls_key=engine.tls_key,
        replicas=engine.replicas,
    )


async def _open_sources(settings: Settings, stack: AsyncExitStack) -> dict[str, Source]:
    return {
        name: await stack.enter_async_context(_open_source(name, source, settings))
        for name, source in settings.sources.items()
    }


def _open_source(
    name: str, source: SourceSettings, settings: Settings
) -> AbstractAsyncContextManager[Source]:
    return open_hgweb(
        name=name,
        url_template=source.url_template,
        served=source.served,
        redirect_hosts=source.redirect_hosts,
        allow_private_addresses=source.allow_private_addresses,
        ca_file=source.ca_file,
        lookup_concurrency=source.lookup_concurrency,
        read_timeout=timedelta(seconds=source.read_timeout_s),
        deadline=timedelta(seconds=source.deadline_s),
        min_rate_bytes_s=source.min_rate_bytes_s,
        min_rate_window=timedelta(seconds=source.min_rate_window_s),
        trusted=source.completeness == "trust",
        user_agent=f"Archiver/{__version__} (+{settings.server.url})",
    )


def web_app() -> Any:  # noqa: ANN401 - an ASGI application, to granian
    """Return the web application, configured by the environment: granian's target."""
    settings = load()
    set_up_logging(settings.log.format, level=settings.log.level, process="web")

    ranges = Ranges(files=ranges_files(settings))
    clients = Clients(
        networks=networks(settings),
        published=ranges.try_read(),  # the command has checked; who replaces a dead process serves
        trusted_proxies=settings.server.trusted_proxies,
    )

    @asynccontextmanager
    async def open_archiver() -> AsyncIterator[Archiver]:
        async with (
            open_parts(settings, process="web") as parts,
            in_background(ranges.follow(clients)),
        ):
            yield parts.archiver

    site = Site(
        public_url=settings.server.url,
        retry_after_s=settings.server.retry_after_s,
        retry_after_max_s=settings.server.retry_after_max_s,
        clients=clients,
        hit_ttl=settings.server.hit_ttl,
        hits_told_every=timedelta(seconds=settings.log.hits_interval_s),
        holding=_holding(settings),
        version=settings.server.version(__version__),
    )
    return create_app(open_archiver=open_archiver, site=site, on_stop=on_stop)


def _holding(settings: Settings) -> Holding:
    server = settings.server
    return Holding(
        hold_s=server.hold_s,
        waiters=server.waiters,
        waiters_per_client=server.waiters_per_client,
        event_streams=server.event_streams,
        event_streams_per_client=server.event_streams_per_client,
    )


async def run_worker(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; then end what can be ended, and hand back the rest.

    Raises:
        SettingsError: No engine or no region is configured, or no metrics can be served where
            they are to be.
    """
    set_up_logging(settings.log.format, level=settings.log.level, process="worker")
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    _try_out(_workspace(settings))
    async with open_parts(settings, process="worker") as parts, _listening(settings, parts):
        log.info("worker.started", sources=sorted(settings.sources))
        async with in_background(parts.storage.clear_old_uploads()):
            await _worker(settings, parts).run(stopping)
    log.info("worker.stopped")


def _try_out(workspace: Workspace) -> None:
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
