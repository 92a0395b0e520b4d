"""A client of a git host's LFS files, opened, used once and closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from archiver.git_objects import object_id
from archiver.git_objects.lfs_pointer import Pointer
from archiver.sources.config import GitConfig
from archiver.sources.fetch import open_fetch
from archiver.sources.git.client import GitClient
from archiver.sources.git.lfs.client import BATCH_DEADLINE, LfsClient, open_lfs_client
from archiver.sources.git.lfs.pointer_search import LfsEntry
from tests.parts.git_host import REPO
from tests.sources.git_hosts import git_config


@asynccontextmanager
async def lfs_client(
    template: str,
    *,
    lfs_hosts: tuple[str, ...] = (),
    batch_deadline: timedelta = BATCH_DEADLINE,
    **settings: Any,  # noqa: ANN401 - those of SourceConfig
) -> AsyncIterator[LfsClient]:
    config = git_config(template, git=GitConfig(lfs_hosts=lfs_hosts), **settings)
    async with (
        open_fetch(config) as fetch,
        open_lfs_client(GitClient(config, fetch), fetch, batch_deadline=batch_deadline) as client,
    ):
        yield client


def entry(pointer: Pointer, path: bytes = b"large.bin") -> LfsEntry:
    return LfsEntry(path, object_id("blob", pointer.text, digits=40), pointer, pointer.text)


def download(
    template: str,
    pointer: Pointer,
    *,
    repo: str = REPO,
    lfs_url: str = "",
    **settings: Any,  # noqa: ANN401 - see lfs_client
) -> bytes:
    """Return a file, for which the host is first asked for a link."""

    async def play() -> bytes:
        wanted = entry(pointer)
        async with lfs_client(template, **settings) as client:
            links = await client.links(repo, [wanted], lfs_url=lfs_url)
            chunks = client.chunks(repo, wanted, links[pointer], lfs_url=lfs_url)
            return b"".join([chunk async for chunk in chunks])

    return asyncio.run(play())
