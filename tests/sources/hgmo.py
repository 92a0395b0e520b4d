"""An hgweb source: opened, used once, closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from archiver.formats.verify import StreamVerifier
from archiver.model import Archive, Node, Verified
from archiver.ports.source import ServedFormats, Source
from archiver.sources.config import SourceConfig
from archiver.sources.open import open_source

NODE = Node("0123456789abcdef0123456789abcdef01234567")
REPO = "projects/ash"
HG = {"Content-Type": "application/mercurial-0.1"}
SUFFIXES = ("tar.gz", "tar.bz2", "zip")


@asynccontextmanager
async def opened(template: str, lookup_concurrency: int = 2) -> AsyncIterator[Source]:
    config = SourceConfig(
        kind="hgweb",
        name="hgmo",
        url_template=template,
        served=ServedFormats(suffixes=SUFFIXES),
        redirect_hosts=(),
        allow_private_addresses=False,
        lookup_concurrency=lookup_concurrency,
        read_timeout=timedelta(seconds=10),
        deadline=timedelta(seconds=20),
        user_agent="Archiver/test",
    )
    async with open_source(config) as source:
        yield source


def an_archive(
    repo: str = REPO, node: str = NODE, subdir: str = "", suffix: str = "tar.gz"
) -> Archive:
    return Archive(source="hgmo", repo=repo, node=Node(node), subdir=subdir, suffix=suffix)


def url_of(template: str, archive: Archive) -> str:
    async def play() -> str:
        async with opened(template) as source:
            return source.url(archive)

    return asyncio.run(play())


def resolve(template: str, rev: str, repo: str = REPO) -> Node:
    async def play() -> Node:
        async with opened(template) as source:
            return await source.resolve(repo, rev)

    return asyncio.run(play())


def known(template: str, node: str = NODE, repo: str = REPO) -> bool:
    async def play() -> bool:
        async with opened(template) as source:
            return await source.has_node(repo, Node(node))

    return asyncio.run(play())


def last_file(template: str, *archives: Archive) -> list[bytes | None]:
    async def play() -> list[bytes | None]:
        async with opened(template) as source:
            return [await source.last_file(archive) for archive in archives]

    return asyncio.run(play())


def fetch(template: str, archive: Archive) -> tuple[bytes, Verified]:
    """Return the archive's bytes and what the verifier found in them."""

    async def play() -> tuple[bytes, Verified]:
        async with opened(template) as source, source.open(archive) as stream:
            verifier = StreamVerifier(
                archive, root=stream.root, identity=source.identity_check(archive)
            )
            data = b""
            async for chunk in stream.chunks:
                await verifier.update(chunk)
                data += chunk
            return data, await verifier.finish()

    return asyncio.run(play())
