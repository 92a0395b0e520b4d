"""Opens a source with the adapter for its kind of host."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from archiver.ports.source import Source
from archiver.sources.config import SourceConfig
from archiver.sources.fetch import Fetch, open_fetch
from archiver.sources.git.complete.hosts import GitHosts, unlimited
from archiver.sources.git.mirrors import Mirrors
from archiver.sources.git.source import open_git_source
from archiver.sources.hgweb.source import HgwebSource

Open = Callable[
    [SourceConfig, Fetch, Mirrors | None, GitHosts], AbstractAsyncContextManager[Source]
]

ADAPTERS: Mapping[str, Open] = {
    "git": open_git_source,
    "hgweb": lambda config, fetch, *_: nullcontext(HgwebSource(config, fetch)),
}
"""The adapter for each ``kind`` of source in the settings."""


@asynccontextmanager
async def open_source(
    config: SourceConfig, *, mirrors: Mirrors | None = None, hosts: GitHosts | None = None
) -> AsyncIterator[Source]:
    """Yield the source, with its own connections. A git host makes archives from *mirrors*.

    It then adds itself to *hosts*, from which submodules may come.
    """
    hosts = hosts or GitHosts(unlimited)
    async with (
        open_fetch(config) as fetch,
        ADAPTERS[config.kind](config, fetch, mirrors, hosts) as source,
    ):
        yield source
