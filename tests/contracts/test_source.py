"""The contract of ``ports.Source``, for the fake and for hgweb."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest

from archiver.errors import (
    InvalidRequest,
    SuffixRefused,
    UnknownRepo,
    UnknownRev,
    UnknownSubdir,
)
from archiver.formats.verify import StreamVerifier
from archiver.model import Archive, Node, Verified
from archiver.ports.source import ServedFormats, Source
from archiver.sources.config import SourceConfig
from archiver.sources.open import open_source
from archiver.testing import FakeSource
from tests.parts.hgweb import ASH, FILES, MOZHARNESS, Ash, Hgweb

CHUNK_MAX_BYTES = 1 << 20
NOWHERE = Node("1234567890abcdef1234567890abcdef12345678")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A source with the repository ``projects/ash``, in which *names* resolve to *node*."""

    source: Source
    node: Node
    names: tuple[str, ...]

    def archive(self, *, node: Node | None = None, repo: str = ASH, subdir: str = "") -> Archive:
        return Archive(
            source=self.source.name,
            repo=repo,
            node=node or self.node,
            subdir=subdir,
            suffix="tar.gz",
        )


Open = Callable[[], AbstractAsyncContextManager[Host]]


@asynccontextmanager
async def _fake() -> AsyncIterator[Host]:
    source = FakeSource()
    source.commit(ASH, {"README": b"older"})
    node = source.commit(ASH, FILES, "default", "REL_1.0")
    source.commit(ASH, {"README": b"newer"})
    yield Host(source=source, node=node, names=("default", "REL_1.0", node[:12], node[:20]))


@pytest.fixture(params=("fake", "hgweb"))
def opened(request: pytest.FixtureRequest, hgweb: Hgweb, ash: Ash) -> Open:
    if request.param == "fake":
        return _fake

    @asynccontextmanager
    async def real() -> AsyncIterator[Host]:
        config = SourceConfig(
            kind="hgweb",
            name="hgmo",
            url_template=hgweb.template,
            served=ServedFormats(suffixes=("tar.gz",)),
            redirect_hosts=(),
            allow_private_addresses=False,
            lookup_concurrency=2,
            read_timeout=timedelta(seconds=10),
            deadline=timedelta(seconds=20),
            user_agent="Archiver/test",
        )
        async with open_source(config) as source:
            yield Host(source=source, node=Node(ash.node), names=ash.spellings)

    return real


async def _fetch(host: Host, archive: Archive) -> tuple[bytes, Verified]:
    async with host.source.open(archive) as stream:
        verifier = StreamVerifier(
            archive, root=stream.root, identity=host.source.identity_check(archive)
        )
        chunks = []
        async for chunk in stream.chunks:
            assert 0 < len(chunk) <= CHUNK_MAX_BYTES
            await verifier.update(chunk)
            chunks.append(chunk)
        assert stream.url == host.source.url(archive)
        return b"".join(chunks), await verifier.finish()


def test_every_name_of_a_changeset_resolves_to_it(opened: Open) -> None:
    async def play() -> None:
        async with opened() as host:
            for name in host.names:
                host.source.check_rev(name)
                assert await host.source.resolve(ASH, name) == host.node

    asyncio.run(play())


def test_tip_is_the_newest_changeset_of_all(opened: Open) -> None:
    async def play() -> None:
        async with opened() as host:
            assert await host.source.resolve(ASH, "tip") != host.node

    asyncio.run(play())


@pytest.mark.parametrize("rev", ("no-such-name", "1234567890ab", "no/such/name"))
def test_an_unknown_rev_is_reported(opened: Open, rev: str) -> None:
    async def play() -> None:
        async with opened() as host:
            with pytest.raises(UnknownRev):
                await host.source.resolve(ASH, rev)

    asyncio.run(play())


def test_a_local_number_is_refused(opened: Open) -> None:
    async def play() -> None:
        async with opened() as host:
            with pytest.raises(InvalidRequest):
                host.source.check_rev("-1")

    asyncio.run(play())


def test_a_node_is_known_or_not(opened: Open) -> None:
    async def play() -> None:
        async with opened() as host:
            assert await host.source.has_node(ASH, host.node)
            assert not await host.source.has_node(ASH, NOWHERE)

    asyncio.run(play())


def test_every_request_reports_an_unknown_repo(opened: Open) -> None:
    async def play() -> None:
        async with opened() as host:
            with pytest.raises(UnknownRepo):
                await host.source.resolve("projects/nowhere", "tip")
            with pytest.raises(UnknownRepo):
                await host.source.has_node("projects/nowhere", host.node)
            with pytest.raises(UnknownRepo):
                await _fetch(host, host.archive(repo="projects/nowhere"))

    asyncio.run(play())


@pytest.mark.parametrize("subdir", ("", MOZHARNESS))
def test_an_archive_is_whole_and_identical_twice(opened: Open, subdir: str) -> None:
    async def play() -> None:
        async with opened() as host:
            first, verified = await _fetch(host, host.archive(subdir=subdir))
            second, _ = await _fetch(host, host.archive(subdir=subdir))
            assert first == second
            assert verified.root == f"ash-{host.node[:12]}"

    asyncio.run(play())


@pytest.mark.parametrize("subdir", ("", MOZHARNESS, "testing"))
def test_a_whole_archive_ends_with_the_last_file(opened: Open, subdir: str) -> None:
    async def play() -> None:
        async with opened() as host:
            archive = host.archive(subdir=subdir)
            _, verified = await _fetch(host, archive)
            assert verified.last_file
            assert await host.source.last_file(archive) == verified.last_file
            assert await host.source.explain_unpackable(archive, after=b"") is None

    asyncio.run(play())


def test_a_subdir_that_does_not_exist_has_no_last_file(opened: Open) -> None:
    async def play() -> None:
        async with opened() as host:
            with pytest.raises(UnknownSubdir):
                await host.source.last_file(host.archive(subdir="no/such/place"))

    asyncio.run(play())


def test_an_unknown_subdir_is_reported(opened: Open) -> None:
    async def play() -> None:
        async with opened() as host:
            with pytest.raises(UnknownSubdir) as raised:
                await _fetch(host, host.archive(subdir="no/such/place"))
            assert "no/such/place" in raised.value.message

    asyncio.run(play())


def test_an_unknown_node_is_not_opened(opened: Open) -> None:
    async def play() -> None:
        async with opened() as host:
            with pytest.raises(UnknownRev):
                await _fetch(host, host.archive(node=NOWHERE))

    asyncio.run(play())


def test_an_unserved_suffix_is_refused(opened: Open) -> None:
    async def play() -> None:
        async with opened() as host:
            archive = Archive(source="hgmo", repo=ASH, node=host.node, subdir="", suffix="tar.xz")
            with pytest.raises(SuffixRefused):
                await _fetch(host, archive)

    asyncio.run(play())


def test_each_archive_has_its_own_url(opened: Open) -> None:
    async def play() -> None:
        async with opened() as host:
            archives = [
                host.archive(),
                host.archive(node=NOWHERE),
                host.archive(subdir="testing"),
                host.archive(repo="projects/oak"),
            ]
            assert len({host.source.url(archive) for archive in archives}) == len(archives)

    asyncio.run(play())
