"""The configured git hosts, as sources of submodules."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

from archiver.errors import SourceBusy
from archiver.model import Node
from archiver.sources.config import SourceConfig
from archiver.sources.git.client import GitUrls
from archiver.sources.git.complete.submodule_url import RepoTemplate, parse_url, resolve_url
from archiver.sources.git.lfs.cache import LfsCache
from archiver.sources.git.lfs.client import LfsClient
from archiver.sources.git.snapshot import Snapshots


class KnowsNode(Protocol):
    async def __call__(self, repo: str, node: Node) -> bool:
        """Return whether the host shows *node*: see ``Source.has_node``."""


class TakeSeat(Protocol):
    def __call__(self, source: str) -> AbstractAsyncContextManager[None]:
        """Yield the right to fetch a submodule from *source*: see ``ports.seats.Seats``."""


@asynccontextmanager
async def unlimited(source: str) -> AsyncIterator[None]:  # noqa: ARG001 - as ``TakeSeat``
    """Yield at once."""
    yield


class GitHost:
    """A configured git source."""

    def __init__(
        self,
        config: SourceConfig,
        *,
        urls: GitUrls,
        snapshots: Snapshots,
        has_node: KnowsNode,
        lfs: LfsClient,
    ) -> None:
        self.name = config.name
        self.config = config
        self.urls = urls
        self.snapshots = snapshots
        self.has_node = has_node
        self.lfs = lfs
        self._templates = (
            RepoTemplate(config.url_template, any_protocol=True),
            *(RepoTemplate(each, any_protocol=False) for each in config.git.submodule_urls),
        )

    def repos(self, url: str) -> tuple[str, ...]:
        """Return the repos that an absolute *url* may mean, the likeliest first."""
        address = parse_url(url)
        if address is None:
            return ()
        found = (repo for template in self._templates for repo in template.repos(address))
        serves = self.config.git.repos.accepts
        return tuple(repo for repo in dict.fromkeys(found) if serves(repo))


class GitHosts:
    """All configured git hosts. Nothing but them is ever asked for a submodule.

    *take_seat* bounds the fetches of submodules from each of them. Their LFS files are in
    *lfs_cache*, which only workers have.
    """

    def __init__(self, take_seat: TakeSeat, *, lfs_cache: LfsCache | None = None) -> None:
        self.lfs_cache = lfs_cache
        self._take_seat = take_seat
        self._hosts: dict[str, GitHost] = {}

    def add(self, host: GitHost) -> None:
        self._hosts[host.name] = host

    @asynccontextmanager
    async def seat(self, host: GitHost) -> AsyncIterator[None]:
        """Hold one of the seats of *host* for the block. Raises SourceBusy, or as ``take_seat``."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(host.config.deadline.total_seconds()):
                    await stack.enter_async_context(self._take_seat(host.name))
            except TimeoutError as exc:
                raise SourceBusy(
                    f"{host.name} is busy with fetches of other submodules", retry_after=None
                ) from exc
            yield

    def find(self, url: str, *, host: GitHost, repo: str) -> list[tuple[GitHost, str]]:
        """Return the repositories that *url* in a ``.gitmodules`` of *repo* may mean.

        Those of the same *host* come first, others in the configured order.
        """
        absolute = resolve_url(url, host.urls.repo(repo))
        hosts = dict.fromkeys((host, *self._hosts.values()))
        return [(each, found) for each in hosts for found in each.repos(absolute)]
