"""A client of a git host: opened, used once, closed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from archiver.model import Node
from archiver.ports.source import ServedFormats
from archiver.sources.config import GitConfig, SourceConfig
from archiver.sources.fetch import open_fetch
from archiver.sources.git.client import GitClient
from archiver.sources.git.pack import open_pack
from archiver.sources.git.refs import GitRefs
from tests.git_repositories import GitRepository
from tests.parts.git_host import REPO

SOURCE = "forge"


def git_config(template: str, *, reachable: bool = False, **settings: Any) -> SourceConfig:  # noqa: ANN401 - those of SourceConfig
    defaults: dict[str, Any] = {
        "kind": "git",
        "name": SOURCE,
        "url_template": template,
        "served": ServedFormats(suffixes=("tar",), verbatim=False),
        "lookup_concurrency": 2,
        "read_timeout": timedelta(seconds=10),
        "deadline": timedelta(seconds=20),
        "user_agent": "Archiver/test",
        "git": GitConfig(reachable=reachable),
    }
    return SourceConfig(**{**defaults, **settings})


@asynccontextmanager
async def git_client(template: str, **settings: Any) -> AsyncIterator[GitClient]:  # noqa: ANN401 - see git_config
    config = git_config(template, **settings)
    async with open_fetch(config) as fetch:
        yield GitClient(config, fetch)


def resolve(template: str, rev: str, repo: str = REPO, **settings: Any) -> Node:  # noqa: ANN401 - see git_config
    async def play() -> Node:
        async with git_client(template, **settings) as client:
            return await GitRefs(client).resolve(repo, rev)

    return asyncio.run(play())


def known(template: str, node: str, repo: str = REPO, **settings: Any) -> bool:  # noqa: ANN401 - see git_config
    async def play() -> bool:
        async with git_client(template, **settings) as client:
            return await GitRefs(client).has_node(repo, Node(node))

    return asyncio.run(play())


async def read_pack(
    client: GitClient, node: str, haves: Sequence[str] = (), repo: str = REPO
) -> bytes:
    async with open_pack(client, repo, Node(node), [Node(have) for have in haves]) as pack:
        return b"".join([chunk async for chunk in pack.chunks()])


def fetch_pack(
    template: str,
    node: str,
    haves: Sequence[str] = (),
    repo: str = REPO,
    **settings: Any,  # noqa: ANN401 - see git_config
) -> bytes:
    async def play() -> bytes:
        async with git_client(template, **settings) as client:
            return await read_pack(client, node, haves, repo)

    return asyncio.run(play())


def index_pack(store: GitRepository, pack: bytes) -> None:
    """Add *pack* to *store*. Fails the test if it is not a pack, or lacks bases of its deltas."""
    store.git("index-pack", "--stdin", "--fix-thin", stdin=pack)
