"""The contract of ``ports.Source``, for the fake, hgweb and git.

A host proves its archives in one of two ways. hgweb, and so the fake, lists its files; of git, the
worker has all objects. The tests of each way are for those sources only.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

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
from archiver.tree_proof import TreeMatch
from tests.git_world import git_source_config, git_world
from tests.parts.git_host import GitHost
from tests.parts.hgweb import ASH, FILES, MOZHARNESS, Ash, Hgweb

CHUNK_MAX_BYTES = 1 << 20
NOWHERE = Node("1234567890abcdef1234567890abcdef12345678")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A source with the repository ``projects/ash``, in which *names* resolve to *node*.

    *root* is the root directory of its archives of *node*.
    """

    source: Source
    node: Node
    names: tuple[str, ...]
    root: str

    def archive(self, *, node: Node | None = None, repo: str = ASH, subdir: str = "") -> Archive:
        return Archive(
            source=self.source.name,
            repo=repo,
            node=node or self.node,
            subdir=subdir,
            suffix=self.source.served.suffixes[0],
        )


Open = Callable[[], AbstractAsyncContextManager[Host]]


@asynccontextmanager
async def _fake() -> AsyncIterator[Host]:
    source = FakeSource()
    source.commit(ASH, {"README": b"older"})
    node = source.commit(ASH, FILES, "default", "REL_1.0")
    source.commit(ASH, {"README": b"newer"})
    names = ("default", "REL_1.0", node[:12], node[:20])
    yield Host(source=source, node=node, names=names, root=f"ash-{node[:12]}")


def _hgweb(hgweb: Hgweb, ash: Ash) -> Open:
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
        node = Node(ash.node)
        async with open_source(config) as source:
            yield Host(source=source, node=node, names=ash.spellings, root=f"ash-{node[:12]}")

    return real


def _git(host: GitHost, folder: Path) -> Open:
    repository = host.create(ASH)
    repository.commit({"README": b"older"})
    node = Node(repository.commit(FILES))
    repository.annotated_tag("REL_1.0", node)
    repository.commit({"README": b"newer"}, ref="refs/heads/topic/newer")
    names = ("main", "HEAD", "refs/heads/main", "REL_1.0", node, node[:12], node[:20])

    @asynccontextmanager
    async def real() -> AsyncIterator[Host]:
        config = git_source_config(host.template)
        async with git_world(config, folder) as world:
            yield Host(source=world.source, node=node, names=names, root=f"ash-{node}")

    return real


def _open(request: pytest.FixtureRequest) -> Open:
    match request.param:
        case "hgweb":
            return _hgweb(request.getfixturevalue("hgweb"), request.getfixturevalue("ash"))
        case "git":
            git_host = request.getfixturevalue("git_host")
            return _git(git_host, request.getfixturevalue("tmp_path"))
        case _:
            return _fake


@pytest.fixture(params=("fake", "hgweb", "git"))
def opened(request: pytest.FixtureRequest) -> Open:
    return _open(request)


@pytest.fixture(params=("fake", "hgweb"))
def listing(request: pytest.FixtureRequest) -> Open:
    """Open a source that lists the files of its host, and has Mercurial's revs."""
    return _open(request)


@pytest.fixture(params=("git",))
def mirroring(request: pytest.FixtureRequest) -> Open:
    """Open a source that has all objects of an archive before it begins."""
    return _open(request)


async def _fetch(host: Host, archive: Archive) -> tuple[bytes, Verified]:
    async with host.source.open(archive) as stream:
        verifier = StreamVerifier(
            archive,
            root=stream.root,
            identity=host.source.identity_check(archive),
            tree=stream.tree_check,
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


def test_tip_is_the_newest_changeset_of_all(listing: Open) -> None:
    async def play() -> None:
        async with listing() as host:
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
            if await host.source.has_node(ASH, NOWHERE):
                with pytest.raises(UnknownRev):
                    await _fetch(host, host.archive(node=NOWHERE))

    asyncio.run(play())


def test_a_host_that_lists_its_files_knows_its_nodes(listing: Open) -> None:
    async def play() -> None:
        async with listing() as host:
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
            assert verified.root == host.root

    asyncio.run(play())


@pytest.mark.parametrize("subdir", ("", MOZHARNESS, "testing"))
def test_a_whole_archive_ends_with_the_last_file(listing: Open, subdir: str) -> None:
    async def play() -> None:
        async with listing() as host:
            archive = host.archive(subdir=subdir)
            _, verified = await _fetch(host, archive)
            assert verified.last_file
            assert await host.source.last_file(archive) == verified.last_file
            assert await host.source.explain_unpackable(archive, after=b"") is None

    asyncio.run(play())


def test_a_subdir_that_does_not_exist_has_no_last_file(listing: Open) -> None:
    async def play() -> None:
        async with listing() as host:
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
            archive = replace(host.archive(), suffix="tar.xz")
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


@pytest.mark.parametrize("subdir", ("", MOZHARNESS))
def test_an_archive_of_a_mirror_is_proven_by_its_whole_tree(mirroring: Open, subdir: str) -> None:
    async def play() -> None:
        async with mirroring() as host:
            archive = host.archive(subdir=subdir)
            _, verified = await _fetch(host, archive)
            assert verified.proof
            assert verified.proof.match is TreeMatch.EXACT
            assert host.source.identity_check(archive) is None
            assert await host.source.last_file(archive) is None
            assert await host.source.explain_unpackable(archive, after=b"") is None

    asyncio.run(play())


def test_an_archive_of_a_host_needs_no_mirror(listing: Open) -> None:
    async def play() -> None:
        async with listing() as host, host.source.open(host.archive()) as stream:
            assert stream.tree_check is None

    asyncio.run(play())


def test_only_a_source_with_mirrors_completes(opened: Open) -> None:
    async def play() -> None:
        async with opened() as host, host.source.open(host.archive()) as stream:
            assert host.source.completes is (stream.tree_check is not None)

    asyncio.run(play())


def test_a_pack_is_reported_while_it_arrives_and_only_then(mirroring: Open) -> None:
    async def play() -> None:
        async with mirroring() as host:
            received: list[int] = []
            for _ in range(2):
                async with host.source.open(host.archive(), on_received=received.append):
                    pass
            assert received == sorted(set(received))
            assert received[-1] > 200_000  # toolkit/noise.dat cannot be compressed

    asyncio.run(play())
