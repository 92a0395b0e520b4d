"""Creates each adapter that the settings describe."""

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from archiver import __version__
from archiver.access.patterns import RepoFilter
from archiver.access.scopes import Scope
from archiver.formats.verify import StreamVerifier
from archiver.formats.workspace import Workspace
from archiver.jetstream.capacity import Capacity
from archiver.jetstream.connection import Connection, DrainsAs, connect
from archiver.jetstream.link import Servers
from archiver.jetstream.seats import JetStreamSeats
from archiver.jetstream.worker_reports import Answer
from archiver.limiter import ClientLimits
from archiver.model import Region
from archiver.ports.formats import VerifierFactory
from archiver.ports.seats import Seats
from archiver.ports.source import Source
from archiver.runtime.local_seats import LocalSeats
from archiver.settings import (
    RegionSettings,
    Settings,
    SourceSettings,
    access_policy,
    find_supported_git,
    serves_git,
)
from archiver.sources.config import Attributes, GitConfig, SourceConfig
from archiver.sources.git.complete.hosts import GitHosts, TakeSeat, unlimited
from archiver.sources.git.lfs.cache import LfsCache
from archiver.sources.git.lfs.cache_folder import LFS_FOLDER
from archiver.sources.git.mirrors import Mirrors
from archiver.sources.open import open_source
from archiver.storage.bucket import Bucket
from archiver.storage.regional_storage import RegionalStorage, open_storage
from archiver.storage.s3_stores import S3Settings

NAMESPACE = "archiver"


def connect_engine(
    settings: Settings,
    *,
    process: str,
    prepares: bool = True,
    report: Answer | None = None,
    drains: DrainsAs | None = None,
) -> AbstractAsyncContextManager[Connection]:
    return connect(
        engine_servers(settings),
        namespace=NAMESPACE,
        name=f"archiver-{process}",
        prepares=prepares,
        report=report,
        drains=drains,
    )


def engine_servers(settings: Settings) -> Servers:
    engine, login = settings.engine, settings.engine.login
    tasks = sum(source.queue_max for source in settings.sources.values())
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
        capacity=Capacity(archives=engine.archives, tasks=tasks),
    )


def client_limits(settings: Settings) -> ClientLimits:
    limits = settings.limits
    return ClientLimits(
        open_tasks=limits.open_tasks,
        deferred_tasks=limits.deferred_tasks,
        tasks_per_minute=limits.tasks_per_minute,
        lookups_per_minute=limits.lookups_per_minute,
        queue_max={name: source.queue_max for name, source in settings.sources.items()},
    )


def create_seats(settings: Settings, connection: Connection | None = None) -> Seats:
    """Return the seats for fetches beside tasks: the fleet's, or those of a tool without engine."""
    numbers = {name: source.submodule_concurrency for name, source in settings.sources.items()}
    if connection is None:
        return LocalSeats(numbers)
    return JetStreamSeats(connection=connection, numbers=numbers)


def open_regions(settings: Settings) -> AbstractAsyncContextManager[RegionalStorage]:
    regions = settings.regions.items()
    return open_storage([create_bucket(name, region, settings) for name, region in regions])


def create_bucket(name: str, region: RegionSettings, settings: Settings) -> Bucket:
    return Bucket(
        s3_settings(name, region),
        region=Region(name),
        presigned_ttl=settings.server.presigned_ttl,
        public_endpoint=region.public_endpoint,
    )


def s3_settings(name: str, region: RegionSettings) -> S3Settings:
    return S3Settings(
        bucket=region.bucket,
        endpoint=region.endpoint,
        region=region.aws_region or name,
        access_key_id=region.read_access_key_id(),
        secret_access_key=region.read_secret_access_key(),
        virtual_hosted=region.virtual_hosted,
        ca_file=region.ca_file,
    )


@asynccontextmanager
async def open_sources(
    settings: Settings,
    *,
    mirrors: Mirrors | None = None,
    lfs_cache: LfsCache | None = None,
    take_seat: TakeSeat = unlimited,
) -> AsyncIterator[dict[str, Source]]:
    """Yield the sources. Without *mirrors*, git hosts can be asked, but make no archives.

    Files of Git LFS are kept in *lfs_cache*. *take_seat* bounds the fetches of submodules.

    Reads the tokens. Raises SettingsError if one cannot be read.
    """
    hosts = GitHosts(take_seat, lfs_cache=lfs_cache)
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(
                open_source(source_config(name, source, settings), mirrors=mirrors, hosts=hosts)
            )
            for name, source in settings.sources.items()
        }


def source_config(name: str, source: SourceSettings, settings: Settings) -> SourceConfig:
    return SourceConfig(
        kind=source.kind,
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
        limits=source.limits,
        authorization=source.read_authorization(name),
        git=GitConfig(
            root_template=source.root,
            archive_url_template=source.archive_url_template or "",
            attributes=Attributes(source.attributes),
            reachable=source.reachable,
            repos=RepoFilter(allowed=source.repos, denied=source.repos_denied),
            open=access_policy(settings).sources[name].open_scope >= Scope.READ,
            submodule_urls=source.submodule_urls,
            max_submodules=source.max_submodules,
            max_submodule_depth=source.max_submodule_depth,
            lfs_hosts=source.lfs_hosts,
        ),
        user_agent=f"Archiver/{__version__} (+{settings.server.url})",
    )


@contextmanager
def open_verifier(settings: Settings) -> Iterator[VerifierFactory]:
    """Yield ``verify`` with the limits of each archive's source, and a thread for it."""
    with ThreadPoolExecutor(1, "verify") as pool:
        verifies = {
            name: partial(
                StreamVerifier,
                limits=source.limits,
                refuse_links_outside=source.links == "refuse",
                pool=pool,
            )
            for name, source in settings.sources.items()
        }
        yield lambda archive, *, root, identity, tree=None: verifies[archive.source](
            archive, root=root, identity=identity, tree=tree
        )


def create_mirrors(settings: Settings) -> Mirrors | None:
    """Return the mirrors of a worker; None if it serves no git host.

    Raises SettingsError if the git program is not usable.
    """
    if not serves_git(settings):
        return None
    served = settings.served_sources.values()
    longest_s = max(source.deadline_s for source in served if source.kind == "git")
    # A run of git waits for its host to send, or for the regions to receive.
    deadline = timedelta(seconds=2 * longest_s)
    return Mirrors(
        folder=mirror_dir(settings),
        max_bytes=settings.worker.mirror_max_bytes,
        git=replace(find_supported_git(), deadline=deadline),
    )


def create_lfs_cache(settings: Settings) -> LfsCache | None:
    """Return the LFS files of a worker; None if it serves no git host."""
    if not serves_git(settings):
        return None
    folder = mirror_dir(settings) / LFS_FOLDER
    return LfsCache(folder=folder, max_bytes=settings.worker.lfs_max_bytes)


def mirror_dir(settings: Settings) -> Path:
    return settings.worker.mirror_dir or settings.data_dir / "mirrors"


def create_workspace(settings: Settings) -> Workspace:
    worker = settings.worker
    return Workspace(folder=work_dir(settings), max_bytes=worker.work_max_bytes)


def work_dir(settings: Settings) -> Path:
    return settings.worker.work_dir or settings.data_dir / "work"
